import { Worker } from 'node:worker_threads'
import type { UpstreamConfig } from '../config/schema.ts'
import type { Upstream } from '../policy/types.ts'
import type { BuildPoliciesResult, PolicyInputs } from './build-policies.ts'
import { PolicyFileError } from './policy-files.ts'

/** Policies could not be compiled in a thread of their own: it died, or took too long. */
export class PolicyWorkerError extends Error {
  override readonly name = 'PolicyWorkerError'
  readonly code = 'ERR_POLICY_WORKER'
}

/** What can be done in a thread of its own. */
export type PolicyWork =
  | { readonly build: PolicyInputs }
  | { readonly readFacts: readonly UpstreamConfig[] }

/**
 * `buildPolicies()` in a thread of its own: hundreds of policies take hundreds of milliseconds, in which this one goes on
 * answering. Rejects with `PolicyWorkerError` after two minutes.
 */
export function buildInWorker(input: PolicyInputs): Promise<BuildPoliciesResult> {
  return work({ build: input })
}

/** `upstreamFacts()` in a thread of its own: an OpenAPI document may take seconds. Rejects as both do. */
export async function readFactsInWorker(
  upstreams: readonly UpstreamConfig[],
): Promise<ReadonlyMap<string, Upstream>> {
  const read = await work<ReadFactsResult>({ readFacts: upstreams })
  if (read.ok) return read.facts
  throw new PolicyFileError(read.message)
}

/** An error loses its class on the way between threads. */
export type ReadFactsResult =
  | { readonly ok: true; readonly facts: ReadonlyMap<string, Upstream> }
  | { readonly ok: false; readonly message: string }

async function work<T>(input: PolicyWork): Promise<T> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const worker = new Worker(new URL(`./policy-worker.${extension}`, import.meta.url), {
    workerData: input,
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  })
  const { promise, resolve, reject } = Promise.withResolvers<T>()
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
