/** Where the sidecar listens, and with which certificate. */
import * as v from 'valibot'
import { address, describedText, flag } from './setting.ts'

const tls = v.strictObject({
  certFile: describedText(
    'PEM file of the certificate that agents see, with those between it and its authority. Looked at every second: a good pair is taken up for new connections, a bad one leaves the old in use.',
  ),
  keyFile: describedText('PEM file of its private key, without a passphrase.'),
  clientCaFile: v.optional(
    describedText(
      'PEM file of the authorities whose client certificate every connection has to show. It is no identity: that stays the SVID of each request. Absent: no certificate is asked for.',
    ),
  ),
})

export const listen = v.strictObject({
  agent: v.optional(address, '127.0.0.1:15080'),
  admin: v.optional(address, '127.0.0.1:15081'),
  unsafeNonLoopback: flag(
    'Whether the agent listener may be bound to an address that is not loopback.',
  ),
  tls: v.optional(
    v.pipe(
      tls,
      v.description(
        'TLS 1.2 or 1.3 on the agent listener, in place of clear text: `h2` and `http/1.1` by ALPN.',
      ),
    ),
  ),
})
