import { writeFile } from 'node:fs/promises'
import { Option, type Command } from 'commander'
import { calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'

/** `chaperone keygen`: a key pair for an approver or for minted credentials, as two JWK Set files. */
export function registerKeygen(program: Command): void {
  program
    .command('keygen')
    .description('make a key pair: <name>.private.json for the signer, <name>.jwks.json to publish')
    .argument('<name>', 'path and beginning of the two file names')
    .addOption(
      new Option('--alg <alg>', 'signature algorithm')
        .choices(['ES256', 'ES384', 'EdDSA'])
        .default('ES256'),
    )
    .action(async (name: string, { alg }: { alg: string }) => {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
      const publicJwk = await exportJWK(publicKey)
      const named = { kid: await calculateJwkThumbprint(publicJwk), alg }
      const privateJwk = { ...(await exportJWK(privateKey)), ...named }
      // `wx`: a key that exists is never overwritten.
      await writeFile(`${name}.private.json`, jwks(privateJwk), { mode: 0o600, flag: 'wx' })
      await writeFile(`${name}.jwks.json`, jwks({ ...publicJwk, ...named }), { flag: 'wx' })
      process.stdout.write(
        `${name}.private.json (keep it secret)\n${name}.jwks.json\nkid ${named.kid}\n`,
      )
    })
}

function jwks(key: object): string {
  return `${JSON.stringify({ keys: [key] }, null, 2)}\n`
}
