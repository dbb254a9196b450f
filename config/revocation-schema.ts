/** Where revocations come from, how fresh they must be, and who may lift them. */
import * as v from 'valibot'
import { redisUrlExpected, redisUrlPattern } from './redis-url.ts'
import { describedText, duration, minute, name, second, text } from './setting.ts'

export const operator = v.strictObject({
  name: describedText('The operator, exactly as lifts name it in `iss`.'),
  jwks: describedText(
    "JWK Set file with the operator's public keys; each key needs `kid` and `alg`.",
  ),
})

const redis = v.strictObject({
  url: v.pipe(v.string(), v.maxLength(4096), v.regex(redisUrlPattern, redisUrlExpected)),
  username: v.optional(text),
  passwordFile: v.optional(text),
  sentinelUsername: v.optional(text),
  sentinelPasswordFile: v.optional(text),
  caFile: v.optional(describedText('PEM file of the authority that signs the server, for rediss.')),
  certFile: v.optional(text),
  keyFile: v.optional(text),
  /** Keys are `{<prefix>}:<trust domain>:...`. */
  prefix: v.optional(name, 'chaperone'),
})

const freshness = {
  syncInterval: duration('250ms', {
    min: 50,
    max: 10 * second,
    about: 'How often the view proves that it is complete; jittered by 15 %.',
  }),
  staleAfterWrites: duration('1s', {
    min: 100,
    max: 30 * second,
    about: 'Past this age of the view, writes are refused with `control-plane-stale`.',
  }),
  staleAfterReads: duration('2s', {
    min: 100,
    max: minute,
    about: 'Past this age of the view, reads are refused with `control-plane-stale`.',
  }),
  staleAfterStreams: duration('10s', {
    min: 500,
    max: 5 * minute,
    about:
      'Past this age of the view, live streams are cut: what they carry can no longer be revoked.',
  }),
}

const denyFile = v.optional(
  describedText(
    'Text file of subjects that are denied, one per line with a reason, with or without the store. Looked at four times a second. Absent: none.',
  ),
)

export const revocation = v.variant('source', [
  v.strictObject({
    source: v.literal('redis'),
    redis,
    snapshotFile: v.optional(
      describedText(
        'Local file that keeps the known records for the next start: they refuse before Redis has answered. It holds the 50,000 records and 5,000 lifts that were learnt last; older ones come from Redis alone. Written at most once per second. Absent: none.',
      ),
    ),
    denyFile,
    ...freshness,
  }),
  v.strictObject({ source: v.literal('embedded'), denyFile, ...freshness }),
])
