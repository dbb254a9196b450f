import { pino, stdSerializers, type Logger } from 'pino'

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

/** Own errors say nothing secret; messages of others may quote what they choked on, so of those only name, code and stack frames stay. */
function serializeError(error: unknown): object {
  if (!(error instanceof Error)) return { type: typeof error }
  const { type, stack } = stdSerializers.err(error)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  const frames = stack.split('\n').filter((line) => /^ {4}at /.test(line))
  return {
    type,
    ...(code !== undefined && { code }),
    ...(code?.startsWith('ERR_') === true && { message: error.message }),
    frames: frames.slice(0, 8),
  }
}
