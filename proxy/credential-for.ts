import { CredentialError, type Credential } from '../credential/issuer.ts'
import { deny } from '../policy/denial.ts'
import type { Agent, Denial, GrantChain } from '../policy/types.ts'
import type { Sidecar } from './sidecar.ts'
import type { SnapshotUpstream } from './snapshot.ts'

interface CredentialRequest {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly upstream: SnapshotUpstream
}

/** The credential of this task at this upstream, cached or issued now; a refusal when there is none. */
export async function credentialFor(
  { credentials, clock, metrics }: Sidecar,
  { agent, chain, upstream }: CredentialRequest,
): Promise<Credential | Denial> {
  const { issuer, facts } = upstream
  try {
    const credential = await credentials.get(issuer, {
      agent,
      chain,
      upstream: facts,
      nowMs: clock.now(),
    })
    return credential
  } catch (error) {
    metrics.credentialIssued(issuer.kind, 'failed')
    if (!(error instanceof CredentialError)) throw error
    return deny('upstream-credential-unavailable', error.message)
  }
}
