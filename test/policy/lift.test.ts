import { beforeAll, describe, expect, test } from 'vitest'
import type { LiftResult } from '../../policy/lift.ts'
import { signLift, verifierOf } from '../kit/lifts.ts'
import { signGrant, signingKey, type SigningKey } from '../kit/tokens.ts'

let key: SigningKey
let stranger: SigningKey
beforeAll(async () => {
  key = await signingKey()
  stranger = await signingKey('ES256', { kid: key.kid })
})

const verify = (compact: string): Promise<LiftResult> => verifierOf(key)(compact)

describe('verifyLift()', () => {
  test('gives the records that an operator signed for', async () => {
    const compact = signLift(key, { claims: { jti: 'l1', iat: 7, lifts: ['r1', 'r2'] } })
    expect(await verify(compact)).toEqual({
      ok: true,
      lift: {
        rid: 'l1',
        lifts: ['r1', 'r2'],
        by: 'oncall',
        reason: 'looked at it',
        atMs: 7_000,
        compact,
      },
    })
  })

  test('takes an old one: replayed, it names the same records again', async () => {
    expect(await verify(signLift(key, { claims: { iat: 0 } }))).toMatchObject({ ok: true })
  })

  test.each<[string, object, string]>([
    ['another operator', { iss: 'other' }, 'its issuer is not an operator'],
    [
      'another trust domain',
      { aud: 'spiffe://b/chaperone' },
      'claim aud: is not this trust domain',
    ],
    ['another operation', { op: 'resume' }, 'claim op: is not "lift"'],
    ['no record', { lifts: [] }, 'claim lifts: is not a list of 1 to 256'],
    ['a subject', { lifts: ['task T-1'] }, 'claim lifts: is not a list of record ids'],
    [
      'more than 256 records',
      { lifts: Array.from({ length: 257 }, (_, n) => `r${n}`) },
      'claim lifts: is not a list of 1 to 256',
    ],
    ['a claim that is not known', { subject: 'all' }, 'it has unknown claims'],
    ['no id', { jti: '' }, 'claim jti: is not a record id'],
  ])('refuses one of %s', async (_case, claims, reason) => {
    expect(await verify(signLift(key, { claims: { ...claims } }))).toEqual({ ok: false, reason })
  })

  test('refuses the signature of another key under the same kid', async () => {
    expect(await verify(signLift(stranger))).toEqual({
      ok: false,
      reason: 'its signature does not verify',
    })
  })

  test('refuses a key of another operator, another typ and more header', async () => {
    const reasons = await Promise.all(
      [
        signLift(key, { header: { kid: 'k2' } }),
        signGrant(key),
        signLift(key, { header: { jwk: stranger.publicJwk } }),
      ].map(async (compact) => await verify(compact)),
    )
    expect(reasons).toEqual([
      { ok: false, reason: 'its key is not one of this operator' },
      { ok: false, reason: 'header: typ is not "revocation-lift+jwt"' },
      { ok: false, reason: 'header: has more members than alg, kid and typ' },
    ])
  })
})
