import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import type { OutcomeEvent } from '../../audit/record.ts'
import { deny } from '../../policy/denial.ts'
import { denialCodes } from '../../policy/types.ts'
import { createMetrics, type Metrics, type MetricsSource } from '../../proxy/metrics.ts'
import { unreadReasons } from '../../proxy/unread-requests.ts'
import { version } from '../../proxy/version.ts'

const ends = ['complete', 'denied', 'cut', 'client-gone', 'upstream-failed'] as const
const docs = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
const rows = docs
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => line.split('|').map((cell) => cell.trim()))

describe('Metrics.expose()', () => {
  test('gives text that parses, each family with its help and type before its samples', async () => {
    const { contentType, text } = await filled().expose()
    expect(contentType).toMatch(/^text\/plain; version=0\.0\.4/)
    const families = parse(text)
    expect(families.size).toBeGreaterThan(15)
    for (const { help, samples } of families.values()) {
      expect(help.length).toBeGreaterThan(5)
      expect(samples.length).toBeGreaterThan(0)
      for (const { value } of samples) expect(value).toMatch(/^(?:[0-9.e+-]+|\+Inf)$/)
    }
  })

  test('has exactly the labels of docs/metrics.md, with values that are listed there', async () => {
    const families = parse((await filled().expose()).text)
    for (const [, name = '', type, labels = ''] of rows) {
      const family = families.get(name.replaceAll('`', ''))
      expect([name, family?.type]).toEqual([name, type])
      for (const sample of family?.samples ?? []) {
        const own = sample.labels.filter(([label]) => label !== 'le')
        const told = [...labels.matchAll(/`(\w+)`:/g)].map(([, label = '']) => label)
        expect(own.map(([label]) => label).toSorted()).toEqual(told.toSorted())
        const values = own.filter(([label]) => isEnumerated(label)).map(([, value]) => value)
        expect(values.filter((value) => !labels.includes(`\`${value}\``))).toEqual([])
      }
    }
  })

  test('has no metric that docs/metrics.md does not tell of, and the reverse', async () => {
    const families = parse((await filled().expose()).text)
    const told = rows.map(([, name = '']) => name.replaceAll('`', ''))
    expect([...families.keys()].toSorted()).toEqual(told.toSorted())
  })

  test('counts what it is told', async () => {
    const { text } = await filled().expose()
    for (const line of [
      'chaperone_decisions_total{route="/api",effect="allow",code="none"} 2',
      'chaperone_decisions_total{route="none",effect="deny",code="task-terminated"} 1',
      'chaperone_exchanges_total{upstream="api",end="cut"} 1',
      'chaperone_exchange_bytes_total{upstream="api",direction="up"} 35',
      'chaperone_exchange_bytes_total{upstream="api",direction="down"} 55',
      'chaperone_cut_seconds_sum 0.004',
      'chaperone_decision_seconds_sum 0.0015',
      'chaperone_unread_requests_total{reason="malformed"} 1',
      'chaperone_observed_total{route="/api"} 1',
      'chaperone_shadow_decisions_total{effect="allow",shadow="skipped"} 1',
      'chaperone_credentials_total{kind="mint",outcome="failed"} 1',
      'chaperone_revocations_applied_total{op="quarantine"} 1',
      'chaperone_config_reloads_total{result="rejected"} 1',
      'chaperone_policy_answers_total{by="memo"} 2',
      'chaperone_policy_self_checks_total{result="different"} 1',
      'chaperone_policy_engine_replacements_total 1',
      `chaperone_build_info{version="${version}"} 1`,
      'chaperone_exchanges_in_flight 3',
      'chaperone_revocation_connected 1',
      'chaperone_trust_bundle_age_seconds{trust_domain="example.org"} 12',
    ])
      expect(text.split('\n')).toContain(line)
  })

  test('says +Inf before the first sync', async () => {
    const metrics = createMetrics()
    metrics.observe({ ...source, revocationAgeSeconds: () => Infinity })
    expect((await metrics.expose()).text).toContain('chaperone_revocation_age_seconds +Inf\n')
  })

  test('forgets a trust domain that a reload took out', async () => {
    const metrics = createMetrics()
    let domains = new Map([
      ['a.example', 1],
      ['b.example', 2],
    ])
    metrics.observe({ ...source, bundleAgesSeconds: () => domains })
    expect((await metrics.expose()).text).toContain('trust_domain="b.example"} 2')
    domains = new Map([['a.example', 3]])
    const { text } = await metrics.expose()
    expect(text).toContain('trust_domain="a.example"} 3')
    expect(text).not.toContain('b.example')
  })

  test('keeps every kind of denial and of end in series of their own, and no more', async () => {
    const families = parse((await filled().expose()).text)
    const decisions = families.get('chaperone_decisions_total')?.samples ?? []
    expect(decisions).toHaveLength(denialCodes.length + 2)
    expect(families.get('chaperone_exchanges_total')?.samples).toHaveLength(ends.length)
  })

  test('shares nothing between two sidecars in one process', async () => {
    filled()
    expect((await createMetrics().expose()).text).not.toContain('task-terminated')
  })
})

const source: MetricsSource = {
  exchanges: () => 3,
  revocationAgeSeconds: () => 0.5,
  revocationConnected: () => true,
  revocationRecords: () => 7,
  revocationMissingInStore: () => 0,
  denyFileSubjects: () => 2,
  denyFileProblems: () => 0,
  auditBacklog: () => 0,
  auditSpooled: () => 0,
  policyHealthy: () => true,
  heapUsedRatio: () => 0.5,
  eventLoopDelaySeconds: () => new Map([['0.5', 0.001]]),
  bundleAgesSeconds: () => new Map([['example.org', 12]]),
}

/** Everything that can be told was told once. */
function filled(): Metrics {
  const metrics = createMetrics()
  metrics.observe(source)
  metrics.decided('/api', { outcome: 'allow', policyIds: [] })
  metrics.decided('/api', {
    outcome: 'allow',
    policyIds: [],
    observed: { outcome: 'deny', policyIds: [] },
  })
  for (const reason of unreadReasons) metrics.unread(reason)
  for (const effect of ['allow', 'deny', 'step-up', 'skipped'] as const)
    metrics.shadowed({ outcome: 'allow', policyIds: [] }, { outcome: effect, policyIds: [] })
  metrics.decided('/api', {
    outcome: 'step-up',
    code: 'approval-required',
    detail: 'd',
    policyIds: [],
  })
  for (const code of denialCodes) metrics.decided('none', deny(code, 'detail of an agent'))
  metrics.overhead(1.5)
  for (const end of ends) metrics.ended('api', outcome(end))
  for (const kind of ['inject', 'mint', 'none'] as const)
    for (const result of ['issued', 'failed'] as const) metrics.credentialIssued(kind, result)
  for (const op of ['revoke', 'pause', 'quarantine'] as const) metrics.revocationApplied(op)
  for (const result of ['applied', 'rejected'] as const) metrics.configReloaded(result)
  for (const result of ['stored', 'failed'] as const) metrics.checkpointStored(result)
  for (const by of ['memo', 'engine', 'memo'] as const) metrics.policyAnswered(by)
  for (const result of ['same', 'different'] as const) metrics.policySelfChecked(result)
  metrics.policyEngineReplaced()
  return metrics
}

function outcome(end: OutcomeEvent['end']): OutcomeEvent {
  return {
    type: 'outcome',
    decision_id: 'd1',
    txn: 'task-1',
    status: 200,
    end,
    bytes_up: 7,
    bytes_down: 11,
    duration_ms: 1,
    credential: null,
    ...(end === 'cut' && {
      cut: { code: 'task-terminated', how: 'reset' as const, after_ms: 4 },
    }),
  }
}

function isEnumerated(label: string): boolean {
  return !['route', 'upstream', 'code', 'version', 'trust_domain'].includes(label)
}

interface Family {
  readonly help: string
  readonly type: string
  readonly samples: {
    readonly labels: readonly (readonly [string, string])[]
    readonly value: string
  }[]
}

/** Reads the text format strictly: every line must be a help, a type, or a sample of the family before it. */
function parse(text: string): ReadonlyMap<string, Family> {
  const families = new Map<string, Family>()
  let current = ''
  for (const block of text.trim().split(/\n\n|\n(?=# HELP)/)) {
    const [help = '', type = '', ...samples] = block.split('\n')
    const [, name = '', words = ''] = /^# HELP (\w+) (.+)$/.exec(help) ?? []
    const [, kind = ''] = new RegExp(`^# TYPE ${name} (counter|gauge|histogram)$`).exec(type) ?? []
    expect([help, name !== '', kind !== '']).toEqual([help, true, true])
    expect(families.has(name)).toBe(false)
    current = name
    families.set(name, { help: words, type: kind, samples: samples.map(sampleOf) })
  }
  return families

  function sampleOf(line: string) {
    const [, name = '', labels = '', value = ''] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    expect([line, name.replace(/_(?:bucket|sum|count)$/, '')]).toEqual([line, current])
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)]
    return { labels: pairs.map(([, label = '', of = '']) => [label, of] as const), value }
  }
}
