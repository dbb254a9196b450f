import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../config/load.ts'
import type { Config } from '../../config/schema.ts'
import { bundleDocument, jwksDocument, names, signingKey, type SigningKey } from './tokens.ts'

/** A folder with a whole configuration of two upstreams: `api` (mint) at `/api`, and `keyed` (inject) at `/key`. */
export interface ConfigFolder extends AsyncDisposable {
  readonly path: string
  readonly approver: SigningKey
  readonly agentAuthority: SigningKey
  file(name: string): string
  write(name: string, text: string): Promise<void>
  /** Reads the configuration, with these lines in place of its own. Throws when it is bad. */
  load(lines?: Readonly<Record<string, string>>): Promise<Config>
}

export async function writeConfigFolder(): Promise<ConfigFolder> {
  const path = await mkdtemp(join(tmpdir(), 'config-'))
  const [approver, agentAuthority, minter] = await Promise.all([
    signingKey(),
    signingKey(),
    signingKey(),
  ])
  const file = (name: string): string => join(path, name)
  const write = (name: string, text: string): Promise<void> => writeFile(file(name), text)
  await write('bundle.json', bundleDocument([agentAuthority]))
  await write('approvers.json', jwksDocument([approver]))
  await write('mint.json', JSON.stringify({ keys: [minter.privateJwk] }))
  await write('static.key', 's3cret\n')
  return {
    path,
    approver,
    agentAuthority,
    file,
    write,
    async load(lines = {}) {
      await write('chaperone.yaml', Object.values({ ...defaults, ...lines }).join('\n'))
      const loaded = loadConfig(file('chaperone.yaml'))
      if (!('config' in loaded)) throw new Error(JSON.stringify(loaded))
      return loaded.config
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  }
}

const defaults = {
  version: 'version: 1',
  trustDomain: `trustDomain: ${names.trustDomain}`,
  identity: `identity: { trustBundles: [{ trustDomain: ${names.trustDomain}, file: bundle.json }] }`,
  approvers: `approvers: [{ iss: "${names.approver}", jwks: approvers.json }]`,
  revocation: 'revocation: { source: redis, redis: { url: "redis://127.0.0.1:6379" } }',
  upstreams: `upstreams:
  - { name: api, url: "${names.upstream}", credential: { mint: { audience: "${names.upstream}" } } }
  - { name: keyed, url: "${names.upstream}:8443", credential: { inject: { query: key, secret: { file: static.key } } } }`,
  routes: 'routes: [{ prefix: /api, upstream: api }, { prefix: /key, upstream: keyed }]',
  mint: 'mint: { issuer: "https://mint.example.org", keys: { file: mint.json } }',
}
