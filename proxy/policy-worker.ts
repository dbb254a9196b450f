import { parentPort, workerData } from 'node:worker_threads'
import { buildPolicySet } from '../policy/cedar.ts'
import type { PolicyWorkerInput } from './build-in-worker.ts'

const { sources, schema }: PolicyWorkerInput = workerData
const built = buildPolicySet(sources, { schema })
parentPort?.postMessage(built, built.ok ? [built.set.image.memory] : [])
