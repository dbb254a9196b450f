import type { Http2Stream } from 'node:http2'

/** Ends a stream that waits for its trailers, also when there are none. Nothing is sent on one that is over. */
export function sendTrailers(
  stream: Http2Stream,
  trailers: readonly (readonly [name: string, value: string])[],
): void {
  if (stream.destroyed || stream.closed) return
  // A name may be that of something every object has.
  const byName = Map.groupBy(trailers, ([name]) => name.toLowerCase())
  stream.sendTrailers(
    Object.fromEntries([...byName].map(([name, pairs]) => [name, pairs.map(([, value]) => value)])),
  )
}
