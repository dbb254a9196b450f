import { get, isRefused, ok, passes, type Probe } from './probe.ts'

const oneReading = "/a/%C3%A9/~b!$&'()*+,=:@?q=%2F..//&q=%7e"

/** Rules 20 to 24: what is judged is what is forwarded, to the upstream that was chosen. */
export const targetProbes: readonly Probe[] = [
  {
    rule: 20,
    title: 'an absolute target is refused',
    run: isRefused(get.replace('/a', 'http://other.example/a')),
  },
  {
    rule: 21,
    title: 'CONNECT is refused',
    run: isRefused(
      'CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n',
      [400, 405, 501],
    ),
  },
  {
    rule: 22,
    title: 'a fragment is refused',
    run: isRefused(get.replace('/a', '/a#b')),
  },
  ...[
    '/a%2fb',
    '/a%5cb',
    '/%2e%2e/b',
    '/a%00',
    '/a//b',
    '/a/../b',
    '/a\\b',
    '/a%zz',
    '/\xe9',
    '/a;v=1/b',
  ].map((target) => ({
    rule: 23,
    title: `${JSON.stringify(target)} is refused`,
    run: isRefused(get.replace('/a', target)),
  })),
  {
    rule: 23,
    title: 'a target with one reading passes byte for byte',
    run: passes(`GET ${oneReading} HTTP/1.1\r\nHost: agent\r\n\r\n`, {
      answer: ok,
      until: ({ upstream }) => upstream.text().startsWith(`GET ${oneReading} HTTP/1.1\r\n`),
    }),
  },
  {
    rule: 24,
    title: "the upstream gets its own Host, never the agent's",
    run: passes(get, {
      answer: ok,
      until: ({ up, down }) => down().endsWith('ok') && !up().includes('host: agent'),
    }),
  },
]
