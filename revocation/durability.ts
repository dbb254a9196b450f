import type { Redis } from 'ioredis'
import * as v from 'valibot'
import { describeFault } from './redis-connection.ts'

/** How much of the store has to be lost before a commit is. */
export type Durability =
  | {
      readonly kind: 'known'
      /** Replicas that have it. */
      readonly replicas: number
      /** Replicas that follow the master by now: one that is down or cut off is not among them. */
      readonly connected: number
      /** In the append-only file of the master, and fsynced. Undefined when the server cannot say, before Redis 7.2. */
      readonly onDisk: boolean | undefined
    }
  | { readonly kind: 'unknown'; readonly why: string }

/**
 * Waits, a few seconds at most, until every replica that follows this master, and at least `atLeast`, have what was written
 * before, and its disk has it. Ask on the connection of the write: another one may lead to another master.
 * Never rejects.
 */
export async function awaitDurability(
  redis: Redis,
  { atLeast }: { readonly atLeast: number },
): Promise<Durability> {
  try {
    const [role, , followers] = v.parse(roleSchema, await redis.role())
    if (role !== 'master') return { kind: 'unknown', why: 'Redis is not the master any more' }
    const replicas = await redis.wait(Math.max(followers.length, atLeast), waitMs)
    // One that began to follow meanwhile counts too.
    const connected = Math.max(followers.length, replicas)
    return { kind: 'known', replicas, connected, onDisk: await isOnDisk(redis) }
  } catch (error) {
    return { kind: 'unknown', why: describeFault(error).reason }
  }
}

const waitMs = 1_000

const roleSchema = v.looseTuple([v.string(), v.unknown(), v.array(v.unknown())])

/** A server without an append-only file, one that does not know the command, and one that forbids it, cannot say. */
async function isOnDisk(redis: Redis): Promise<boolean | undefined> {
  try {
    const [local] = v.parse(waitAofSchema, await redis.call('WAITAOF', 1, 0, waitMs))
    return local === 1
  } catch {
    return undefined
  }
}

const waitAofSchema = v.looseTuple([v.number()])
