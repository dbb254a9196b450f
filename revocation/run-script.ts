import { createHash } from 'node:crypto'
import type { Redis } from 'ioredis'

/** Runs a script by its digest: a command that is sent every second should not carry its text every second. */
export async function runScript(
  redis: Redis,
  script: string,
  { keys, args }: { readonly keys: readonly string[]; readonly args: readonly (string | number)[] },
): Promise<unknown> {
  try {
    return await redis.evalsha(digestOf(script), keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
    return await redis.eval(script, keys.length, ...keys, ...args)
  }
}

const digests = new Map<string, string>()

function digestOf(script: string): string {
  const known = digests.get(script)
  if (known !== undefined) return known
  const digest = createHash('sha1').update(script).digest('hex')
  digests.set(script, digest)
  return digest
}
