import { CredentialError, type Credential } from '../credential/issuer.ts'
import { deny } from '../policy/denial.ts'
import { denialOfRevocation } from '../policy/revocation-code.ts'
import type { Agent, Denial, GrantChain, RevocationView } from '../policy/types.ts'
import type { Exchange } from './exchange.ts'
import type { Sidecar } from './sidecar.ts'
import type { SnapshotUpstream } from './snapshot.ts'

interface CredentialRequest {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly upstream: Pick<SnapshotUpstream, 'issuer' | 'facts'>
  readonly exchange: Exchange
}

/** The credential of this task at this upstream, cached or issued now; a refusal when there is none, or it is revoked. */
export async function credentialFor(
  {
    credentials,
    clock,
    metrics,
    feed,
  }: Pick<Sidecar, 'credentials' | 'clock' | 'metrics'> & {
    readonly feed: Pick<Sidecar['feed'], 'view'>
  },
  { agent, chain, upstream, exchange }: CredentialRequest,
): Promise<Credential | Denial> {
  const { issuer, facts } = upstream
  try {
    const credential = await credentials.get(issuer, {
      agent,
      chain,
      upstream: facts,
      nowMs: clock.now(),
    })
    return findRevoked(credential, { exchange, view: feed.view }) ?? credential
  } catch (error) {
    metrics.credentialIssued(issuer.kind, 'failed')
    if (!(error instanceof CredentialError)) throw error
    return deny('upstream-credential-unavailable', error.message)
  }
}

/** Tracked before it is asked for, as at step 5: a record that lands after this look cuts the exchange. */
function findRevoked(
  { subject }: Credential,
  { exchange, view }: { readonly exchange: Exchange; readonly view: RevocationView },
): Denial | undefined {
  if (subject === undefined) return undefined
  exchange.restsOn(subject)
  const record = view.find([subject])
  return record && denialOfRevocation(record)
}
