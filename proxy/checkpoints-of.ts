import { startCheckpoints, type CheckpointStore } from '../audit/checkpoint.ts'
import type { Config } from '../config/schema.ts'
import { openSecretFile } from '../credential/secret-file.ts'
import type { Sidecar } from './sidecar.ts'

/** The signed checkpoints of the audit, when they are configured. Throws when there is no key to sign with. */
export function checkpointsOf(
  { audit, clock, log, metrics }: Sidecar,
  {
    config,
    instance,
    store,
  }: {
    readonly config: Config['audit']['checkpoint']
    readonly instance: string
    readonly store: CheckpointStore | undefined
  },
): AsyncDisposable | undefined {
  if (!config) return undefined
  const file = openSecretFile(config.keys.file, clock)
  return startCheckpoints(audit, {
    keys: () => file.read(),
    everyMs: config.every,
    instance,
    clock,
    ...(store && { store }),
    onStored: (outcome) => metrics.checkpointStored(outcome),
    onError: (error) => log.error({ err: error }, 'no checkpoint could be put on record'),
  })
}
