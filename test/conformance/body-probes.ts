import {
  asked,
  count,
  endOf,
  get,
  getWith,
  holds,
  isBadGateway,
  isRefused,
  nextUpstream,
  ok,
  passes,
  settle,
  statusOf,
  type Probe,
} from './probe.ts'

const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'
const untilClose = 'HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nhello'
const upload = getWith('Content-Length: 100').replace('GET', 'POST')

/** Rules 25 to 37: bodies and how they end. */
export const bodyProbes: readonly Probe[] = [
  {
    rule: 25,
    title: 'an answer to HEAD keeps its length, and its connection',
    run: keepsConnection({
      request: get.replace('GET', 'HEAD'),
      answer: 'HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n',
      head: /^http\/1\.1 200 [^]*content-length: 70000\r\n(?:[^]*\r\n)?\r\n$/,
    }),
  },
  {
    rule: 26,
    title: 'a 204 has no body and no framing, and keeps its connection',
    run: keepsConnection({
      request: get,
      answer: 'HTTP/1.1 204 No Content\r\n\r\n',
      head: /^http\/1\.1 204 (?![^]*(?:transfer-encoding|content-length))[^]*\r\n\r\n$/,
    }),
  },
  {
    rule: 26,
    title: 'a 304 passes with the length of what it stands for',
    run: passes(get, {
      answer: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n',
      until: ({ down }) =>
        /^http\/1\.1 304 [^]*content-length: 5\r\n(?:[^]*\r\n)?\r\n$/.test(down()),
    }),
  },
  ...(['fin', 'reset'] as const).map((end) => ({
    rule: 27,
    title: `an upstream that breaks off with a ${end} resets the agent`,
    run: breaksOff({ request: get, end }),
  })),
  {
    rule: 27,
    title: 'an upstream that breaks off resets an HTTP/1.0 agent too',
    run: breaksOff({ request: get.replace('1.1', '1.0'), end: 'fin' }),
  },
  {
    rule: 28,
    title: 'an HTTP/1.0 agent gets no chunks',
    run: async (subject) => {
      const { agent, upstream } = await asked(subject, get.replace('1.1', '1.0'))
      upstream?.socket.write(`${chunked}0\r\n\r\n`)
      if ((await endOf(subject, agent)) !== 'fin') return false
      return agent.text().endsWith('\r\n\r\nhello') && !/transfer-encoding/i.test(agent.text())
    },
  },
  {
    rule: 28,
    title: 'an answer that its end delimits reaches the agent whole',
    run: async (subject) => {
      const { agent, upstream } = await asked(subject)
      upstream?.socket.end(untilClose)
      return holds(subject, () => /5\r\nhello\r\n0\r\n\r\n$|\r\n\r\nhello$/.test(agent.text()))
    },
  },
  ...[
    { state: 'while the head is awaited', request: get, answer: '' },
    { state: 'in the middle of the answer', request: get, answer: chunked },
    { state: 'in the middle of its upload', request: `${upload}part`, answer: '' },
  ].map(({ state, request, answer }) => ({
    rule: 29,
    title: `an agent that leaves ${state} takes the upstream with it`,
    run: async (subject: Parameters<Probe['run']>[0]) => {
      const { agent, upstream } = await asked(subject, request)
      upstream?.socket.write(answer)
      if (answer !== '') await holds(subject, () => agent.text().includes('hello'))
      agent.socket.resetAndDestroy()
      return upstream !== undefined && (await endOf(subject, upstream)) !== 'open'
    },
  })),
  {
    rule: 30,
    title: 'an answer in the middle of an upload reaches the agent',
    run: passes(`${upload}part`, {
      answer: 'HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno',
      until: ({ down }) => /^http\/1\.1 413 [^]*\r\n\r\nno$/.test(down()),
    }),
  },
  {
    rule: 33,
    title: 'a GET on a kept connection that turns out closed is sent again, once',
    run: onKept({ request: get, isResent: true }),
  },
  {
    rule: 33,
    title: 'a GET on a kept connection that turns out reset is sent again, once',
    run: onKept({ request: get, isResent: true, reset: true }),
  },
  {
    rule: 33,
    title: 'a POST is never sent again',
    run: onKept({ request: getWith('Content-Length: 0').replace('GET', 'POST'), isResent: false }),
  },
  {
    rule: 33,
    title: 'a GET is not sent again after a byte of its answer',
    run: onKept({ request: get, isResent: false, partial: 'HTTP/1.1 200' }),
  },
  {
    rule: 33,
    title: 'a GET on a new connection is not sent again',
    run: async (subject) => {
      const { agent, upstream } = await asked(subject)
      upstream?.socket.destroy()
      if (!(await holds(subject, () => statusOf(agent) === 502))) return false
      await settle()
      return subject.upstreamConnections() === 1
    },
  },
  {
    rule: 34,
    title: 'an answer that is no HTTP becomes 502',
    run: isBadGateway('SSH-2.0-secret\r\n\r\n'),
  },
  {
    rule: 35,
    title: 'a head over the limit gets 431',
    run: isRefused(getWith(`X-Large: ${'a'.repeat(40_000)}`), [431]),
  },
  {
    rule: 35,
    title: 'an answer with a head over the limit becomes 502',
    run: isBadGateway(
      `HTTP/1.1 200 OK\r\nX-Large: ${'a'.repeat(300_000)}\r\nContent-Length: 6\r\n\r\nsecret`,
    ),
  },
]

/** Afterwards another request of the same agent goes out on the same connection. */
function keepsConnection(options: {
  readonly request: string
  readonly answer: string
  readonly head: RegExp
}): Probe['run'] {
  return async (subject) => {
    const { agent, upstream } = await asked(subject, options.request)
    if (!upstream) return false
    upstream.socket.write(options.answer)
    if (!(await holds(subject, () => options.head.test(agent.text().toLowerCase())))) return false
    await settle()
    agent.socket.write(get.replace('/a', '/b'))
    if (!(await holds(subject, () => upstream.text().includes('GET /b')))) return false
    upstream.socket.write(ok)
    const isAnswered = await holds(subject, () => agent.text().endsWith('\r\n\r\nok'))
    return isAnswered && subject.upstreamConnections() === 1
  }
}

function breaksOff(options: {
  readonly request: string
  readonly end: 'fin' | 'reset'
}): Probe['run'] {
  return async (subject) => {
    const { agent, upstream } = await asked(subject, options.request)
    upstream?.socket.write(chunked)
    if (!(await holds(subject, () => agent.text().includes('hello')))) return false
    if (options.end === 'fin') upstream?.socket.end()
    else upstream?.socket.resetAndDestroy()
    return (await endOf(subject, agent)) === 'reset'
  }
}

/** One request goes well; the next finds its connection closed by the time that it arrives. */
function onKept(options: {
  readonly request: string
  readonly isResent: boolean
  readonly partial?: string
  readonly reset?: boolean
}): Probe['run'] {
  return async (subject) => {
    const { agent: first, upstream } = await asked(subject)
    if (!upstream) return false
    upstream.socket.write(ok)
    if (!(await holds(subject, () => first.text().endsWith('\r\n\r\nok')))) return false
    await settle()
    const agent = subject.agent(options.request)
    if (!(await holds(subject, () => count(upstream.text(), ' /a ') === 2))) return false
    upstream.socket.write(options.partial ?? '')
    await settle()
    if (options.reset === true) upstream.socket.resetAndDestroy()
    else upstream.socket.destroy()
    if (!options.isResent) {
      if (!(await holds(subject, () => statusOf(agent) === 502))) return false
      await settle()
      return subject.upstreamConnections() === 1
    }
    const next = await nextUpstream(subject)
    if (!next || !(await holds(subject, () => next.text().includes('GET /a ')))) return false
    next.socket.destroy()
    const isGivenUp = await holds(subject, () => statusOf(agent) === 502)
    await settle()
    return isGivenUp && subject.upstreamConnections() === 2
  }
}
