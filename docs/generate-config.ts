import { writeFileSync } from 'node:fs'
import { byteSizePattern } from '../config/byte-size.ts'
import { durationPattern } from '../config/duration.ts'
import { configJsonSchema } from '../config/json-schema.ts'
import { intro, meanings, notes, outro } from './config-texts.ts'

/** The text of docs/config.md. `node docs/generate-config.ts` writes it. */
export function configPage(): string {
  const settings = readSettings()
  const sections = [...new Set(settings.map(sectionOf))]
  const parts = sections.map((section) => renderSection(section, settings))
  return [intro, ...parts, outro].join('\n')
}

/** One setting of `chaperone.yaml`. `path` is `limits.maxMcpBytes`; `[]` stands for each entry of a list. */
export interface Setting {
  readonly path: string
  readonly kind: string
  readonly fallback: string
  readonly bounds: string
  readonly meaning: string
}

/** Every setting that holds a value, in the order of the schema; those of several forms once. */
export function readSettings(): readonly Setting[] {
  const byPath = new Map<string, Setting>()
  for (const setting of walk(configJsonSchema(), { path: '', presence: 'required' })) {
    const other = byPath.get(setting.path)
    const kinds = new Set([...(other?.kind.split(', ') ?? []), ...setting.kind.split(', ')])
    byPath.set(setting.path, { ...setting, kind: [...kinds].join(', ') })
  }
  return [...byPath.values()]
}

type Presence = 'required' | 'required in its form' | 'optional'

interface Place {
  readonly path: string
  readonly presence: Presence
}

type Node = Readonly<Record<string, unknown>>

function walk(schema: object, { path, presence }: Place): readonly Setting[] {
  const node: Node = { ...schema }
  const forms = formsOf(node)
  if (forms.some((form) => 'properties' in form)) {
    return forms.flatMap((form) => walkMembers(form, { path, forms }))
  }
  if ('properties' in node) return walkMembers(node, { path, forms: [node] })
  const items = node['items']
  if (isNode(items) && (formsOf(items).length > 0 || 'properties' in items)) {
    return walk(items, { path: `${path}[]`, presence })
  }
  return [toSetting(node, { path, presence })]
}

function walkMembers(
  form: Node,
  { path, forms }: { readonly path: string; readonly forms: readonly Node[] },
): readonly Setting[] {
  return Object.entries(nodeOf(form['properties'])).flatMap(([name, member]) => {
    const everywhere = forms.every((one) => isRequired(one, name))
    const presence = everywhere
      ? 'required'
      : isRequired(form, name)
        ? 'required in its form'
        : 'optional'
    return walk(nodeOf(member), { path: path === '' ? name : `${path}.${name}`, presence })
  })
}

function toSetting(node: Node, { path, presence }: Place): Setting {
  const text = typeof node['description'] === 'string' ? node['description'] : ''
  const [, said = text, low = '', high = ''] =
    /^(.*?)From (\S+(?: \w+)?) to (\S+(?: \w+)?)\.$/.exec(text) ?? []
  const meaning = said.trim() || meanings[path]
  if (meaning === undefined) throw new TypeError(`Expected a meaning of ${path}`)
  const fallback = node['default']
  return {
    path,
    kind: kindOf(node),
    fallback:
      fallback === undefined ? presence : code(JSON.stringify(fallback).replaceAll('"', '')),
    bounds: low === '' ? '' : `${readable(low)} to ${readable(high)}`,
    meaning: /[.]$/.test(meaning) ? meaning : `${meaning}.`,
  }
}

function kindOf(node: Node): string {
  if ('const' in node) return code(String(node['const']))
  const choices = node['enum']
  if (Array.isArray(choices)) return choices.map((one) => code(String(one))).join(', ')
  const { pattern } = node
  if (pattern === durationPattern.source) return 'duration'
  if (pattern === byteSizePattern.source) return 'size'
  if (node['type'] === 'integer' || node['type'] === 'number') return 'number'
  if (node['type'] === 'boolean') return 'true or false'
  return node['type'] === 'array' ? 'list of text' : 'text'
}

function readable(bound: string): string {
  const [amount = '', unit = ''] = bound.split(' ')
  const steps = unit === 'ms' ? durationSteps : unit === 'bytes' ? sizeSteps : []
  const value = Number(amount)
  const step = steps.find(([, size]) => value >= size && value % size === 0)
  return step ? `${value / step[1]}${step[0]}` : `${amount}${unit === 'ms' ? 'ms' : ''}`
}

const durationSteps = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const
const sizeSteps = [
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
] as const

function renderSection(section: string, settings: readonly Setting[]): string {
  const rows = settings
    .filter((setting) => sectionOf(setting) === section)
    .map(
      ({ path, kind, fallback, bounds, meaning }) =>
        `| ${code(path)} | ${kind} | ${fallback} | ${bounds} | ${meaning} |`,
    )
  const title = section === '' ? 'Top level' : code(section)
  const note = notes[section]
  return [
    `## ${title}`,
    '',
    ...(note === undefined ? [] : [note, '']),
    '| Setting | Kind | Default | Bound | Meaning |',
    '| --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n')
}

function sectionOf({ path }: Setting): string {
  return /^(\w+)[.[]/.exec(path)?.[1] ?? ''
}

function formsOf(node: Node): readonly Node[] {
  const forms = node['anyOf'] ?? node['oneOf']
  return Array.isArray(forms) ? forms.filter(isNode) : []
}

function isRequired(node: Node, name: string): boolean {
  const required = node['required']
  return Array.isArray(required) && required.includes(name)
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function nodeOf(value: unknown): Node {
  return isNode(value) ? value : {}
}

function code(text: string): string {
  return `\`${text}\``
}

if (import.meta.main) writeFileSync(new URL('config.md', import.meta.url), configPage())
