import { expect, test } from 'vitest'
import { startRedis } from '../kit/redis.ts'
import { randomOf, runSchedule } from './schedule.ts'

const schedules = Number(process.env['SOAK_SCHEDULES'] ?? 8)
const seed = Number(process.env['SOAK_SEED'] ?? Date.now() % 1_000_000)

test(
  `${schedules} random schedules of faults and revocations un-revoke nothing and converge`,
  async () => {
    console.info(`seed ${seed}: repeat with SOAK_SEED=${seed} SOAK_SCHEDULES=${schedules}`)
    await using redis = await startRedis()
    const seen = new Map<string, number>()
    let applied = 0
    for (let n = 0; n < schedules; n++) {
      const report = await runSchedule(redis, {
        random: randomOf(seed + n),
        trustDomain: `soak-${seed + n}`,
      })
      applied += report.applied
      for (const step of report.steps) seen.set(step, (seen.get(step) ?? 0) + 1)
    }
    console.info(
      `${applied} subjects came into force; steps: ${JSON.stringify(Object.fromEntries(seen))}`,
    )
    expect(applied).toBeGreaterThan(0)
  },
  60_000 + schedules * 30_000,
)
