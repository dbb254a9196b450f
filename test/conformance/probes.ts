import { bodyProbes } from './body-probes.ts'
import { framingProbes } from './framing-probes.ts'
import { headerProbes } from './header-probes.ts'
import type { Probe } from './probe.ts'
import { targetProbes } from './target-probes.ts'
import { upgradeProbes } from './upgrade-probes.ts'

/** Every rule that raw sockets on both sides can show. */
export const probes: readonly Probe[] = [
  ...framingProbes,
  ...headerProbes,
  ...targetProbes,
  ...bodyProbes,
  ...upgradeProbes,
]
