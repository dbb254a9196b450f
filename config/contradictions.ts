import { isIP } from 'node:net'
import { resolve } from 'node:path'
import { nearestName } from './nearest-name.ts'
import type { Finding, SettingPath } from './problem.ts'
import { parseRedisUrl } from './redis-url.ts'
import type { Config, RedisConfig } from './schema.ts'
import { maxObserveMs } from './setting.ts'

/** What no single setting can show: names that stand twice or point nowhere, and settings that contradict each other. */
export function findContradictions(
  config: Config,
  { nowMs }: { readonly nowMs: number },
): readonly Finding[] {
  return [
    ...checkListen(config),
    ...checkTrust(config),
    ...checkApprovers(config),
    ...checkDelegation(config),
    ...checkOperators(config),
    ...checkFreshness(config),
    ...checkRedis(config),
    ...checkUpstreams(config),
    ...checkRoutes(config),
    ...checkAudit(config),
    ...checkObserved(config, nowMs),
    ...checkPresets(config),
  ]
}

/** The same for what names the store alone: the command line can name one too. */
export function findRedisContradictions(
  redis: RedisConfig,
): readonly { readonly key: keyof RedisConfig; readonly message: string }[] {
  const { url, caFile, certFile, keyFile } = redis
  const target = parseRedisUrl(url)
  if (!target) return [{ key: 'url', message: 'Expected ports from 1 to 65535' }]
  const found: { readonly key: keyof RedisConfig; readonly message: string }[] = []
  if (certFile !== undefined && keyFile === undefined) {
    found.push({ key: 'certFile', message: 'Expected keyFile as well' })
  }
  if (keyFile !== undefined && certFile === undefined) {
    found.push({ key: 'keyFile', message: 'Expected certFile as well' })
  }
  if (!target.tls && (caFile ?? certFile ?? keyFile) !== undefined) {
    const message = 'Expected rediss instead of redis because caFile, certFile or keyFile is set'
    found.push({ key: 'url', message })
  }
  for (const key of ['sentinelUsername', 'sentinelPasswordFile'] as const) {
    if (target.kind === 'sentinel' || redis[key] === undefined) continue
    found.push({ key, message: 'Expected a redis-sentinel or rediss-sentinel url with it' })
  }
  return found
}

function checkListen({ listen }: Config): readonly Finding[] {
  const { agent, admin, unsafeNonLoopback } = listen
  const found: Finding[] = []
  for (const [key, address] of [
    ['agent', agent],
    ['admin', admin],
  ] as const) {
    if (portOf(address) > 65_535) {
      found.push({ path: ['listen', key], message: 'Expected a port from 0 to 65535' })
    }
  }
  if (!unsafeNonLoopback && !isLoopback(agent)) {
    found.push({
      path: ['listen', 'agent'],
      message: 'Expected a loopback address, or unsafeNonLoopback: true',
    })
  }
  if (agent === admin && portOf(agent) !== 0) {
    found.push({ path: ['listen', 'admin'], message: 'Expected another address than agent' })
  }
  return found
}

function checkTrust({ identity, trustDomain }: Config): readonly Finding[] {
  const domains = identity.trustBundles.map((bundle) => bundle.trustDomain)
  const bundles: SettingPath = ['identity', 'trustBundles']
  const found = duplicates(domains).map((index) => ({
    path: [...bundles, index, 'trustDomain'],
    message: 'The trust domain has another bundle already',
  }))
  if (domains.includes(trustDomain)) return found
  return [...found, { path: bundles, message: 'Expected a bundle of the own trustDomain' }]
}

function checkApprovers({ approvers, grants }: Config): readonly Finding[] {
  const twice = duplicates(approvers.map(({ iss }) => iss)).map((index) => ({
    path: ['approvers', index, 'iss'],
    message: 'The approver is listed already',
  }))
  const vocabulary = grants.purposes
  if (!vocabulary) return twice
  const unknown = approvers.flatMap(({ purposes = [] }, approver) =>
    purposes.flatMap((purpose, index) =>
      vocabulary.includes(purpose)
        ? []
        : [
            {
              path: ['approvers', approver, 'purposes', index],
              message: 'Expected a purpose of grants.purposes',
              ...suggest(purpose, vocabulary),
            },
          ],
    ),
  )
  return [...twice, ...unknown]
}

function checkDelegation({ approvers, delegation }: Config): readonly Finding[] {
  if (!approvers.some(({ iss }) => iss === delegation?.iss)) return []
  return [
    {
      path: ['delegation', 'iss'],
      message: 'Expected another authority than the approvers: it may not sign a root',
    },
  ]
}

function checkOperators({ operators }: Config): readonly Finding[] {
  return duplicates(operators.map(({ name }) => name)).map((index) => ({
    path: ['operators', index, 'name'],
    message: 'The operator is listed already',
  }))
}

function checkFreshness({ revocation }: Config): readonly Finding[] {
  const { syncInterval, ...limits } = revocation
  // One lost answer must not refuse writes: the limit has to outlive two rounds.
  const atLeast = syncInterval * 2
  return (['staleAfterWrites', 'staleAfterReads', 'staleAfterStreams'] as const)
    .filter((key) => limits[key] <= atLeast)
    .map((key) => ({
      path: ['revocation', key],
      message: `Expected more than twice syncInterval, ${atLeast} ms`,
    }))
}

function checkRedis({ revocation }: Config): readonly Finding[] {
  if (revocation.source !== 'redis') return []
  return findRedisContradictions(revocation.redis).map(({ key, message }) => ({
    path: ['revocation', 'redis', key],
    message,
  }))
}

function checkUpstreams({ upstreams, mint }: Config): readonly Finding[] {
  const twice = duplicates(upstreams.map(({ name }) => name)).map((index) => ({
    path: ['upstreams', index, 'name'],
    message: 'The name is taken by another upstream',
  }))
  const misread = upstreams.flatMap(({ kind, openapi }, index) =>
    kind === 'rest' || openapi === undefined
      ? []
      : [{ path: ['upstreams', index, 'openapi'], message: 'Expected kind: rest with it' }],
  )
  if (mint) return [...twice, ...misread]
  const unminted = upstreams.flatMap(({ credential }, index) =>
    'mint' in credential
      ? [
          {
            path: ['upstreams', index, 'credential', 'mint'],
            message: 'Expected the section "mint" with issuer and keys',
            atKey: true,
          },
        ]
      : [],
  )
  return [...twice, ...misread, ...unminted]
}

function checkRoutes({ routes, upstreams }: Config): readonly Finding[] {
  const names = upstreams.map(({ name }) => name)
  const found: Finding[] = []
  const taken = new Set<string>()
  for (const [index, route] of routes.entries()) {
    const [key, match] =
      'prefix' in route ? (['prefix', route.prefix] as const) : (['host', route.host] as const)
    if (taken.has(`${key} ${match}`)) {
      found.push({ path: ['routes', index, key], message: `Another route has this ${key}` })
    }
    taken.add(`${key} ${match}`)
    if (key === 'prefix' && match.split('/').some((segment) => /^\.{1,2}$/.test(segment))) {
      found.push({ path: ['routes', index, key], message: 'Expected no "." or ".." in the path' })
    }
    if (!names.includes(route.upstream)) {
      found.push({
        path: ['routes', index, 'upstream'],
        message: 'Expected the name of an upstream',
        ...suggest(route.upstream, names),
      })
    }
  }
  return found
}

function checkAudit({ audit: { onFailure, spool, sink } }: Config): readonly Finding[] {
  if (onFailure === 'refuse') {
    if (!spool) return []
    return [{ path: ['audit', 'spool'], message: 'Expected onFailure: unsafe-continue as well' }]
  }
  if (!spool) return [{ path: ['audit', 'onFailure'], message: 'Expected spool as well' }]
  if (resolve(spool.file) !== resolve(sink)) return []
  return [{ path: ['audit', 'spool', 'file'], message: 'Expected another file than sink' }]
}

function checkObserved({ routes, policy }: Config, nowMs: number): readonly Finding[] {
  const tasks = policy.unsafeObserveTasks
  const ends = [
    ...routes.map(({ unsafeObserveUntil = nowMs }, index) => ({
      path: ['routes', index, 'unsafeObserveUntil'],
      untilMs: unsafeObserveUntil,
    })),
    ...tasks.map(({ until }, index) => ({
      path: ['policy', 'unsafeObserveTasks', index, 'until'],
      untilMs: until,
    })),
  ]
  const twice = duplicates(tasks.map(({ task }) => task)).map((index) => ({
    path: ['policy', 'unsafeObserveTasks', index, 'task'],
    message: 'The task is listed already',
  }))
  const far = ends
    .filter(({ untilMs }) => untilMs - nowMs > maxObserveMs)
    .map(({ path }) => ({ path, message: 'Expected a time at most 7 days ahead' }))
  return [...twice, ...far]
}

function checkPresets({ policy, upstreams }: Config): readonly Finding[] {
  const names = upstreams.map(({ name }) => name)
  const twice = duplicates(policy.presets.map(({ id }) => id)).map((index) => ({
    path: ['policy', 'presets', index, 'id'],
    message: 'The id is taken by another preset',
  }))
  const unknown = policy.presets.flatMap(({ upstreams: named = [] }, preset) =>
    named.flatMap((name, index) =>
      names.includes(name)
        ? []
        : [
            {
              path: ['policy', 'presets', preset, 'upstreams', index],
              message: 'Expected the name of an upstream',
              ...suggest(name, names),
            },
          ],
    ),
  )
  const mixed = policy.presets.flatMap(({ tools, access, methods, paths }, index) =>
    tools === undefined || (access ?? methods ?? paths) === undefined
      ? []
      : [
          {
            path: ['policy', 'presets', index],
            message: 'Expected either tools, or access, methods and paths',
          },
        ],
  )
  return [...twice, ...unknown, ...mixed]
}

/** The indexes of all but the first of equal values. */
function duplicates(values: readonly string[]): readonly number[] {
  const first = new Map<string, number>()
  const found: number[] = []
  for (const [index, value] of values.entries()) {
    if (first.has(value)) found.push(index)
    else first.set(value, index)
  }
  return found
}

function suggest(name: string, names: readonly string[]): Pick<Finding, 'suggestion'> {
  const suggestion = nearestName(name, names)
  return suggestion === undefined ? {} : { suggestion }
}

function isLoopback(address: string): boolean {
  const host = address.slice(0, address.lastIndexOf(':'))
  if (host === 'localhost' || host === '[::1]') return true
  return isIP(host) === 4 && host.startsWith('127.')
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1))
}
