import { monitorEventLoopDelay } from 'node:perf_hooks'

/** How late the event loop is: what waits for it waits that long, revocations too. Disposal ends the watch. */
export interface EventLoopDelay extends Disposable {
  /** Seconds by quantile (`0.5`, `0.99`, `1`) since the last reading; zeros when nothing was sampled. */
  read(): ReadonlyMap<string, number>
}

export function watchEventLoopDelay(): EventLoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  histogram.enable()
  return {
    read() {
      const delays = quantiles.map(
        (quantile) =>
          [String(quantile), secondsLate(histogram.percentile(quantile * 100))] as const,
      )
      histogram.reset()
      return new Map(delays)
    },
    [Symbol.dispose]: () => void histogram.disable(),
  }
}

const resolutionMs = 20
const quantiles = [0.5, 0.99, 1] as const

/** The samples are the times between two turns of a timer, so the timer's own period comes off. */
function secondsLate(sampleNs: number): number {
  return Math.max(0, sampleNs / 1e6 - resolutionMs) / 1000
}
