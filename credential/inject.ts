import { createHash } from 'node:crypto'
import type { CredentialConfig } from '../config/schema.ts'
import type { Clock } from '../policy/types.ts'
import { CredentialError, type Credential, type InjectedSlots, type Issuer } from './issuer.ts'
import { openSecretFile } from './secret-file.ts'

type InjectConfig = Extract<CredentialConfig, { inject: unknown }>['inject']

/**
 * Puts a static key of the upstream's own into one slot (identity.md 3.6). Nobody but this proxy can stop it: class R0.
 * Throws `CredentialError` when the secret cannot be read now, so that a route without its key is never served.
 */
export function createInjectIssuer(config: InjectConfig, { clock }: { clock: Clock }): Issuer {
  const file = openSecretFile(config.secret.file, clock)
  const read = (): string => singleLine(file.read(), config.secret.file)
  read()
  return {
    kind: 'inject',
    revocationClass: 'R0',
    slots: {
      headers: slotHeaders(config),
      query: 'query' in config ? [config.query] : [],
    },
    issue: ({ upstream }) =>
      Promise.resolve().then(() => staticKey(config, { secret: read(), upstream: upstream.name })),
  }
}

function slotHeaders(config: InjectConfig): readonly string[] {
  if ('header' in config) return [config.header]
  return 'basic' in config ? ['authorization'] : []
}

function staticKey(
  config: InjectConfig,
  { secret, upstream }: { readonly secret: string; readonly upstream: string },
): Credential {
  const digest = createHash('sha256').update(`${upstream}\n${secret}`).digest('hex').slice(0, 16)
  return {
    kind: 'inject',
    digest,
    expiresAtMs: Number.POSITIVE_INFINITY,
    slots: () => fill(config, secret),
    revoke: () => Promise.resolve('unsupported'),
  }
}

function fill(config: InjectConfig, secret: string): InjectedSlots {
  if ('header' in config) {
    // A function as replacement: `$&` in a secret is a secret, not a pattern.
    return {
      headers: [[config.header, config.template.replace('{secret}', () => secret)]],
      query: [],
    }
  }
  if ('basic' in config) {
    const pair = Buffer.from(`${config.basic.username}:${secret}`, 'utf8').toString('base64')
    return { headers: [['authorization', `Basic ${pair}`]], query: [] }
  }
  return { headers: [], query: [[config.query, secret]] }
}

/** SK-1: a line break or control character could end the field that the secret is written into. */
function singleLine(secret: string, path: string): string {
  if (/^[\x20-\x7e]+$/.test(secret)) return secret
  throw new CredentialError(`Secret file ${path}: Expected one line of printable ASCII`)
}
