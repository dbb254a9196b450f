import {
  asked,
  count,
  getWith,
  get,
  holds,
  isBadGateway,
  isRefused,
  ok,
  passes,
  settle,
  statusOf,
  type Probe,
} from './probe.ts'

const expecting =
  'POST /a HTTP/1.1\r\nHost: agent\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n'
const interim = 'HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload; as=style\r\n\r\n'
const withTrailer =
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=1\r\n\r\n'

/** Rules 10 to 19: which fields pass, which stay and which are written. */
export const headerProbes: readonly Probe[] = [
  {
    rule: 10,
    title: 'fields of one connection stay on it, on the way up',
    run: passes(
      getWith(
        'Connection: keep-alive, X-Listed',
        'X-Listed: leak',
        'Keep-Alive: leak',
        'Proxy-Connection: leak',
        'Proxy-Authorization: leak',
        'TE: leak',
        'Trailer: leak',
      ),
      { answer: ok, until: ({ down, up }) => down().endsWith('ok') && !up().includes('leak') },
    ),
  },
  {
    rule: 10,
    title: 'fields of one connection stay on it, on the way down',
    run: passes(get, {
      answer: ok.replace(
        '\r\n\r\n',
        '\r\nConnection: X-Listed\r\nX-Listed: leak\r\nKeep-Alive: leak=1\r\nProxy-Authenticate: leak\r\n\r\n',
      ),
      until: ({ down }) => down().endsWith('ok') && !down().includes('leak'),
    }),
  },
  {
    rule: 11,
    title: 'repeated fields stay separate lines, in their order',
    run: passes(get, {
      answer: ok.replace('\r\n\r\n', '\r\nX-A: 1, 2\r\nX-B: b\r\nX-A: 3\r\n\r\n'),
      until: ({ down }) => down().includes('x-a: 1, 2\r\nx-b: b\r\nx-a: 3\r\n'),
    }),
  },
  {
    rule: 12,
    title: 'a second Content-Type is refused',
    run: isRefused(
      `${getWith('Content-Type: a/b', 'Content-Type: c/d', 'Content-Length: 2').replace('GET', 'POST')}ok`,
    ),
  },
  {
    rule: 13,
    title: '100-continue is answered here and never passed on',
    run: async (subject) => {
      const agent = subject.agent(expecting)
      if (!(await holds(subject, () => agent.text().includes(' 100 Continue\r\n\r\n'))))
        return false
      agent.socket.write('hello')
      const upstream = await subject.upstreamPeer()
      if (!(await holds(subject, () => upstream.text().endsWith('\r\n\r\nhello')))) return false
      upstream.socket.write(ok)
      await holds(subject, () => agent.text().endsWith('ok'))
      return count(agent.text(), ' 100 ') === 1 && !/^expect:/im.test(upstream.text())
    },
  },
  {
    rule: 13,
    title: 'a refused request is never told to continue',
    run: async (subject) => {
      const agent = subject.agent(expecting.replace('\r\n', '\r\nHost: other\r\n'))
      await holds(subject, () => statusOf(agent) !== 0)
      await settle()
      return statusOf(agent) === 400 && !agent.text().includes('100 Continue')
    },
  },
  {
    rule: 13,
    title: 'another expectation gets 417',
    run: isRefused(getWith('Expect: 200-ok'), [417]),
  },
  {
    rule: 14,
    title: '103 passes, ahead of the answer',
    run: passes(get, {
      answer: interim + ok,
      until: ({ down }) =>
        /^http\/1\.1 103 .*\r\nlink: <\/s\.css>; rel=preload; as=style\r\n\r\nhttp\/1\.1 200 [^]*ok$/.test(
          down(),
        ),
    }),
  },
  {
    rule: 14,
    title: 'other interim answers do not pass',
    run: passes(get, {
      answer: `HTTP/1.1 102 Processing\r\n\r\n${ok}`,
      until: ({ down }) => /^http\/1\.1 200 [^]*ok$/.test(down()),
    }),
  },
  {
    rule: 14,
    title: '103 does not pass to an HTTP/1.0 client',
    run: passes(get.replace('HTTP/1.1', 'HTTP/1.0'), {
      answer: interim + ok,
      until: ({ down }) => /^http\/1\.[01] 200 [^]*ok$/.test(down()),
    }),
  },
  {
    rule: 14,
    title: 'a flood of interim answers ends in 502',
    run: isBadGateway('HTTP/1.1 102 Processing\r\n\r\n'.repeat(1_000)),
  },
  {
    rule: 15,
    title: 'trailers pass to an agent that reads them',
    run: passes(getWith('TE: trailers', 'Connection: TE'), {
      answer: withTrailer,
      until: ({ down }) => /\r\n0\r\nx-sum: 7\r\n(?:set-cookie: a=1\r\n)?\r\n$/.test(down()),
    }),
  },
  {
    rule: 15,
    title: 'trailers stay when the agent reads none, and cookies always',
    run: passes(get, {
      answer: withTrailer,
      until: ({ down }) => down().endsWith('\r\n0\r\n\r\n') && !down().includes('set-cookie'),
    }),
  },
  {
    rule: 15,
    title: 'trailers of a request do not pass',
    run: passes(
      `${getWith('Transfer-Encoding: chunked').replace('GET', 'POST')}2\r\nhi\r\n0\r\nX-Late: leak\r\n\r\n`,
      {
        answer: '',
        until: ({ up }) => /\r\n\r\n2\r\nhi\r\n0\r\n\r\n$|\r\n\r\nhi$/.test(up()),
      },
    ),
  },
  {
    rule: 16,
    title: 'Via is written both ways, and what the agent says of its path is dropped',
    run: passes(getWith('Via: 1.1 leak', 'Forwarded: for=leak', 'X-Forwarded-For: leak'), {
      answer: ok,
      until: ({ down, up }) =>
        down().endsWith('ok') &&
        /\r\nvia: 1\.1 \S+\r\n/.test(up()) &&
        /\r\nvia: 1\.1 \S+\r\n/.test(down()) &&
        !up().includes('leak'),
    }),
  },
  {
    rule: 17,
    title: 'Alt-Svc and cookies of the upstream stay here',
    run: passes(get, {
      answer: ok.replace('\r\n\r\n', '\r\nAlt-Svc: leak\r\nSet-Cookie: leak=1\r\n\r\n'),
      until: ({ down }) => down().endsWith('ok') && !down().includes('leak'),
    }),
  },
  {
    rule: 18,
    title: 'TRACE is refused',
    run: isRefused(get.replace('GET', 'TRACE'), [400, 405, 501]),
  },
  {
    rule: 19,
    title: 'a redirect passes and is not followed',
    run: passes(get, {
      answer: 'HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n',
      until: ({ down }) =>
        /^http\/1\.1 302 [^]*location: http:\/\/other\.example\/\r\n/.test(down()),
    }),
  },
  {
    rule: 19,
    title: 'an encoded body passes byte for byte',
    run: async (subject) => {
      const { agent, upstream } = await asked(subject)
      upstream?.socket.write(
        ok
          .replace('Length: 2', 'Length: 4\r\nContent-Encoding: gzip')
          .replace(/ok$/, '\x1f\x8b\x08\xff'),
        'latin1',
      )
      return holds(subject, () => agent.text().endsWith('\r\n\r\n\x1f\x8b\x08\xff'))
    },
  },
]
