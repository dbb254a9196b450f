/** The words of docs/config.md that are not in the schema. */

export const intro = `# Configuration

<!-- Written by \`node docs/generate-config.ts\` from config/schema.ts. Do not edit. -->

One YAML file: \`chaperone run -c chaperone.yaml\`. A commented example is
[examples/chaperone.yaml](../examples/chaperone.yaml). \`chaperone check -c chaperone.yaml\` reports every problem at once, as
\`file:line:col path: message\`, without a network ([cli.md](cli.md)). For editors there is a
[JSON Schema](../config/chaperone.schema.json).

- An unknown key is an error. A key that stands twice is an error.
- A duration is a whole number with a unit: \`250ms\`, \`30s\`, \`5m\`, \`8h\`, \`1d\`.
- A size is a whole number with a unit: \`16KiB\`, \`1MiB\`, or quoted bytes: \`"2048"\`.
- A relative path is taken from the directory of the configuration file.
- A secret never stands in the file. It is \`{ file: <path> }\`.
- \`[]\` stands for each entry of a list. *Required in its form* means: required in the form that has this key.
- A setting that opens something has \`unsafe\` in its name, except \`allowPrivateAddresses\`.
`

export const outro = `## What contradicts itself

These are errors too, although each setting is right alone:

- \`listen.agent\` is not loopback and \`listen.unsafeNonLoopback\` is not set; \`listen.admin\` is the same address.
- No bundle of the own \`trustDomain\`, or two of one domain.
- Two approvers with one \`iss\`, or \`delegation.iss\` the \`iss\` of an approver; a purpose of an approver that is not in \`grants.purposes\`.
- A \`staleAfter...\` that is not more than twice \`syncInterval\`: one lost answer would refuse traffic.
- \`certFile\` without \`keyFile\`, or the reverse; TLS files with a \`redis\` URL instead of \`rediss\`; \`sentinel...\` with a URL of another kind.
- Two upstreams of one name, two routes of one prefix or host, a route to no upstream, a prefix \`/t\` or one below it.
- A \`mint\` credential without the section \`mint\`; \`openapi\` of an upstream that is not \`kind: rest\`.
- \`audit.onFailure: unsafe-continue\` without \`audit.spool\`, or the reverse; a spool that is the sink.
- An \`unsafeObserveUntil\`, or an end of \`unsafeObserveTasks\`, more than 7 days ahead; one task there twice.

## Reload

On SIGHUP, or when the file or one in a directory of \`policy\` changes (they are looked at once a second), it is read again and swapped in whole.
A bad one is refused and logged, and the old one stays in force. A request that is under way keeps the configuration that it
began with. SIGHUP also applies an unchanged file again: use it after a change of approver keys or CA files.

| Changed | In force |
| --- | --- |
| \`trustDomain\`, \`listen\`, \`operators\`, \`revocation\`, \`audit\`, \`limits\`, \`log\` | after a restart: a reload with another value is refused |
| every other setting | after a reload |
| policy files and their cases, \`upstreams[].tools\` and \`upstreams[].openapi\` | within about 2s, when they compile and every case holds |
| JWKS of approvers and of \`delegation\`, \`upstreams[].caFile\` | after SIGHUP or another reload |
| injected secrets, mint keys, \`grants.file\` | within 1s of use, without a reload |
| files of \`listen.tls\` | within about 3s, for new connections, without a reload; a bad pair is logged and the old stays |
| trust bundle files | within about 1s, without a reload |
| \`revocation.denyFile\`: what it holds | a new line within about 250ms, a line that is gone after another 1s; without a reload |
| \`revocation.redis.passwordFile\`, \`revocation.redis.sentinelPasswordFile\` | at the next connection |
`

/** What a setting means whose schema says nothing of it. */
export const meanings: Readonly<Record<string, string>> = {
  version: 'Version of this format',
  trustDomain:
    "The deployment's SPIFFE trust domain: names the keys in Redis and the default audience",
  'listen.agent': 'Where agents call: `host:port`, port 0 for a free one',
  'listen.admin':
    'Probes, metrics and the public mint keys: `host:port`. Any address is accepted; there is no authentication',
  'identity.trustBundles[].trustDomain': 'The trust domain whose keys the bundle holds',
  'identity.trustBundles[].file': 'SPIFFE bundle (JWK Set) in a file. Re-read on change',
  'identity.trustBundles[].url': 'SPIFFE bundle endpoint: `https:` only',
  'revocation.source':
    '`embedded` lives in the process alone: nothing outside can revoke but `denyFile`, so it is for trials',
  'revocation.redis.url':
    '`redis://host:port`, `redis-sentinel://host:port,host:port/<master>` or `redis-cluster://host:port,host:port`; `rediss...` with TLS; the first two perhaps with `/<database>` at the end; no user or password',
  'revocation.redis.username': 'Redis ACL user',
  'revocation.redis.passwordFile': 'File with its password. Re-read for every connection',
  'revocation.redis.sentinelUsername': 'ACL user of the Sentinels, with a `redis-sentinel` URL',
  'revocation.redis.sentinelPasswordFile':
    'File with its password. Re-read for every question to a Sentinel',
  'revocation.redis.certFile': 'PEM client certificate, with `keyFile`',
  'revocation.redis.keyFile': 'PEM key of the client certificate',
  'revocation.redis.prefix':
    'Keys are `{<prefix>}:<trust domain>:...`. Lower-case letters, digits and `-`, at most 63',
  'upstreams[].name':
    'Lower-case letters, digits and `-`, at most 63. `upstream:<name>` can be revoked',
  'upstreams[].url': 'Origin and optional base path, without userinfo, query and fragment',
  'upstreams[].kind': '`mcp` reads and judges each JSON-RPC message (Streamable HTTP)',
  'upstreams[].credential.inject.header': 'Lower-case header name that the secret is put into',
  'upstreams[].credential.inject.template': 'Value of the header; `{secret}` stands for the secret',
  'upstreams[].credential.inject.basic.username': 'Sent with the secret as `Authorization: Basic`',
  'upstreams[].credential.inject.query': 'Query parameter that the secret is put into',
  'upstreams[].credential.mint.scope': 'Joined as the claim `scope`',
  'upstreams[].credential.none': 'Nothing is put on: the upstream asks for no credential',
  'upstreams[].connectTimeout': 'From the dial to the connection, TLS included',
  'upstreams[].maxConnections': 'The most connections to this upstream',
  'routes[].prefix':
    'First segments of the path on our listener, such as `/github`: taken off before the request is judged. The longest wins',
  'routes[].upstream': 'Name of the upstream',
  'routes[].host': 'Exact Host field, such as `tickets.localhost:15080`. Wins over a prefix',
  'mint.issuer': '`iss` of what is minted',
  'limits.maxHeadBytes': 'The most bytes of request line and headers',
  'limits.headTimeout': 'How long a request head may take to arrive',
  'limits.maxConnections': 'The most connections of agents',
  'limits.maxMcpDepth': 'How deep the JSON of an MCP message may nest',
  'log.level': 'What is logged on standard error',
}

/** What stands over the table of a section. */
export const notes: Readonly<Record<string, string>> = {
  identity: 'A bundle has one of two forms: `{ trustDomain, file }` or `{ trustDomain, url }`.',
  approvers: 'Who may sign grants, and how far each may go.',
  delegation:
    'Who else may sign the grants of sub-agents: [delegation.md](delegation.md). Absent: only approvers.',
  revocation: 'How it works, and what happens in an outage: [revocation.md](revocation.md).',
  upstreams: `A credential has one of three forms: \`inject\` puts a static secret into one slot (\`header\`, \`basic\` or \`query\`),
\`mint\` signs a short-lived \`at+jwt\` for each task, \`none: true\` puts nothing on.`,
  routes: 'A route has one of two forms: `{ prefix, upstream }` or `{ host, upstream }`.',
  mint: 'Needed when an upstream has a `mint` credential. `chaperone keygen` makes the keys.',
  audit: 'What is recorded: [audit.md](audit.md).',
  policy: 'How policies are written: [policy.md](policy.md).',
}
