/** The kinds of settings that `chaperone.yaml` is made of. */
import * as v from 'valibot'
import { byteSizePattern, parseByteSize } from './byte-size.ts'
import { durationPattern, parseDuration } from './duration.ts'

export const second = 1_000
export const minute = 60 * second
export const hour = 60 * minute

interface Bounds {
  readonly min: number
  readonly max: number
  /** What the setting is, for editors. */
  readonly about?: string
}

const expectedDuration = 'Expected a duration such as "250ms", "30s" or "5m"'
const expectedByteSize = 'Expected a size such as "16KiB" or "1MiB"'

function describeBounds({ min, max, about }: Bounds, unit: string): string {
  return `${about === undefined ? '' : `${about} `}From ${min}${unit} to ${max}${unit}.`
}

/** `30s` with bounds in milliseconds. */
export function duration(fallback: string, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.string(expectedDuration),
      // For editors: a JSON Schema ends at the transformation.
      v.regex(durationPattern, expectedDuration),
      v.description(describeBounds(bounds, ' ms')),
      v.rawTransform(({ dataset, addIssue, NEVER }) => {
        const ms = parseDuration(dataset.value)
        if (ms === undefined) {
          addIssue({ message: expectedDuration })
          return NEVER
        }
        if (ms < bounds.min || ms > bounds.max) {
          addIssue({ message: `Expected a duration from ${bounds.min} ms to ${bounds.max} ms` })
          return NEVER
        }
        return ms
      }),
    ),
    fallback,
  )
}

/** `256KiB` with bounds in bytes. */
export function byteSize(fallback: string, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.string(expectedByteSize),
      v.regex(byteSizePattern, expectedByteSize),
      v.description(describeBounds(bounds, ' bytes')),
      v.rawTransform(({ dataset, addIssue, NEVER }) => {
        const bytes = parseByteSize(dataset.value)
        if (bytes === undefined) {
          addIssue({ message: expectedByteSize })
          return NEVER
        }
        if (bytes < bounds.min || bytes > bounds.max) {
          addIssue({ message: `Expected a size from ${bounds.min} to ${bounds.max} bytes` })
          return NEVER
        }
        return bytes
      }),
    ),
    fallback,
  )
}

export function count(fallback: number, bounds: Bounds) {
  return v.optional(
    v.pipe(
      v.number(),
      v.integer(),
      v.minValue(bounds.min, `Expected at least ${bounds.min}`),
      v.maxValue(bounds.max, `Expected at most ${bounds.max}`),
      v.description(describeBounds(bounds, '')),
    ),
    fallback,
  )
}

export const text = v.pipe(
  v.string(),
  v.minLength(1, 'Expected text that is not empty'),
  v.maxLength(2048),
)
/** Text with a description for editors. */
export function describedText(about: string) {
  return v.pipe(text, v.description(about))
}

const expectedTime = 'Expected a time such as "2026-11-24T12:00:00Z"'

/** RFC 3339 with its zone; becomes epoch milliseconds. */
export function time(about: string) {
  return v.pipe(
    v.string(expectedTime),
    v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)$/, expectedTime),
    v.description(about),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const ms = Date.parse(dataset.value)
      if (!Number.isNaN(ms)) return ms
      addIssue({ message: expectedTime })
      return NEVER
    }),
  )
}

/** A trial that nobody ends would be the policy. */
export const maxObserveMs = 7 * 24 * hour

/** When a trial ends: what policies refuse on `where` is allowed until then. */
export function observeUntil(where: string) {
  return time(
    `Until then what the policies refuse ${where} is allowed and recorded as such. At most 7 days ahead. Revocation, identity, grants and policies that fail refuse as ever.`,
  )
}

/** A switch that is off unless it is set. */
export function flag(about: string) {
  return v.optional(v.pipe(v.boolean(), v.description(about)), false)
}

export const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'Expected a name of lower-case letters, digits and "-"'),
)
/** The name of a task, itself and none below it. */
export const txn = v.pipe(
  v.string(),
  v.regex(
    /^(?!\.{1,2}$)[A-Za-z0-9._~-]{1,128}$/,
    'Expected a task of 1 to 128 characters of A-Z a-z 0-9 . _ ~ -',
  ),
  v.description('The task, as its grant names it in `txn`; not those that are delegated from it.'),
)
export const trustDomain = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9._-]{1,255}$/, 'Expected a SPIFFE trust domain such as "prod.example.org"'),
)
export const sensitivity = v.picklist(
  ['public', 'internal', 'confidential', 'restricted'],
  'Expected public, internal, confidential or restricted',
)
export const address = v.pipe(
  v.string(),
  v.regex(
    /^(\[[0-9a-f:]+\]|[a-zA-Z0-9.-]+):\d{1,5}$/,
    'Expected host:port such as "127.0.0.1:15080"',
  ),
)
export const httpUrl = v.pipe(
  v.string(),
  v.url('Expected an absolute http: or https: URL'),
  v.regex(
    /^https?:\/\/[^@?#]+$/,
    'Expected an http: or https: URL without userinfo, query or fragment',
  ),
)
export const httpsUrl = v.pipe(
  v.string(),
  v.url('Expected an absolute https: URL'),
  v.regex(/^https:\/\/[^@?#]+$/, 'Expected an https: URL without userinfo, query or fragment'),
)
/** A literal secret in the file is an error by shape: only a path is accepted. */
export const secret = v.strictObject(
  {
    file: describedText('Path of the file that holds the secret; re-read on change'),
  },
  'Expected { file: <path> }: a secret may not stand in the configuration',
)
export const headerName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'Expected a lower-case header name'),
)
