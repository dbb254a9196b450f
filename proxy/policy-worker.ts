import { parentPort, workerData } from 'node:worker_threads'
import { buildPolicies, type PolicyInputs } from './build-policies.ts'

const inputs: PolicyInputs = workerData
const built = buildPolicies(inputs)
const sets = built.ok ? [built.set, ...(built.shadow ? [built.shadow] : [])] : []
// An instance of the engine cannot leave its thread: the image of it does.
const message = built.ok ? { ...built, cedar: undefined } : built
parentPort?.postMessage(
  message,
  sets.map(({ image }) => image.memory),
)
