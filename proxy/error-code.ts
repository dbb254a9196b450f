/** The library's or the system's short code: messages may quote what the upstream sent. */
export function errorCode(error: unknown): string {
  if (!(error instanceof Error)) return 'ERR_UNKNOWN'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
