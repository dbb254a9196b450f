import canonicalize from 'canonicalize'

/**
 * The RFC 8785 form of plain data. Every request seals two records, so the usual shapes are written here, at a third of
 * the library's price; whatever is not plain is left to the library. A test holds both to the same text. Throws when
 * there is no canonical form: half a surrogate pair, a number that is not finite.
 */
export function canonicalText(value: unknown): string {
  const text = textOf(value, 0) ?? canonicalize(value)
  if (text === undefined) throw new TypeError('The value has no canonical JSON form')
  return text
}

/** The members that sort before this name, each with a comma after it, and those that sort after. */
export function splitText(
  record: Readonly<Record<string, unknown>>,
  at: string,
): readonly [before: string, after: string] {
  let before = ''
  let after = ''
  for (const name of sortedNames(record)) {
    const value = record[name]
    if (value === undefined) continue
    const member = `${nameText(name) ?? `${canonicalText(name)}:`}${canonicalText(value)}`
    if (name < at) before += `${member},`
    if (name > at) after += after === '' ? member : `,${member}`
  }
  return [before, after]
}

/** Deeper than any record. A cycle ends here too: the library names it. */
const maxDepth = 16

/** The texts of what is frozen all the way down: who asks and for which task is the same in many records. */
const texts = new WeakMap<object, string>()

/** Names come from a closed set; the bound is for whatever else is put in. */
const names = new Map<string, string>()
const maxNames = 256

/** Text that stands for itself between quotes. */
const plainForm = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/

/** Undefined for what only the library can judge. */
function textOf(value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return stringText(value)
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : undefined
  if (typeof value === 'boolean') return value ? 'true' : 'false'
  if (value === null) return 'null'
  if (typeof value !== 'object' || depth > maxDepth) return undefined
  if (Array.isArray(value)) return arrayText(value, depth)
  return isPlain(value) ? objectText(value, depth) : undefined
}

function stringText(value: string): string | undefined {
  if (plainForm.test(value)) return `"${value}"`
  return value.isWellFormed() ? JSON.stringify(value) : undefined
}

function arrayText(values: readonly unknown[], depth: number): string | undefined {
  let text = ''
  for (const value of values) {
    const item = textOf(value, depth + 1)
    if (item === undefined) return undefined
    text += text === '' ? item : `,${item}`
  }
  return `[${text}]`
}

function objectText(record: Readonly<Record<string, unknown>>, depth: number): string | undefined {
  const known = Object.isFrozen(record) ? texts.get(record) : undefined
  if (known !== undefined) return known
  let text = ''
  for (const name of sortedNames(record)) {
    const quoted = nameText(name)
    const member = textOf(record[name], depth + 1)
    if (quoted === undefined || member === undefined) return undefined
    text += text === '' ? quoted + member : `,${quoted}${member}`
  }
  text = `{${text}}`
  if (isFrozenWhole(record)) texts.set(record, text)
  return text
}

function isFrozenWhole(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  return Object.isFrozen(value) && Object.values(value).every(isFrozenWhole)
}

function nameText(name: string): string | undefined {
  const known = names.get(name)
  if (known !== undefined) return known
  const quoted = stringText(name)
  if (quoted === undefined) return undefined
  if (names.size < maxNames) names.set(name, `${quoted}:`)
  return `${quoted}:`
}

/** By UTF-16 code units. Records are built in order where that is easy: then there is nothing to sort. */
function sortedNames(record: object): readonly string[] {
  const found = Object.keys(record)
  let last = ''
  for (const name of found) {
    if (name < last) return found.toSorted()
    last = name
  }
  return found
}

function isPlain(value: object): value is Readonly<Record<string, unknown>> {
  return Object.getPrototypeOf(value) === Object.prototype && !('toJSON' in value)
}
