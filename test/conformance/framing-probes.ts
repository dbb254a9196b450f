import {
  asked,
  get,
  getWith,
  holds,
  isBadGateway,
  isRefused,
  nextUpstream,
  ok,
  passes,
  settle,
  type Probe,
} from './probe.ts'

/** Rules 1 to 9: who frames a message, and that everybody frames it alike. */
export const framingProbes: readonly Probe[] = [
  {
    rule: 1,
    title: 'Transfer-Encoding beside Content-Length is refused',
    run: isRefused(post('Content-Length: 5', 'Transfer-Encoding: chunked') + '0\r\n\r\n'),
  },
  {
    rule: 2,
    title: 'two different Content-Length are refused',
    run: isRefused(`${post('Content-Length: 5', 'Content-Length: 6')}hello`),
  },
  {
    rule: 3,
    title: 'an unknown transfer coding is refused',
    run: isRefused(`${post('Transfer-Encoding: gzip, chunked')}0\r\n\r\n`, [400, 501]),
  },
  ...['GET', 'DELETE', 'OPTIONS'].map((method) => ({
    rule: 4,
    title: `a chunked body of ${method} keeps its framing`,
    run: passes(
      `${post('Transfer-Encoding: chunked').replace('POST', method)}5\r\nhello\r\n0\r\n\r\n`,
      {
        answer: '',
        until: ({ up }) =>
          /transfer-encoding: chunked[^]*\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/.test(up()) ||
          /content-length: 5\r\n(?:[^]*\r\n)?\r\nhello$/.test(up()),
      },
    ),
  })),
  ...['content-length', 'Transfer-Encoding', 'host', 'authorization'].map((name) => ({
    rule: 5,
    title: `Connection that names ${name} is refused`,
    run: isRefused(`${post('Content-Length: 5', `Connection: close, ${name}`)}hello`),
  })),
  ...[
    ['a space before the colon', getWith('X-A : 1')],
    ['a folded line', getWith('X-A: 1\r\n 2')],
    ['a NUL', getWith('X-A: 1\0')],
    ['a bare LF', get.replace('\r\n', '\n')],
  ].map(([what, request = '']) => ({
    rule: 6,
    title: `${what} is refused`,
    run: isRefused(request),
  })),
  ...[
    [
      'both framings',
      'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n',
    ],
    [
      'two different lengths',
      'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\nsecret',
    ],
    [
      'an unknown transfer coding',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\nsecret',
    ],
    ['a length with a sign', 'HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\nsecret'],
    ['a NUL in a field', 'HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 6\r\n\r\nsecret'],
    ['a status above 599', 'HTTP/1.1 799 Odd\r\nContent-Length: 6\r\n\r\nsecret'],
    [
      'a switch that nobody asked for',
      'HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nsecret',
    ],
  ].map(([what, answer = '']) => ({
    rule: 7,
    title: `an answer with ${what} becomes 502`,
    run: isBadGateway(answer),
  })),
  {
    rule: 8,
    title: 'a second Host is refused',
    run: isRefused(getWith('Host: other')),
  },
  {
    rule: 9,
    title: 'bytes behind an answer never reach the next request',
    run: surplus({ delayMs: 0 }),
  },
  {
    rule: 9,
    title: 'an answer on an idle connection never reaches the next request',
    run: surplus({ delayMs: 50 }),
  },
]

const stolen = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen'

function surplus({ delayMs }: { readonly delayMs: number }): Probe['run'] {
  return async (subject) => {
    const { agent, upstream } = await asked(subject)
    if (!upstream) return false
    upstream.socket.write(delayMs === 0 ? ok + stolen : ok)
    if (!(await holds(subject, () => agent.text().endsWith('\r\n\r\nok')))) return false
    await settle(delayMs)
    if (delayMs > 0) upstream.socket.write(stolen)
    await settle(delayMs)
    const second = subject.agent(get.replace('/a', '/b'))
    const next = await nextUpstream(subject)
    if (!next) return false
    if (!(await holds(subject, () => next.text().includes('GET /b')))) return false
    next.socket.write(ok.replace('ok', 'me').replace('\r\n\r\nok', '\r\n\r\nme'))
    const isMine = await holds(subject, () => /\r\n\r\n(?:ok|me)$/.test(second.text()))
    return isMine && !(agent.text() + second.text()).includes('stolen')
  }
}

function post(...fields: readonly string[]): string {
  return getWith(...fields).replace('GET', 'POST')
}
