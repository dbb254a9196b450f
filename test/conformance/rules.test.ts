import { describe, expect, test } from 'vitest'
import { startRelay } from '../kit/relay.ts'
import { probes } from './probes.ts'

describe('The rules of the wire', () => {
  test.each(probes.map((probe) => [`rule ${probe.rule}: ${probe.title}`, probe] as const))(
    '%s',
    async (_, probe) => {
      await using relay = await startRelay({ gated: true })
      expect(await probe.run({ ...relay, deadlineMs: 8_000 })).toBe(true)
    },
  )
})
