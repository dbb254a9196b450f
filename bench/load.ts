import { connect } from 'node:net'

/** Sends one fixed request over and over and reads the answers by their Content-Length. */
export interface LoadResult {
  readonly requests: number
  readonly seconds: number
  /** Sorted, microseconds. */
  readonly latenciesUs: Float64Array
  /** Answers whose status was not 200, and requests without an answer: a benchmark of refusals would be worth nothing. */
  readonly failures: number
}

interface LoadOptions {
  readonly port: number
  readonly request: Buffer
  readonly connections: number
  readonly durationMs: number
  /** The least time between two requests of a connection, milliseconds. Default 0. */
  readonly paceMs?: number
}

/** A closed loop: each connection has one request in flight. Cheap on purpose, so that the proxy is the slower side. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const { connections, durationMs } = options
  const latencies: number[] = []
  const counts = { failures: 0 }
  const from = performance.now()
  const until = from + durationMs
  await Promise.all(
    Array.from({ length: connections }, () => drive(options, { until, latencies, counts })),
  )
  return {
    requests: latencies.length,
    seconds: (performance.now() - from) / 1000,
    latenciesUs: Float64Array.from(latencies).toSorted(),
    failures: counts.failures,
  }
}

interface Tally {
  readonly until: number
  readonly latencies: number[]
  readonly counts: { failures: number }
}

function drive({ port, request, paceMs = 0 }: LoadOptions, tally: Tally): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let sentAt = 0
    let waiting = true
    let pending: Buffer = Buffer.alloc(0)
    const send = (): void => {
      sentAt = performance.now()
      waiting = true
      socket.write(request)
    }
    socket.on('connect', send)
    socket.on('error', reject)
    socket.on('close', () => {
      if (waiting) tally.counts.failures += 1
      resolve()
    })
    socket.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      const length = answerLength(pending)
      if (length === undefined || pending.length < length) return
      tally.latencies.push((performance.now() - sentAt) * 1000)
      if (pending.toString('latin1', 9, 12) !== '200') tally.counts.failures += 1
      pending = Buffer.alloc(0)
      waiting = false
      const pauseMs = sentAt + paceMs - performance.now()
      if (performance.now() >= tally.until) socket.end()
      else if (pauseMs > 0) setTimeout(send, pauseMs)
      else send()
    })
  })
}

function answerLength(bytes: Buffer): number | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end === -1) return undefined
  const match = /\r\ncontent-length: *(\d+)/i.exec(bytes.toString('latin1', 0, end))
  return match ? end + 4 + Number(match[1]) : undefined
}

/** The value below which `share` of the sorted samples lie. */
export function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  return percentile(Float64Array.from(values).toSorted(), 0.5)
}
