import { Worker } from 'node:worker_threads'
import type { BuildPoliciesResult, PolicyInputs } from './build-policies.ts'

/** Policies could not be compiled in a thread of their own: it died, or took too long. */
export class PolicyWorkerError extends Error {
  override readonly name = 'PolicyWorkerError'
  readonly code = 'ERR_POLICY_WORKER'
}

/**
 * `buildPolicies()` in a thread of its own: hundreds of policies take hundreds of milliseconds, in which this one goes on
 * answering. Rejects with `PolicyWorkerError` after two minutes.
 */
export async function buildInWorker(input: PolicyInputs): Promise<BuildPoliciesResult> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const worker = new Worker(new URL(`./policy-worker.${extension}`, import.meta.url), {
    workerData: input,
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  })
  const { promise, resolve, reject } = Promise.withResolvers<BuildPoliciesResult>()
  const fail = (why: string, cause?: unknown): void =>
    reject(new PolicyWorkerError(`Policies cannot be compiled: ${why}`, { cause }))
  worker.once('message', resolve)
  worker.once('error', (error) => fail('the thread failed', error))
  worker.once('exit', () => fail('the thread ended'))
  const timer = setTimeout(() => fail('they take too long'), maxMs)
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}

const maxMs = 120_000
