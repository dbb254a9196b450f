import { createHash } from 'node:crypto'
import {
  asked,
  endOf,
  getWith,
  holds,
  isRefused,
  passes,
  type Probe,
  type Subject,
} from './probe.ts'
import type { Peer } from '../kit/relay.ts'

const key = Buffer.from('0123456789abcdef').toString('base64')
const accept = createHash('sha1')
  .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
  .digest('base64')
const handshake = getWith(
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  `Sec-WebSocket-Key: ${key}`,
)
const switching = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`

/** Rules 38 to 40: WebSocket. */
export const upgradeProbes: readonly Probe[] = [
  {
    rule: 38,
    title: 'an upgrade to h2c is refused',
    run: isRefused(
      getWith('Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'),
    ),
  },
  {
    rule: 39,
    title: 'an answer that is no switch passes with its status and its framing',
    run: passes(handshake, {
      answer:
        'HTTP/1.1 426 Upgrade Required\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nProxy-Authenticate: leak\r\n\r\n2\r\nno\r\n0\r\n\r\n',
      until: ({ down }) =>
        /^http\/1\.1 426 [^]*x-a: 1\r\n/.test(down()) &&
        !down().includes('leak') &&
        /content-length: 2\r\n(?:[^]*\r\n)?\r\nno$|chunked[^]*\r\n\r\n2\r\nno\r\n0\r\n\r\n$/.test(
          down(),
        ),
    }),
  },
  {
    rule: 40,
    title: 'both directions flow after the switch',
    run: async (subject) => {
      const { agent, upstream } = await joined(subject)
      agent.socket.write('up')
      upstream?.socket.write('down')
      return holds(
        subject,
        () => agent.text().endsWith('down') && upstream?.text().endsWith('\r\n\r\nup') === true,
      )
    },
  },
  ...(['agent', 'upstream'] as const).flatMap((side) =>
    (['fin', 'reset'] as const).map((how) => ({
      rule: 40,
      title: `a ${how} of the ${side} ends the other side, even one that never ends itself`,
      run: async (subject: Subject) => {
        const { agent, upstream } = await joined(subject)
        if (!upstream) return false
        const [first, second] = side === 'agent' ? [agent, upstream] : [upstream, agent]
        if (how === 'fin') first.socket.end()
        else first.socket.resetAndDestroy()
        return (await endOf(subject, second)) !== 'open' && (await isClosed(subject, first))
      },
    })),
  ),
  {
    rule: 40,
    title: 'an agent that leaves before the switch takes the upstream with it',
    run: async (subject) => {
      const { agent, upstream } = await asked(subject, handshake)
      agent.socket.resetAndDestroy()
      return upstream !== undefined && (await endOf(subject, upstream)) !== 'open'
    },
  },
]

async function joined(
  subject: Subject,
): Promise<{ readonly agent: Peer; readonly upstream: Peer | undefined }> {
  const { agent, upstream } = await asked(subject, handshake)
  upstream?.socket.write(switching)
  const isJoined = await holds(subject, () => /^HTTP\/1\.1 101 [^]*\r\n\r\n/.test(agent.text()))
  return { agent, upstream: isJoined ? upstream : undefined }
}

async function isClosed(subject: Subject, peer: Peer): Promise<boolean> {
  return holds(subject, () => peer.socket.closed)
}
