import { startCheckpoints } from '../audit/checkpoint.ts'
import type { AuditLog } from '../audit/log.ts'
import type { Config } from '../config/schema.ts'
import { openSecretFile } from '../credential/secret-file.ts'
import type { Clock } from '../policy/types.ts'
import type { Log } from './log.ts'

/** The signed checkpoints of the audit, when they are configured. Throws when there is no key to sign with. */
export function checkpointsOf(
  audit: AuditLog,
  options: {
    readonly config: Config['audit']['checkpoint']
    readonly instance: string
    readonly clock: Clock
    readonly log: Log
  },
): AsyncDisposable | undefined {
  const { config, instance, clock, log } = options
  if (!config) return undefined
  const file = openSecretFile(config.keys.file, clock)
  return startCheckpoints(audit, {
    keys: () => file.read(),
    everyMs: config.every,
    instance,
    clock,
    onError: (error) => log.error({ err: error }, 'no checkpoint could be put on record'),
  })
}
