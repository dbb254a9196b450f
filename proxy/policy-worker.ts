import { parentPort, workerData } from 'node:worker_threads'
import { buildPolicySet } from '../policy/cedar.ts'
import type { PolicyWorkerInput } from './build-in-worker.ts'

const { sources, schema }: PolicyWorkerInput = workerData
const built = buildPolicySet(sources, { schema })
if (built.ok) parentPort?.postMessage({ ok: true, set: built.set }, [built.set.image.memory])
else parentPort?.postMessage(built)
