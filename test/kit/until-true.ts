import { setTimeout as delay } from 'node:timers/promises'

/** Polls until it holds, at most half a minute: a slow machine is no failure. A question that fails is asked again. */
export async function untilTrue(holds: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + deadlineMs
  while (!(await holds().catch(() => false))) {
    if (performance.now() > deadline) throw new Error(`Never within ${deadlineMs} ms: ${what}`)
    await delay(20)
  }
}

const deadlineMs = 30_000
