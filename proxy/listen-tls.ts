import { constants, createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto'
import type { Server } from 'node:https'
import type { SecureContextOptions } from 'node:tls'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { ListenTlsConfig } from '../config/schema.ts'
import { identifyAll } from './file-identity.ts'

/** The certificate of the agents' port cannot be used. The message names the setting, its file and the reason. */
export class ListenTlsError extends Error {
  override readonly name = 'ListenTlsError'
  readonly code = 'ERR_LISTEN_TLS'
  readonly file: string
  constructor(setting: keyof ListenTlsConfig, { file, why }: { file: string; why: string }) {
    super(`listen.tls.${setting}: ${file}: ${why}`)
    this.file = file
  }
}

/** Reads certificate, key and client authorities. Throws `ListenTlsError` when they cannot be used, or not together. */
export function readListenTls({
  certFile,
  keyFile,
  clientCaFile,
}: ListenTlsConfig): SecureContextOptions {
  const cert = read('certFile', certFile)
  const [certificate] = parseCertificates('certFile', { file: certFile, pem: cert })
  const key = read('keyFile', keyFile)
  if (certificate?.checkPrivateKey(parseKey(keyFile, key)) !== true) {
    throw new ListenTlsError('keyFile', { file: keyFile, why: 'Expected the key of certFile' })
  }
  return {
    cert,
    key,
    // Without any, Node would trust the public web PKI: a file that holds none is an error.
    ...(clientCaFile !== undefined && { ca: readAuthorities(clientCaFile) }),
    minVersion: 'TLSv1.2',
    ciphers,
    honorCipherOrder: true,
    // It would let a client swap what stands before its request, and costs us more than it costs the client.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  }
}

interface WatchOptions {
  readonly config: ListenTlsConfig
  readonly log: {
    info(fields: Readonly<Record<string, unknown>>, message: string): void
    error(fields: Readonly<Record<string, unknown>>, message: string): void
  }
}

/** How often the files are looked at. */
const lookEveryMs = 1_000

/** Takes up files that have changed for new connections. Bad ones are logged once, and the old stay in use. */
export function watchListenTls(server: Server, { config, log }: WatchOptions): Disposable {
  const { certFile, keyFile, clientCaFile } = config
  const paths = [certFile, keyFile, ...(clientCaFile === undefined ? [] : [clientCaFile])]
  let tried = identifyAll(paths)
  let seen = tried
  const look = (): void => {
    const now = identifyAll(paths)
    const isSettled = now === seen
    seen = now
    // The two files of a pair do not change in one moment: looked at twice, or half of it would be called bad.
    if (!isSettled || now === tried) return
    tried = now
    try {
      server.setSecureContext(readListenTls(config))
      log.info({ certFile }, "the certificate of the agents' port was replaced")
    } catch (error) {
      log.error({ err: error }, "the certificate of the agents' port stays: the new one is bad")
    }
  }
  const timer = setInterval(look, lookEveryMs)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** Forward secret and authenticated: what is left of RFC 9113 appendix A, and all of TLS 1.3. */
const ciphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

const maxPemBytes = 1024 * 1024

function read(setting: keyof ListenTlsConfig, file: string): string {
  try {
    return readTextFile(file, { maxBytes: maxPemBytes })
  } catch (error) {
    if (error instanceof TextFileError) {
      throw new ListenTlsError(setting, { file, why: error.message })
    }
    throw error
  }
}

function readAuthorities(file: string): string {
  const pem = read('clientCaFile', file)
  parseCertificates('clientCaFile', { file, pem })
  return pem
}

const certificateForm = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

function parseCertificates(
  setting: keyof ListenTlsConfig,
  { file, pem }: { readonly file: string; readonly pem: string },
): readonly X509Certificate[] {
  const texts = pem.match(certificateForm) ?? []
  if (texts.length === 0) {
    throw new ListenTlsError(setting, { file, why: 'Expected a certificate in PEM' })
  }
  try {
    return texts.map((text) => new X509Certificate(text))
  } catch {
    throw new ListenTlsError(setting, { file, why: 'A certificate in it cannot be read' })
  }
}

/** What the library says of a key that it cannot read is not passed on. */
function parseKey(file: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch {
    const why = 'Expected a private key in PEM, without a passphrase'
    throw new ListenTlsError('keyFile', { file, why })
  }
}
