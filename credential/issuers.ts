import type { CredentialConfig } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import { createInjectIssuer } from './inject.ts'
import { CredentialError, type Issuer } from './issuer.ts'
import { createMintIssuer, type MintKeys } from './mint.ts'
import { noneIssuer } from './none.ts'

/** Makes the issuer that an upstream's configuration names. Throws `CredentialError` when it could not issue now. */
export function createIssuer(
  config: CredentialConfig,
  { mintKeys, clock }: { readonly mintKeys: MintKeys | undefined; readonly clock: Clock },
): Issuer {
  if ('inject' in config) return createInjectIssuer(config.inject, { clock })
  if ('none' in config) return noneIssuer
  if (!mintKeys) throw new CredentialError('A minted credential needs the setting "mint"')
  return createMintIssuer(config.mint, { keys: mintKeys })
}
