import { expect, test } from 'vitest'
import { engineObserver } from '../../proxy/engine-observer.ts'
import { createMetrics } from '../../proxy/metrics.ts'

test('engineObserver() counts everything, and logs what an operator must know of', async () => {
  const lines: string[] = []
  const keep =
    (level: string) =>
    (_: object, message = '') =>
      void lines.push(`${level} ${message}`)
  const log = { debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') }
  const metrics = createMetrics()
  const observer = engineObserver({ metrics, log })
  observer.answered('memo')
  observer.selfChecked('same')
  expect(lines).toEqual([])
  observer.selfChecked('different')
  observer.replaced()
  expect(lines).toEqual([
    expect.stringContaining('error a policy decision was another one'),
    expect.stringContaining('warn the policy engine was worn out'),
  ])
  const { text } = await metrics.expose()
  expect(text).toContain('chaperone_policy_answers_total{by="memo"} 1')
  expect(text).toContain('chaperone_policy_self_checks_total{result="different"} 1')
  expect(text).toContain('chaperone_policy_engine_replacements_total 1')
})
