/** A connection to an upstream could not be made, or was lost. */
export class UpstreamLinkError extends Error {
  override readonly name = 'UpstreamLinkError'
  readonly code:
    | 'ERR_UPSTREAM_CLOSED'
    | 'ERR_UPSTREAM_CONNECT_TIMEOUT'
    | 'ERR_UPSTREAM_PING'
    | 'ERR_UPSTREAM_PROTOCOL'
    | 'ERR_UPSTREAM_STALE'
    | 'ERR_UPSTREAM_TIMEOUT'
  constructor(code: UpstreamLinkError['code'], message: string) {
    super(message)
    this.code = code
  }
}
