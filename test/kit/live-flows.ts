import { connect, type Socket } from 'node:net'
import { request } from 'node:http'
import { WebSocket } from 'ws'
import type { World } from './world.ts'

/** How the agent's side of a live flow ended. */
export interface FlowEnd {
  /** `reset`: the connection broke; `clean`: the answer looked complete; `refused`: an HTTP answer; `closed`: a close frame. */
  readonly how: 'reset' | 'clean' | 'refused' | 'closed'
  readonly status?: number
  readonly closeCode?: number
  readonly closeReason?: string
  readonly body?: string
}

export interface Flow {
  /** Resolves once bytes have moved. */
  readonly live: Promise<void>
  readonly ended: Promise<FlowEnd>
  /** The upstream's path, as its events name it. */
  readonly path: string
}

export type FlowKind = 'sse' | 'websocket' | 'download' | 'upload'

/** Opens a real flow of this kind under a task, and keeps it moving until it is ended from outside. */
export function openFlow(
  world: World,
  { kind, txn }: { readonly kind: FlowKind; readonly txn: string },
): Flow {
  if (kind === 'websocket') return openWebSocket(world, txn)
  return kind === 'upload'
    ? openUpload(world, txn)
    : openAnswer(world, { txn, path: kind === 'sse' ? '/sse' : '/download' })
}

function openAnswer(
  world: World,
  { txn, path }: { readonly txn: string; readonly path: string },
): Flow {
  const live = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<FlowEnd>()
  const req = request(
    `${world.sidecar.agentUrl}/api${path}`,
    { headers: world.headers(txn), agent: false },
    (res) => {
      res.once('data', () => live.resolve())
      res.on('data', () => undefined)
      res.on('end', () => ended.resolve({ how: 'clean', status: res.statusCode ?? 0 }))
      res.on('error', () => ended.resolve({ how: 'reset' }))
    },
  )
  req.on('error', () => ended.resolve({ how: 'reset' }))
  req.end()
  return { live: live.promise, ended: ended.promise, path }
}

function openWebSocket(world: World, txn: string): Flow {
  const live = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<FlowEnd>()
  const url = `${world.sidecar.agentUrl.replace('http', 'ws')}/api/ws`
  const socket = new WebSocket(url, { headers: world.headers(txn) })
  socket.once('message', () => live.resolve())
  socket.on('error', () => ended.resolve({ how: 'reset' }))
  socket.on('close', (closeCode, reason) =>
    ended.resolve(
      closeCode === 1006
        ? { how: 'reset' }
        : { how: 'closed', closeCode, closeReason: reason.toString('utf8') },
    ),
  )
  return { live: live.promise, ended: ended.promise, path: '/ws' }
}

/** By hand: a client library would stop to send once an answer has come. */
function openUpload(world: World, txn: string): Flow {
  const live = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<FlowEnd>()
  const { hostname, port, host } = new URL(world.sidecar.agentUrl)
  const socket = connect(Number(port), hostname)
  let answer = ''
  const fields = Object.entries({ host, ...world.headers(txn), 'transfer-encoding': 'chunked' })
  socket.on('connect', () => {
    socket.write(
      `POST /api/upload HTTP/1.1\r\n${fields.map((pair) => pair.join(': ')).join('\r\n')}\r\n\r\n`,
    )
    const timer = sendPieces(socket)
    socket.on('close', () => clearInterval(timer))
  })
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
  })
  const finish = (): void => {
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0)
    ended.resolve(status === 0 ? { how: 'reset' } : { how: 'refused', status, body: answer })
  }
  socket.on('error', finish)
  socket.on('close', finish)
  world.upstream.seen(({ type }) => type === 'uploading').then(() => live.resolve(), live.reject)
  return { live: live.promise, ended: ended.promise, path: '/upload' }
}

function sendPieces(socket: Socket): NodeJS.Timeout {
  const piece = `400\r\n${'u'.repeat(1024)}\r\n`
  return setInterval(() => {
    if (socket.writable) socket.write(piece)
  }, 10)
}
