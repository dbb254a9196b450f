import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { createChain, type Envelope } from '../audit/chain.ts'

/**
 * Seals the examples of a page anew, as one log, after a field was added to one: hashes, numbers and the checkpoint,
 * whose key is made for it and thrown away. `node docs/seal-audit-examples.ts` does it to docs/audit.md.
 */
export function sealExamples(page: string): string {
  const chain = createChain()
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const lines = page.split('\n').map((line) => {
    if (!line.startsWith('{')) return line
    const { seq: _, hash: __, prev: ___, v: ____, ...record } = JSON.parse(line)
    const { ts, mono_ns, sidecar, ...event } = record
    const envelope: Envelope = { ts, mono_ns, sidecar }
    if (event.type !== 'checkpoint') return chain.seal(event, envelope)
    const { seq, hash } = chain.head
    const { fleet } = event.checkpoint
    const iat = Math.floor(Date.parse(ts) / 1000)
    const claims = { iss: sidecar.instance, seq, hash, fleet, iat }
    const header = { alg: 'EdDSA', kid: 'audit-1', typ: 'audit-checkpoint+jwt' }
    const input = `${encode(header)}.${encode(claims)}`
    const sig = `${input}.${sign(null, Buffer.from(input), privateKey).toString('base64url')}`
    return chain.seal(
      { type: 'checkpoint', checkpoint: { seq, hash, fleet, records: seq, sig } },
      envelope,
    )
  })
  const { x } = publicKey.export({ format: 'jwk' })
  return lines.join('\n').replace(/("crv":"Ed25519","x":)"[^"]*"/, `$1"${x}"`)
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

if (import.meta.main) {
  const path = new URL('audit.md', import.meta.url)
  writeFileSync(path, sealExamples(readFileSync(path, 'utf8')))
}
