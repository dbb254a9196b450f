import { connectionOptions, isMisplacedTrailer } from './headers.ts'

type Pair = readonly [name: string, value: string]

export interface RequestTrailerOptions {
  /** The request's own fields: what its `Connection` lists stays on that connection. */
  readonly rawHeaders: readonly string[]
  /** Lower-case names that the issuer writes. */
  readonly slots: readonly string[]
}

/**
 * What stands behind a request's body, for the upstream. It comes after the decision, so nothing passes that the decision,
 * the credential, the framing or the path of the request rest on, or that a server acts on before it has the body (RFC
 * 9110 section 6.5.1): such fields are dropped.
 */
export function requestTrailers(
  raw: readonly string[],
  { rawHeaders, slots }: RequestTrailerOptions,
): readonly Pair[] {
  const passed: Pair[] = []
  if (raw.length === 0) return passed
  const taken = new Set([...slots, ...connectionOptions(rawHeaders)])
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = (raw[index] ?? '').toLowerCase()
    const value = raw[index + 1] ?? ''
    // Stricter than for a head, where another spelling of a name that is taken would be refused.
    if (!nameForm.test(name) || !valueForm.test(value)) continue
    if (taken.has(name) || isMisplacedTrailer(name) || isRequestControl(name)) continue
    passed.push([name, value])
  }
  return passed
}

const nameForm = /^[a-z0-9][a-z0-9.-]{0,127}$/
const valueForm = /^[\t -~\x80-\xff]*$/

/** Preconditions, ranges, negotiation, and what the protocols above HTTP decide by. */
function isRequestControl(name: string): boolean {
  return controls.has(name) || controlPrefixes.some((prefix) => name.startsWith(prefix))
}

const controls: ReadonlySet<string> = new Set([
  'early-data',
  'from',
  'idempotency-key',
  'last-event-id',
  'max-forwards',
  'origin',
  'prefer',
  'priority',
  'range',
  'referer',
  'user-agent',
])

const controlPrefixes = ['accept', 'access-control-', 'grpc-', 'if-', 'mcp-', 'sec-'] as const
