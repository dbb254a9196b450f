import { parentPort, workerData } from 'node:worker_threads'
import type { UpstreamConfig } from '../config/schema.ts'
import type { PolicyWork, ReadFactsResult } from './build-in-worker.ts'
import { buildPolicies, type PolicyInputs } from './build-policies.ts'
import { PolicyFileError } from './policy-files.ts'
import { upstreamFacts } from './upstream-facts.ts'

const work: PolicyWork = workerData
if ('build' in work) build(work.build)
else parentPort?.postMessage(readFacts(work.readFacts), [])

function build(inputs: PolicyInputs): void {
  const built = buildPolicies(inputs)
  const sets = built.ok ? [built.set, ...(built.shadow ? [built.shadow] : [])] : []
  // An instance of the engine cannot leave its thread: the image of it does.
  const message = built.ok ? { ...built, cedar: undefined } : built
  parentPort?.postMessage(
    message,
    sets.map(({ image }) => image.memory),
  )
}

function readFacts(upstreams: readonly UpstreamConfig[]): ReadFactsResult {
  try {
    return { ok: true, facts: upstreamFacts(upstreams) }
  } catch (error) {
    if (error instanceof PolicyFileError) return { ok: false, message: error.message }
    throw error
  }
}
