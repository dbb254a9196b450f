/** What JSON can say. Objects have no prototype: a member name is never a property of ours. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue }

export type JsonObject = Readonly<Record<string, JsonValue>>

export interface StrictJsonLimits {
  readonly maxBytes: number
  /** Containers inside one another: `[]` is 1 deep, `[[]]` is 2. */
  readonly maxDepth: number
  /** Also refuse member names that differ only in case: some parsers take them for one. Default false. */
  readonly foldCase?: boolean
  /** Read an integer beyond 2^53 as the text of its digits: for 64-bit counters. Default false: refused. */
  readonly largeIntegersAsText?: boolean
}

export type StrictJsonResult =
  | { readonly ok: true; readonly value: JsonValue }
  /** `reason` holds no byte of the input. */
  | { readonly ok: false; readonly reason: string }

/**
 * Reads JSON that every other parser reads the same way, and refuses the rest: RFC 8259 leaves duplicate names, lone
 * surrogates, a BOM and large numbers to each parser, and what two parsers read differently passes a check here and
 * means something else there.
 */
export function parseStrictJson(bytes: Uint8Array, limits: StrictJsonLimits): StrictJsonResult {
  if (bytes.byteLength > limits.maxBytes) {
    return { ok: false, reason: `longer than ${limits.maxBytes} bytes` }
  }
  const text = decodeUtf8(bytes)
  if (text === undefined) return { ok: false, reason: 'not UTF-8' }
  try {
    return { ok: true, value: new Reader(text, limits).document() }
  } catch (error) {
    if (error instanceof RefusedJson) return { ok: false, reason: error.message }
    throw error
  }
}

/** Tells an object from the other JSON values. */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    // `ignoreBOM` keeps a BOM in the text, where the reader refuses it.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

class RefusedJson extends Error {}

const quote = 0x22
const comma = 0x2c
const colon = 0x3a
const openBracket = 0x5b
const backslash = 0x5c
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

/** A name that reaches a prototype once somebody else copies the object. */
const prototypeNames: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype'])

/** Recursive descent: `maxDepth` is checked before each descent, so the stack is bounded too. */
class Reader {
  readonly #text: string
  readonly #limits: StrictJsonLimits
  // Sticky expressions carry a position, so they belong to one reader. Both are linear: no alternation under a star.
  readonly #space = /[ \t\n\r]*/y
  readonly #number = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y
  #at = 0
  #depth = 0

  constructor(text: string, limits: StrictJsonLimits) {
    this.#text = text
    this.#limits = limits
  }

  document(): JsonValue {
    this.#skipSpace()
    const value = this.#value()
    this.#skipSpace()
    if (this.#at !== this.#text.length) throw new RefusedJson('more after the value')
    return value
  }

  #value(): JsonValue {
    switch (this.#text.charCodeAt(this.#at)) {
      case openBrace:
        return this.#nested(() => this.#object())
      case openBracket:
        return this.#nested(() => this.#array())
      case quote:
        return this.#string()
      default:
        return this.#scalar()
    }
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > this.#limits.maxDepth) {
      throw new RefusedJson(`nested deeper than ${this.#limits.maxDepth}`)
    }
    this.#at++
    this.#skipSpace()
    const value = read()
    this.#depth--
    return value
  }

  #object(): JsonValue {
    const object: Record<string, JsonValue> = Object.create(null)
    const names = new Set<string>()
    if (this.#take(closeBrace)) return object
    do {
      this.#skipSpace()
      if (this.#text.charCodeAt(this.#at) !== quote) throw new RefusedJson('not JSON')
      const name = this.#string()
      if (prototypeNames.has(name)) throw new RefusedJson('a member is named like a prototype')
      const compared = this.#limits.foldCase === true ? foldCase(name) : name
      if (names.has(compared)) throw new RefusedJson('a member name stands twice')
      names.add(compared)
      this.#skipSpace()
      if (!this.#take(colon)) throw new RefusedJson('not JSON')
      this.#skipSpace()
      object[name] = this.#value()
      this.#skipSpace()
    } while (this.#take(comma))
    if (!this.#take(closeBrace)) throw new RefusedJson('not JSON')
    return object
  }

  #array(): JsonValue {
    const array: JsonValue[] = []
    if (this.#take(closeBracket)) return array
    do {
      this.#skipSpace()
      array.push(this.#value())
      this.#skipSpace()
    } while (this.#take(comma))
    if (!this.#take(closeBracket)) throw new RefusedJson('not JSON')
    return array
  }

  /** Finds where the string ends, then lets `JSON.parse` judge and unescape what stands between. */
  #string(): string {
    const start = this.#at
    let escaped = false
    let end = start + 1
    for (;;) {
      const code = this.#text.charCodeAt(end)
      if (code === quote) break
      if (code === backslash) {
        escaped = true
        end += 2
      } else if (code >= 0x20) {
        end++
      } else {
        // A control character, or NaN: the text ended.
        throw new RefusedJson('not JSON')
      }
    }
    this.#at = end + 1
    const value = escaped
      ? unescape(this.#text.slice(start, end + 1))
      : this.#text.slice(start + 1, end)
    if (!value.isWellFormed()) throw new RefusedJson('a string has a lone surrogate')
    return value
  }

  #scalar(): JsonValue {
    for (const [word, value] of [
      ['true', true],
      ['false', false],
      ['null', null],
    ] as const) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length
        return value
      }
    }
    return this.#numeral()
  }

  #numeral(): number | string {
    this.#number.lastIndex = this.#at
    const match = this.#number.exec(this.#text)
    if (!match) throw new RefusedJson('not JSON')
    const [digits, fraction, exponent] = match
    this.#at += digits.length
    const value = Number(digits)
    if (!Number.isFinite(value)) throw new RefusedJson('a number is not finite')
    if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
      const isPlain = fraction === undefined && exponent === undefined
      if (isPlain && this.#limits.largeIntegersAsText === true) return digits
      throw new RefusedJson('an integer is beyond 2^53')
    }
    return value
  }

  #take(code: number): boolean {
    if (this.#text.charCodeAt(this.#at) !== code) return false
    this.#at++
    return true
  }

  #skipSpace(): void {
    this.#space.lastIndex = this.#at
    this.#space.exec(this.#text)
    this.#at = this.#space.lastIndex
  }
}

function unescape(literal: string): string {
  try {
    const value: unknown = JSON.parse(literal)
    if (typeof value === 'string') return value
  } catch {
    // A bad escape. The engine's message quotes the input, so it goes no further.
  }
  throw new RefusedJson('not JSON')
}

/** Both ways, because the Kelvin sign only folds down and the long s only folds up. */
function foldCase(name: string): string {
  return name.toUpperCase().toLowerCase()
}
