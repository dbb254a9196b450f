import type { Peer } from '../kit/relay.ts'

/** What is probed: a proxy between an agent and an upstream that the probe plays. */
export interface Subject {
  /** Connects an agent and sends this. */
  agent(text: string): Peer
  /** The next connection that the upstream took. */
  upstreamPeer(): Promise<Peer>
  readonly upstreamConnections: () => number
  /** How long a probe waits for what must happen. */
  readonly deadlineMs: number
}

/** One rule of the wire, as far as one exchange of bytes shows it. */
export interface Probe {
  readonly rule: number
  readonly title: string
  /** Whether the subject keeps the rule. Each run has a subject of its own. */
  readonly run: (subject: Subject) => Promise<boolean>
}

export const get = 'GET /a HTTP/1.1\r\nHost: agent\r\n\r\n'
export const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

/** A GET with more fields. */
export function getWith(...fields: readonly string[]): string {
  return `GET /a HTTP/1.1\r\nHost: agent\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`
}

/** The request is refused with one of these statuses and nothing of it reaches the upstream. */
export function isRefused(request: string, statuses: readonly number[] = [400]): Probe['run'] {
  return async (subject) => {
    const agent = subject.agent(request)
    const statusIs = (): boolean => statuses.includes(statusOf(agent))
    if (!(await holds(subject, statusIs))) return false
    await settle()
    return statusIs() && subject.upstreamConnections() === 0
  }
}

/** The upstream answers so to a GET, and the agent gets 502 and nothing of the answer. */
export function isBadGateway(answer: string): Probe['run'] {
  return async (subject) => {
    const { agent, upstream } = await asked(subject)
    upstream?.socket.write(answer, 'latin1')
    if (!(await holds(subject, () => statusOf(agent) === 502))) return false
    return !agent.text().includes('secret')
  }
}

interface Passed {
  readonly agent: Peer
  readonly upstream: Peer
  /** What the agent got, in lower case. */
  readonly down: () => string
  /** What the upstream got, in lower case. */
  readonly up: () => string
}

/** The request reaches the upstream, which answers so; then this must come to hold. */
export function passes(
  request: string,
  { answer, until }: { readonly answer: string; readonly until: (passed: Passed) => boolean },
): Probe['run'] {
  return async (subject) => {
    const { agent, upstream } = await asked(subject, request)
    if (!upstream) return false
    const passed: Passed = {
      agent,
      upstream,
      down: () => agent.text().toLowerCase(),
      up: () => upstream.text().toLowerCase(),
    }
    upstream.socket.write(answer, 'latin1')
    return holds(subject, () => until(passed))
  }
}

/** Sends a request and waits for the upstream to have its head; without an upstream when it does not come. */
export async function asked(
  subject: Subject,
  request: string = get,
): Promise<{ readonly agent: Peer; readonly upstream: Peer | undefined }> {
  const agent = subject.agent(request)
  const upstream = await nextUpstream(subject)
  if (!upstream) return { agent, upstream }
  const hasHead = await holds(subject, () => upstream.text().includes('\r\n\r\n'))
  return { agent, upstream: hasHead ? upstream : undefined }
}

export async function nextUpstream(subject: Subject): Promise<Peer | undefined> {
  const late = settle(subject.deadlineMs).then(() => undefined)
  return Promise.race([subject.upstreamPeer().catch(() => undefined), late])
}

/** How the connection ended, or `open`. */
export async function endOf(subject: Subject, peer: Peer): Promise<'fin' | 'reset' | 'open'> {
  const late = settle(subject.deadlineMs).then(() => 'open' as const)
  return Promise.race([peer.ended, late])
}

/** Polls to the deadline of the subject. */
export async function holds(subject: Subject, isSo: () => boolean): Promise<boolean> {
  const deadline = performance.now() + subject.deadlineMs
  while (!isSo()) {
    if (performance.now() > deadline) return false
    await settle(5)
  }
  return true
}

/** Long enough for bytes that must not come to come. */
export function settle(ms = 50): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })
}

/** The status of the first answer that is no interim one. */
export function statusOf(agent: Peer): number {
  const statuses = [...agent.text().matchAll(/^HTTP\/1\.[01] (\d{3})/gm)].map(([, status]) =>
    Number(status),
  )
  return statuses.find((status) => status >= 200) ?? 0
}

/** How often this stands in the text. */
export function count(text: string, part: string): number {
  return text.split(part).length - 1
}
