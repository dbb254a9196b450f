import { pino, type LogFn, type Logger } from 'pino'

/** Operational log: JSON lines on stderr. What happened to whom is in the audit, not here. */
export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>

interface LogOptions {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
}

/** On stderr, because stdout may be the audit's. */
export function createLog({ level }: LogOptions): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: serializeError },
      redact: { paths: secretPaths, censor: '[redacted]' },
      hooks: { logMethod: withoutForeignMessage },
    },
    pino.destination({ dest: 2, sync: true }),
  )
}

/** A second line of defence: nothing of ours logs these. */
const secretPaths = [
  'authorization',
  'headers',
  'rawHeaders',
  'cookie',
  'token',
  'secret',
  'password',
  '*.authorization',
  '*.headers',
  '*.rawHeaders',
  '*.cookie',
  '*.token',
  '*.secret',
  '*.password',
]

/** Without a message of ours, the library would take the error's. */
function withoutForeignMessage(this: Logger, args: Parameters<LogFn>, method: LogFn): void {
  const [fields, message = ''] = args
  method.apply(this, typeof fields === 'string' ? args : [fields, message])
}

/**
 * The codes of our own errors, which say nothing secret. A prefix would not do: Node and jose have `ERR_` codes too, and
 * Node quotes the value that it refuses.
 */
const ownCodes: ReadonlySet<string> = new Set([
  'ERR_ANSWER_CHUNK',
  'ERR_ANSWER_FRAMING',
  'ERR_ANSWER_HEAD',
  'ERR_ANSWER_SIZE',
  'ERR_APPROVER_INVALID',
  'ERR_AUDIT_BACKLOG',
  'ERR_AUDIT_CHAIN',
  'ERR_AUDIT_KEY',
  'ERR_AUDIT_SINK',
  'ERR_AUDIT_TIMEOUT',
  'ERR_BODY_ABORTED',
  'ERR_BODY_CUT',
  'ERR_BODY_GAP',
  'ERR_CREDENTIAL_UNAVAILABLE',
  'ERR_GRANT_STORE_TXN',
  'ERR_GRANT_STORE_UNAVAILABLE',
  'ERR_LISTEN',
  'ERR_LISTEN_TLS',
  'ERR_OPERATOR_INVALID',
  'ERR_POLICIES',
  'ERR_POLICY_FILE',
  'ERR_POLICY_SET',
  'ERR_POLICY_WORKER',
  'ERR_RESPONSE_FILTER',
  'ERR_REVOCATION_DRAFT',
  'ERR_REVOCATION_RID_CONFLICT',
  'ERR_REVOCATION_SET_FULL',
  'ERR_REVOCATION_STORE_REPLY',
  'ERR_REVOCATION_STORE_UNAVAILABLE',
  'ERR_ROUTE_INVALID',
  'ERR_SNAPSHOT',
  'ERR_STORE_OPTIONS',
  'ERR_TEXT_FILE',
  'ERR_TRUST_BUNDLE',
  'ERR_UPSTREAM_ADDRESS',
  'ERR_UPSTREAM_CLOSED',
  'ERR_UPSTREAM_CONNECT_TIMEOUT',
  'ERR_UPSTREAM_PING',
  'ERR_UPSTREAM_PROTOCOL',
  'ERR_UPSTREAM_REFUSED_STREAM',
  'ERR_UPSTREAM_REQUEST',
  'ERR_UPSTREAM_STALE',
  'ERR_UPSTREAM_STREAM',
  'ERR_UPSTREAM_TIMEOUT',
])

/** Messages of others may quote what they choked on, so of those only the type, the code and stack frames stay. */
function serializeError(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error }
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  return {
    type: error.constructor.name,
    ...(code !== undefined && { code }),
    ...(code !== undefined && ownCodes.has(code) && { message: error.message }),
    frames: framesOf(error).slice(0, 8),
  }
}

/** A message of several lines may look like frames: it is taken off first, and a stack that does not hold it is not shown. */
function framesOf({ stack, message }: Error): readonly string[] {
  const start = stack?.indexOf(message) ?? -1
  if (stack === undefined || start === -1) return []
  const lines = stack.slice(start + message.length).split('\n')
  return lines.filter((line) => /^ {4}at /.test(line))
}
