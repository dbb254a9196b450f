import * as v from 'valibot'
import { placeFinding } from '../config/place-finding.ts'
import type { ConfigProblem } from '../config/problem.ts'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import { validateValue } from '../config/validate.ts'
import { parseYaml } from '../config/yaml-source.ts'
import type { AskedOperation, PolicyCase } from '../policy/policy-case.ts'
import { parseSpiffeId } from '../policy/spiffe-id.ts'
import { sensitivities, type ArgumentValue } from '../policy/types.ts'

export type CaseFileResult =
  | { readonly ok: true; readonly cases: readonly PolicyCase[] }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] }

/** Reads a `*.test.yaml`. Everything that a case leaves out comes from `defaults`, then from here. */
export function readCaseFile(file: string): CaseFileResult {
  const text = readText(file)
  if (typeof text !== 'string') return { ok: false, problems: [text] }
  const yaml = parseYaml(text)
  if (!yaml.ok) {
    return { ok: false, problems: yaml.problems.map((problem) => ({ file, path: '', ...problem })) }
  }
  const { source } = yaml
  const validated = validateValue(caseFile, source.value)
  if (!validated.ok) {
    const problems = validated.findings.map((finding) => placeFinding(finding, { source, file }))
    return { ok: false, problems }
  }
  const { defaults, cases } = validated.value
  return { ok: true, cases: cases.map((one) => toCase({ ...defaults, ...one })) }
}

const maxFileBytes = 1024 * 1024

function readText(file: string): string | ConfigProblem {
  try {
    return readTextFile(file, { maxBytes: maxFileBytes })
  } catch (error) {
    if (!(error instanceof TextFileError)) throw error
    return { file, line: 1, col: 1, path: '', message: error.message }
  }
}

const text = v.pipe(v.string(), v.minLength(1, 'Expected text that is not empty'))
const sensitivity = v.picklist(sensitivities, `Expected ${sensitivities.join(', ')}`)
const agent = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const id = parseSpiffeId(dataset.value)
    if (id !== undefined) return id
    addIssue({ message: 'Expected the SPIFFE ID of a workload' })
    return NEVER
  }),
)
const subject = {
  agent: v.exactOptional(agent),
  task: v.exactOptional(text),
  purpose: v.exactOptional(text),
  approver: v.exactOptional(text),
  /** Of the task: the highest data that it may touch. */
  sensitivity: v.exactOptional(sensitivity),
  upstream: v.exactOptional(
    v.strictObject({
      name: text,
      kind: v.optional(v.picklist(['rest', 'mcp'], 'Expected rest or mcp'), 'rest'),
      sensitivity: v.optional(sensitivity, 'internal'),
    }),
  ),
  /** RFC 3339. */
  now: v.exactOptional(
    v.pipe(v.string(), v.isoTimestamp('Expected a time such as 2026-01-01T00:00:00Z')),
  ),
}
const scalar = v.union([v.string(), v.number(), v.boolean(), v.null()], 'Expected a scalar')
const oneCase = v.pipe(
  v.strictObject({
    name: text,
    ...subject,
    request: v.exactOptional(
      v.pipe(
        v.string(),
        v.regex(/^([A-Z]+|ws) \/\S*$/, 'Expected a request such as "GET /invoices" or "ws /live"'),
      ),
    ),
    call: v.exactOptional(text),
    /** JSON pointers without their leading slash: `order/id`. */
    args: v.exactOptional(v.record(v.string(), scalar)),
    expect: v.picklist(['allow', 'deny'], 'Expected allow or deny'),
    by: v.exactOptional(text),
  }),
  v.check(
    ({ request, call }) => (request === undefined) !== (call === undefined),
    'Expected either request or call',
  ),
)
const caseFile = v.strictObject({
  defaults: v.optional(v.strictObject(subject), {}),
  cases: v.pipe(v.array(oneCase), v.minLength(1, 'Expected at least one case')),
})

type OneCase = v.InferOutput<typeof oneCase>

function toCase(one: OneCase): PolicyCase {
  const isCall = one.call !== undefined
  return {
    name: one.name,
    agent: one.agent ?? 'spiffe://example.org/agent/test',
    task: one.task ?? 'T-test',
    purpose: one.purpose ?? 'test',
    sensitivity: one.sensitivity ?? 'internal',
    approver: one.approver ?? 'https://approver.example.org',
    upstream: one.upstream ?? {
      name: 'upstream',
      kind: isCall ? 'mcp' : 'rest',
      sensitivity: 'internal',
    },
    asked: operationOf(one),
    nowMs: one.now === undefined ? Date.UTC(2026, 0, 1) : Date.parse(one.now),
    expect: one.expect,
    ...(one.by !== undefined && { by: one.by }),
  }
}

function operationOf({ request = '', call, args = {} }: OneCase): AskedOperation {
  if (call !== undefined) {
    return { kind: 'tool', tool: call, args: new Map<string, ArgumentValue>(Object.entries(args)) }
  }
  const [method = '', target = ''] = request.split(' ')
  const [path = '', query] = target.split('?', 2)
  const at = { path, hasQuery: query !== undefined }
  return method === 'ws'
    ? { kind: 'websocket', method: 'GET', ...at }
    : { kind: 'http', method, ...at }
}
