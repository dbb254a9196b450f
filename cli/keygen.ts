import { rm, writeFile } from 'node:fs/promises'
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
      await writePair(name, { privateJwk, publicJwk: { ...publicJwk, ...named } })
      process.stdout.write(
        `${name}.private.json (keep it secret)\n${name}.jwks.json\nkid ${named.kid}\n`,
      )
    })
}

/** Both files or neither. `wx`: a key that exists is never overwritten. */
async function writePair(
  name: string,
  { privateJwk, publicJwk }: { readonly privateJwk: object; readonly publicJwk: object },
): Promise<void> {
  const privatePath = `${name}.private.json`
  await writeNew(privatePath, { text: jwks(privateJwk), mode: 0o600 })
  try {
    await writeNew(`${name}.jwks.json`, { text: jwks(publicJwk), mode: 0o644 })
  } catch (error) {
    await rm(privatePath)
    throw error
  }
}

async function writeNew(
  path: string,
  { text, mode }: { readonly text: string; readonly mode: number },
): Promise<void> {
  try {
    await writeFile(path, text, { mode, flag: 'wx' })
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
    const why = reasons[code] ?? `cannot be written (${code})`
    throw new Error(`${path}: ${why}`, { cause })
  }
}

const reasons: Readonly<Record<string, string>> = {
  EEXIST: 'exists already, and a key is never overwritten',
  ENOENT: 'its folder does not exist',
}

function jwks(key: object): string {
  return `${JSON.stringify({ keys: [key] }, null, 2)}\n`
}
