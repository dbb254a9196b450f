import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { findWidening, linkGrants } from '../../policy/attenuate.ts'
import { decide } from '../../policy/decide.ts'
import { grantAllows } from '../../policy/destination.ts'
import { isDenial } from '../../policy/denial.ts'
import { grantChain } from '../../policy/grant.ts'
import type { Destination, Grant, SpiffeId } from '../../policy/types.ts'
import { agent, api, call, grant, http, input, mcp, nowMs, rest } from '../kit/decide-input.ts'
import { request, wideAndNarrow } from '../kit/random-grants.ts'

const ids = ['planner', 'reader', 'writer'].map(
  (name): SpiffeId => `spiffe://example.org/agent/${name}`,
)
const [planner, reader, writer] = ids as [SpiffeId, SpiffeId, SpiffeId]

const root = grant({
  jti: 'grant-root-000000',
  txn: 'root',
  agent: planner,
  s256: 'digest-of-root',
  delegation: { maxDepth: 2, to: ['spiffe://example.org/agent/*'] },
})

/** A grant that hangs on those above it as it should, but for what the test changes. */
function below(above: readonly [Grant, ...Grant[]], more: Partial<Grant> = {}): Grant {
  const parent = above.at(-1) ?? root
  const { delegation } = parent
  const depth = above.length
  return {
    ...parent,
    jti: `grant-child-${depth}`.padEnd(17, '0'),
    txn: `child-${depth}`,
    agent: ids[depth] ?? agent.id,
    s256: `digest-of-${depth}`,
    ...(delegation && { delegation: { ...delegation, maxDepth: delegation.maxDepth - 1 } }),
    parent: {
      jti: parent.jti,
      iss: parent.approver,
      s256: parent.s256,
      ancestors: above.map(({ jti, txn, agent: id }) => ({ jti, txn, agent: id })),
    },
    ...more,
  }
}

function reasonOf(...links: readonly [Grant, ...Grant[]]): string {
  const chain = linkGrants(links)
  return isDenial(chain) ? `${chain.code}: ${chain.detail}` : 'linked'
}

describe('linkGrants()', () => {
  const child = below([root])
  const grandchild = below([root, child])

  test('makes one chain of grants that name each other, which ends with the first to end', () => {
    const shorter = below([root], { expiresAtMs: nowMs + 1000 })
    const last = below([root, shorter], { expiresAtMs: nowMs + 500 })
    const chain = linkGrants([root, shorter, last])
    expect(chain).toMatchObject({
      links: [root, shorter, last],
      leaf: last,
      expiresAtMs: nowMs + 500,
    })
  })

  test('lets each link be ended by whoever is above it', () => {
    const chain = linkGrants([root, child, grandchild])
    for (const subject of ['task:root', 'task:child-1', 'task:child-2'])
      expect(chain).toHaveProperty('subjects', expect.arrayContaining([subject]))
    for (const { agent: id, approver, jti } of [root, child, grandchild])
      expect(chain).toHaveProperty(
        'subjects',
        expect.arrayContaining([`agent:${id}`, `grant:${approver}#${jti}`]),
      )
  })

  test('takes eight links and not nine', () => {
    const wide = { maxDepth: 99, to: ['spiffe://example.org/**'] }
    const links: [Grant, ...Grant[]] = [{ ...root, delegation: wide }]
    const next = (): Grant =>
      below(links, { agent: `spiffe://example.org/agent/a${links.length}` as SpiffeId })
    while (links.length < 8) links.push(next())
    expect(reasonOf(...links)).toBe('linked')
    links.push(next())
    expect(reasonOf(...links)).toBe(
      'task-grant-invalid: link 9 of 9: the chain has more than 8 links',
    )
  })

  const { parent } = child
  if (!parent) throw new Error('Expected a parent')
  const second = 'task-grant-invalid: link 2 of 2: '
  test.each<[string, readonly [Grant, ...Grant[]], string]>([
    ['a child alone', [child], 'task-grant-invalid: link 1 of 1: its ancestors are not all there'],
    ['two roots', [root, { ...root, txn: 'other' }], `${second}it hangs on no grant`],
    [
      'another parent of the same id',
      [{ ...root, s256: 'other' }, child],
      `${second}claim prf: is not its parent`,
    ],
    [
      'the id of another parent',
      [{ ...root, jti: 'grant-other-00000' }, child],
      `${second}claim prf: is not its parent`,
    ],
    [
      'another issuer of the parent',
      [{ ...root, approver: 'https://other' }, child],
      `${second}claim prf: is not its parent`,
    ],
    ['a chain without its middle', [root, grandchild], `${second}claim prf: is not its parent`],
    [
      'ancestors that leave one out',
      [
        root,
        child,
        { ...grandchild, parent: { ...grandchildParent(), ancestors: parent.ancestors } },
      ],
      'task-grant-invalid: link 3 of 3: claim anc: is not the chain above it',
    ],
    [
      'one ancestor too many',
      [
        root,
        { ...child, parent: { ...parent, ancestors: [...parent.ancestors, ...parent.ancestors] } },
      ],
      `${second}claim anc: is not the chain above it`,
    ],
    ...(['jti', 'txn', 'agent'] as const).map(
      (member): [string, readonly [Grant, ...Grant[]], string] => [
        `an ancestor of another ${member}`,
        [
          root,
          {
            ...child,
            parent: {
              ...parent,
              ancestors: parent.ancestors.map((one) => ({ ...one, [member]: 'other' })),
            },
          },
        ],
        `${second}claim anc: is not the chain above it`,
      ],
    ),
    [
      'the agent of the parent again',
      [root, { ...child, agent: planner }],
      `${second}claim sub: is in the chain already`,
    ],
    [
      'the agent of the root again, two links below',
      [root, child, below([root, child], { agent: planner })],
      'task-grant-invalid: link 3 of 3: claim sub: is in the chain already',
    ],
    [
      'the task of the parent again',
      [root, { ...child, txn: 'root' }],
      `${second}claim txn: is in the chain already`,
    ],
    [
      'the id of the parent again',
      [root, { ...child, jti: root.jti }],
      `${second}claim jti: is in the chain already`,
    ],
    [
      'an agent to whom the parent does not delegate',
      [root, { ...child, agent: 'spiffe://example.org/other/a' }],
      `${second}claim sub: its parent does not delegate to this agent`,
    ],
    [
      'a wider child',
      [root, { ...child, purpose: 'other' }],
      `${second}claim purpose: is not that of the parent`,
    ],
  ])('refuses %s', (_, links, reason) => {
    expect(reasonOf(...links)).toBe(reason)
  })

  function grandchildParent(): NonNullable<Grant['parent']> {
    if (!grandchild.parent) throw new Error('Expected a parent')
    return grandchild.parent
  }

  test('refuses a child of a grant that allows none, and of one that allows no such depth', () => {
    const { delegation, ...without } = root
    if (!delegation) throw new Error('Expected a delegation')
    expect(reasonOf(without, below([without]))).toBe(`${second}its parent allows no delegation`)
    const flat = { ...root, delegation: { ...delegation, maxDepth: 0 } }
    expect(reasonOf(flat, below([flat], { delegation: { maxDepth: 0, to: [] } }))).toBe(
      `${second}its parent allows no further delegation`,
    )
  })

  test('lets a parent say who may be below it, and by whose signature', () => {
    const delegation = { maxDepth: 2, to: [reader, writer], issuers: [root.approver] }
    const strict = { ...root, delegation }
    const middle = below([strict], { delegation: { ...delegation, maxDepth: 1, to: [reader] } })
    expect(reasonOf(strict, middle)).toBe('linked')
    expect(reasonOf(strict, middle, below([strict, middle], { agent: writer }))).toBe(
      'task-grant-invalid: link 3 of 3: claim sub: its parent does not delegate to this agent',
    )
    const foreign = below([strict], { approver: 'https://delegation.example.org' })
    expect(reasonOf(strict, foreign)).toBe(
      `${second}claim iss: its parent does not delegate by this issuer`,
    )
  })
})

describe('findWidening()', () => {
  const person = { iss: 'https://login.example.org', sub: 'user-1' }
  const delegation = { maxDepth: 2, to: ['spiffe://example.org/agent/*'], issuers: ['a', 'b'] }
  const parent = grant({ delegation, onBehalfOf: person })
  const { onBehalfOf: _, ...nobody } = parent
  const narrower = { maxDepth: 1, to: [reader], issuers: ['a'] }

  test.each<[string, Partial<Grant>]>([
    ['the same', { delegation: narrower }],
    ['an earlier end', { delegation: narrower, expiresAtMs: parent.expiresAtMs - 1 }],
    ['a later start', { delegation: narrower, notBeforeMs: parent.notBeforeMs + 1 }],
    ['a lower class', { delegation: narrower, sensitivity: 'public' }],
    ['fewer destinations', { delegation: narrower, destinations: [api({ paths: ['/v1/a'] })] }],
  ])('finds nothing in %s', (_case, more) => {
    expect(findWidening({ ...parent, ...more }, parent)).toBe(undefined)
  })

  test.each<[string, Grant, string]>([
    ['another audience', { ...parent, audience: 'x' }, 'aud: is not that of the parent'],
    [
      'a later end',
      { ...parent, expiresAtMs: parent.expiresAtMs + 1 },
      'exp: is after that of the parent',
    ],
    [
      'an earlier start',
      { ...parent, notBeforeMs: parent.notBeforeMs - 1 },
      'nbf: is before that of the parent',
    ],
    [
      'a higher class',
      { ...parent, sensitivity: 'confidential' },
      'sensitivity: is above that of the parent',
    ],
    ['another purpose', { ...parent, purpose: 'x' }, 'purpose: is not that of the parent'],
    ['nobody behind it', nobody, 'obo: is not that of the parent'],
    [
      'somebody else behind it',
      { ...parent, onBehalfOf: { ...person, sub: 'user-2' } },
      'obo: is not that of the parent',
    ],
    [
      'the same name elsewhere behind it',
      { ...parent, onBehalfOf: { ...person, iss: 'x' } },
      'obo: is not that of the parent',
    ],
    [
      'the same depth',
      { ...parent, delegation: { ...narrower, maxDepth: 2 } },
      'delegation.max_depth: is not below that of the parent',
    ],
    [
      'more delegates',
      { ...parent, delegation: { ...narrower, to: ['spiffe://example.org/**'] } },
      'delegation.to: is wider than that of the parent',
    ],
    [
      'more issuers',
      { ...parent, delegation: { ...narrower, issuers: ['a', 'c'] } },
      'delegation.issuers: is wider than that of the parent',
    ],
    [
      'any issuer',
      { ...parent, delegation: { maxDepth: 1, to: [reader] } },
      'delegation.issuers: is wider than that of the parent',
    ],
  ])('names the claim of %s', (_case, child, reason) => {
    expect(findWidening(child, parent)).toBe(`claim ${reason}`)
  })

  test('refuses delegation below a grant that allows none', () => {
    expect(findWidening(grant({ delegation: narrower }), grant())).toBe(
      'claim delegation.max_depth: is not below that of the parent',
    )
  })

  const location = 'https://api.example.org'
  const mcpEntry = {
    type: 'mcp_server',
    locations: [`${location}/mcp`],
    tools: ['read_*'],
  } as const
  const httpEntry = { type: 'http_api', locations: [location], actions: ['GET'] } as const
  const wide: readonly Destination[] = [
    {
      type: 'http_api',
      locations: ['https://*.example.org'],
      actions: ['GET', 'POST'],
      paths: ['/v1/**'],
      query: 'deny',
    },
    { type: 'http_api', locations: [location], actions: ['GET'], paths: ['/a/*', '/b'] },
    { ...mcpEntry, args: { repo: { prefix: 'team/' }, n: { max: 5 }, kind: { enum: ['a', 'b'] } } },
  ]
  const args = { repo: { prefix: 'team/x' }, n: { max: 5 }, kind: { enum: ['a'] } }
  test.each<[string, Destination, string | undefined]>([
    [
      'one host of a wildcard',
      { ...httpEntry, paths: ['/v1/x'], actions: ['GET'], query: 'deny' },
      undefined,
    ],
    [
      'a method more',
      { ...httpEntry, paths: ['/v1/x'], actions: ['GET', 'DELETE'], query: 'deny' },
      'actions',
    ],
    ['a query', { ...httpEntry, paths: ['/v1/x'], actions: ['GET', 'POST'] }, 'query'],
    ['a path beside', { ...httpEntry, paths: ['/a/b/c'], actions: ['GET'] }, 'paths'],
    [
      'a host beside',
      { ...httpEntry, locations: ['https://example.org'], paths: ['/b'], actions: ['GET'] },
      'locations',
    ],
    ['a tool of the prefix', { ...mcpEntry, tools: ['read_a', 'read_b*'], args }, undefined],
    ['a tool beside', { ...mcpEntry, tools: ['read'], args }, 'tools'],
    ['every tool', { ...mcpEntry, tools: ['*'], args }, 'tools'],
    [
      'an argument without its constraint',
      { ...mcpEntry, args: { repo: args.repo, n: args.n } },
      'args',
    ],
    ['a shorter prefix', { ...mcpEntry, args: { ...args, repo: { prefix: 'team' } } }, 'args'],
    ['a higher number', { ...mcpEntry, args: { ...args, n: { max: 6 } } }, 'args'],
    ['a value more', { ...mcpEntry, args: { ...args, kind: { enum: ['a', 'c'] } } }, 'args'],
    ['a prefix for a list', { ...mcpEntry, args: { ...args, kind: { prefix: 'a' } } }, 'args'],
    [
      'a list for a prefix',
      { ...mcpEntry, args: { ...args, repo: { enum: ['team/a'] } } },
      undefined,
    ],
    [
      'a list with a value outside the prefix',
      { ...mcpEntry, args: { ...args, repo: { enum: ['team/a', 'x'] } } },
      'args',
    ],
    ['a list for a number', { ...mcpEntry, args: { ...args, n: { enum: [1, 5] } } }, undefined],
    [
      'a list with a value above the number',
      { ...mcpEntry, args: { ...args, n: { enum: [1, 6] } } },
      'args',
    ],
    ['another server', { ...mcpEntry, locations: [`${location}/other`], args }, 'locations'],
  ])('judges a destination with %s', (_case, entry, member) => {
    const reason = findWidening(grant({ destinations: [entry] }), grant({ destinations: wide }))
    expect(reason).toBe(
      member &&
        `claim authorization_details[0]: is wider than each destination of the parent, than the nearest in ${member}`,
    )
  })

  test('says which destination has none of its type in the parent', () => {
    const socket: Destination = {
      type: 'ws',
      locations: ['wss://api.example.org'],
      paths: ['/live'],
    }
    expect(
      findWidening(grant({ destinations: [api(), socket] }), grant({ destinations: [api()] })),
    ).toBe('claim authorization_details[1]: the parent has no destination of this type')
  })
})

describe('attenuation', () => {
  test('never lets a child do what its parent may not', () => {
    let allowed = 0
    fc.assert(
      fc.property(wideAndNarrow, request, ([wide, narrow], { operation, upstream }) => {
        const parent = grant({ destinations: wide })
        const child = grant({ destinations: narrow, jti: 'g2', txn: 'child' })
        const asked = (chain: ReturnType<typeof grantChain>): boolean =>
          decide(input({ chain, operation, upstream })).outcome === 'allow'
        if (!asked(grantChain(parent, child))) return
        allowed += 1
        expect(asked(grantChain(parent))).toBe(true)
        expect(asked(grantChain(child))).toBe(true)
      }),
      { numRuns: 1_000 },
    )
    expect(allowed).toBeGreaterThan(10)
  })

  test('calls a child narrower only when whatever it may do, its parent may do as well', () => {
    let narrower = 0
    fc.assert(
      fc.property(
        wideAndNarrow,
        fc.array(request, { minLength: 8, maxLength: 16 }),
        ([wide, narrow], requests) => {
          const parent = grant({ destinations: wide })
          const child = grant({ destinations: narrow })
          if (findWidening(child, parent) !== undefined) return
          for (const target of requests) {
            if (!grantAllows(child, target)) continue
            narrower += 1
            expect(grantAllows(parent, target)).toBe(true)
          }
        },
      ),
      { numRuns: 2_000 },
    )
    expect(narrower).toBeGreaterThan(50)
  })

  test('refuses by a link above what the leaf alone would allow', () => {
    const parent = grant({ destinations: [api({ paths: ['/v1/a'] })] })
    const chain = grantChain(parent, grant({ jti: 'g2', txn: 'child' }))
    expect(decide(input({ chain, operation: http('GET', '/v1/b') }))).toMatchObject({
      code: 'policy-denied',
      detail: 'grant g1: no destination of it allows this',
    })
    const calm = {
      chain: grantChain(grant({ sensitivity: 'public' }), grant({ txn: 'child' })),
      upstream: rest,
    }
    expect(decide(input(calm))).toMatchObject({ code: 'policy-denied' })
    const tool = { chain: grantChain(grant({ destinations: [api()] }), grant()), upstream: mcp }
    expect(decide(input({ ...tool, operation: call('x') }))).toMatchObject({
      code: 'policy-denied',
      detail: 'grant g1: no destination of it allows this',
    })
  })
})
