import { Agent, request, type IncomingMessage, type RequestOptions } from 'node:http'
import { WebSocket } from 'ws'
import { observe, type Flow, type Observer } from './flow.ts'

export const flowKinds = ['poll', 'sse', 'websocket', 'download', 'upload'] as const
export type FlowKind = (typeof flowKinds)[number]

export interface FlowOptions {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
}

/** Opens a real flow, which keeps moving until it is ended from the other side or closed. */
export function openFlow(kind: FlowKind, options: FlowOptions): Flow {
  switch (kind) {
    case 'poll':
      return openPoll(options)
    case 'websocket':
      return openWebSocket(options)
    case 'upload':
      return openUpload(options)
    case 'sse':
    case 'download':
      return openAnswer(options)
  }
}

const pollEveryMs = 5
const sendEveryMs = 10
const readEveryMs = 5
/** An upload that is not refused by then is under way: nothing comes back that would tell. */
const uploadLiveMs = 250
const maxRefusalBytes = 16_384

function openAnswer({ url, headers }: FlowOptions): Flow {
  const { flow, observer } = observe(() => req.destroy())
  const req = request(url, { headers, agent: false }, (res) => {
    if (isRefusal(res)) return void readRefusal(res, observer)
    res.on('data', () => {
      observer.down()
      // As fast as it can, a download would load the sidecar so much that the load is what is measured.
      res.pause()
      setTimeout(() => res.resume(), readEveryMs)
    })
    res.on('end', () => observer.ended({ how: 'clean' }))
    res.on('error', () => observer.ended({ how: 'reset' }))
  })
  req.on('error', () => observer.ended({ how: 'reset' }))
  req.end()
  return flow
}

function openUpload({ url, headers }: FlowOptions): Flow {
  const { flow, observer } = observe(() => {
    clearInterval(timer)
    clearTimeout(live)
    req.destroy()
  })
  const piece = Buffer.alloc(1024, 'd')
  const req = request(url, { headers, agent: false, method: 'POST' }, (res) => {
    if (isRefusal(res)) return void readRefusal(res, observer)
    res.resume()
    observer.ended({ how: 'clean' })
  })
  req.on('error', () => observer.ended({ how: 'reset' }))
  const timer = setInterval(() => {
    // A backlog would be counted as sent when it only leaves the buffer.
    if (!req.writableNeedDrain) req.write(piece, (error) => void (error ?? observer.up()))
  }, sendEveryMs)
  const live = setTimeout(() => observer.live(), uploadLiveMs)
  void flow.ended.then(() => clearInterval(timer))
  return flow
}

function openWebSocket({ url, headers }: FlowOptions): Flow {
  const { flow, observer } = observe(() => {
    clearInterval(timer)
    socket.terminate()
  })
  const socket = new WebSocket(url.replace(/^http/, 'ws'), { headers })
  socket.on('message', () => observer.down())
  socket.on('unexpected-response', (_req, res) => void readRefusal(res, observer))
  socket.on('error', () => observer.ended({ how: 'reset' }))
  socket.on('close', (code, reason) => {
    const isAbrupt = code === 1006
    const told = reason.toString('utf8')
    observer.ended(isAbrupt ? { how: 'reset' } : { how: 'closed', status: code, code: told })
  })
  const timer = setInterval(() => {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send('drill', (error) => void (error ?? observer.up()))
  }, sendEveryMs)
  void flow.ended.then(() => clearInterval(timer))
  return flow
}

/** One request after the other. Goes on after a refusal: one that passes after it is the fault that a drill looks for. */
function openPoll({ url, headers }: FlowOptions): Flow {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const closed = new AbortController()
  const { flow, observer } = observe(() => {
    closed.abort()
    agent.destroy()
  })
  const poll = async (): Promise<void> => {
    while (!closed.signal.aborted) {
      observer.up()
      await pollOnce(url, { options: { headers, agent }, observer })
      await new Promise((resolve) => setTimeout(resolve, pollEveryMs))
    }
  }
  void poll()
  return flow
}

function pollOnce(
  url: string,
  { options, observer }: { readonly options: RequestOptions; readonly observer: Observer },
): Promise<void> {
  return new Promise((resolve) => {
    const req = request(url, options, (res) => {
      if (isRefusal(res)) return void readRefusal(res, observer).then(resolve)
      res.on('end', () => observer.down())
      res.on('close', resolve)
      res.on('error', resolve)
      res.resume()
    })
    req.on('error', () => resolve())
    req.end()
  })
}

function isRefusal({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 400
}

/** Its code is what tells a refusal of the sidecar from an error of the upstream. */
async function readRefusal(res: IncomingMessage, observer: Observer): Promise<void> {
  let text = ''
  res.on('data', (chunk: Buffer) => {
    if (text.length < maxRefusalBytes) text += chunk.toString('utf8')
  })
  await new Promise<void>((resolve) => {
    res.on('close', resolve)
    res.on('error', () => resolve())
  })
  observer.ended({ how: 'refused', status: res.statusCode ?? 0, code: codeOf(text) })
}

function codeOf(text: string): string {
  try {
    const body: unknown = JSON.parse(text)
    const code = typeof body === 'object' && body !== null && 'code' in body ? body.code : undefined
    return typeof code === 'string' ? code : ''
  } catch {
    return ''
  }
}
