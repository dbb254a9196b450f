import type { Credential, Issuer } from './issuer.ts'

/** For an upstream that asks for no credential: the agent's own is taken off all the same. */
export const noneIssuer: Issuer = {
  kind: 'none',
  revocationClass: 'R0',
  slots: { headers: [], query: [] },
  issue: () => Promise.resolve(nothing),
}

const nothing: Credential = {
  kind: 'none',
  digest: '-',
  expiresAtMs: Number.POSITIVE_INFINITY,
  slots: () => ({ headers: [], query: [] }),
  revoke: () => Promise.resolve('unsupported'),
}
