import { rename, rm, writeFile } from 'node:fs/promises'
import { flowKinds } from './flows.ts'
import type { DrillReport } from './report.ts'

export interface DrillResult {
  /** Undefined: the drill could not be carried out. */
  readonly report: DrillReport | undefined
  /** Epoch milliseconds at its end. */
  readonly endedAtMs: number
  readonly durationMs: number
}

/**
 * Writes the result of a drill in the Prometheus text format, whole or not at all: the textfile collector of the node
 * exporter may read at any moment. Readable for everyone, because the collector is another user.
 */
export async function writeMetricsFile(path: string, result: DrillResult): Promise<void> {
  // The collector reads names that end with .prom alone.
  const temporary = `${path}.${process.pid}.tmp`
  try {
    await writeFile(temporary, drillMetrics(result), { mode: 0o644 })
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Names and labels are a public contract (docs/deploy.md). */
export function drillMetrics({ report, endedAtMs, durationMs }: DrillResult): string {
  const families = [
    gauge('chaperone_drill_success', {
      help: '1 when the last drill was within its budget; 0 when it was over it or could not be carried out',
      samples: [['', Number(report?.verdict === 'within-budget')]],
    }),
    gauge('chaperone_drill_last_run_timestamp_seconds', {
      help: 'When the last drill ended',
      samples: [['', endedAtMs / 1000]],
    }),
    gauge('chaperone_drill_duration_seconds', {
      help: 'How long the last drill took as a whole',
      samples: [['', durationMs / 1000]],
    }),
    ...(report ? measured(report) : []),
  ]
  return `${families.join('\n')}\n`
}

function measured({
  canary,
  siblings,
  budget,
  revocation,
  targets,
}: DrillReport): readonly string[] {
  return [
    gauge('chaperone_drill_targets', {
      help: 'Targets of the last drill',
      samples: [['', targets.length]],
    }),
    gauge('chaperone_drill_recorded_seconds', {
      help: 'From sending the revocation until the store had confirmed it',
      samples: [['', revocation.confirmed_ms / 1000]],
    }),
    gauge('chaperone_drill_ended_seconds', {
      help: 'From sending the revocation until each kind of flow had ended on every target; +Inf when one did not',
      samples: flowKinds.map((kind) => {
        const ended = canary.filter((flow) => flow.kind === kind).map((flow) => flow.ended_ms)
        return [`{flow="${kind}"}`, Math.max(...ended.map((ms) => ms ?? Infinity)) / 1000]
      }),
    }),
    gauge('chaperone_drill_budget_seconds', {
      help: 'How long it may take',
      samples: [
        ['{limit="refusal"}', budget.refusal_ms / 1000],
        ['{limit="cut"}', budget.cut_ms / 1000],
      ],
    }),
    gauge('chaperone_drill_harmed_siblings', {
      help: 'Flows of another task that the revocation harmed',
      samples: [['', siblings.filter(({ unharmed }) => !unharmed).length]],
    }),
  ]
}

function gauge(
  name: string,
  {
    help,
    samples,
  }: { readonly help: string; readonly samples: readonly (readonly [string, number])[] },
): string {
  const lines = samples.map(([labels, value]) => `${name}${labels} ${numeral(value)}`)
  return [`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, ...lines].join('\n')
}

function numeral(value: number): string {
  return value === Infinity ? '+Inf' : String(Math.round(value * 1e6) / 1e6)
}
