/** Runs every probe against every proxy at hand and writes the matrix in docs/conformance.md. */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Probe } from './probe.ts'
import { probes } from './probes.ts'
import { contenders, nodeVersion, replaceBetween, type Contender } from './subjects.ts'

const path = fileURLToPath(new URL('../../docs/conformance.md', import.meta.url))
/** What has not happened by then does not happen: a rule that is not kept costs this long. */
const deadlineMs = 3_000

const all = contenders()
const lines: string[] = []
for (const probe of probes) {
  const verdicts = await Promise.all(all.map((contender) => verdictOf(probe, contender)))
  lines.push(`| ${probe.rule} | ${textOf(probe.title)} | ${verdicts.join(' | ')} |`)
}
const names = all.map(({ name, version }) => `${name} ${version}`.trim())
const text = [
  `Node ${nodeVersion}, ${probes.length} probes.`,
  '',
  `| Rule | Probe | ${names.join(' | ')} |`,
  `| ---: | --- | ${names.map(() => '---').join(' | ')} |`,
  ...lines,
].join('\n')
await writeFile(
  path,
  replaceBetween(path, { begin: '<!-- matrix:begin -->', end: '<!-- matrix:end -->', text }),
)
process.exit(0)

async function verdictOf(probe: Probe, contender: Contender): Promise<string> {
  const subject = await contender.start({ deadlineMs })
  try {
    const isKept = await probe.run(subject).catch(() => false)
    if (subject.hasEnded()) return '**no**, it ends'
    return isKept ? 'yes' : '**no**'
  } finally {
    await subject[Symbol.asyncDispose]()
  }
}

function textOf(title: string): string {
  return title.replaceAll('|', '\\|').replaceAll('\\\\', '\\')
}
