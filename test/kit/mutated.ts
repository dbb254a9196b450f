import * as fc from 'fast-check'

type Edit =
  | { readonly kind: 'insert'; readonly at: number; readonly word: string }
  | { readonly kind: 'drop'; readonly at: number; readonly length: number }
  | { readonly kind: 'repeat'; readonly at: number; readonly length: number }
  | { readonly kind: 'flip'; readonly at: number; readonly bits: number }

/** Positions are shares of the length; at the end of a line, where framing lives, or anywhere. */
const at = fc.double({ min: 0, max: 1, noNaN: true })
function editOf(words: readonly string[]): fc.Arbitrary<Edit> {
  return fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('insert' as const),
        at,
        word: fc.constantFrom(...words),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('drop' as const),
        at,
        length: fc.integer({ min: 1, max: 12 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('repeat' as const),
        at,
        length: fc.integer({ min: 1, max: 40 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('flip' as const),
        at,
        bits: fc.integer({ min: 1, max: 255 }),
      }),
    },
  )
}

/** One of the texts with up to three edits, which insert words, drop, repeat or flip. */
export function mutated<T>(
  bases: readonly T[],
  { words, text }: { readonly words: readonly string[]; readonly text: (base: T) => string },
): fc.Arbitrary<{ readonly base: T; readonly text: string }> {
  return fc
    .record({
      base: fc.constantFrom(...bases),
      edits: fc.array(fc.record({ edit: editOf(words), onLine: fc.boolean() }), {
        minLength: 0,
        maxLength: 3,
      }),
    })
    .map(({ base, edits }) => ({
      base,
      text: edits.reduce((from, { edit: one, onLine }) => apply(from, { one, onLine }), text(base)),
    }))
}

function apply(
  text: string,
  { one, onLine }: { readonly one: Edit; readonly onLine: boolean },
): string {
  const anywhere = Math.floor(one.at * text.length)
  const lineEnd = text.indexOf('\n', anywhere)
  const place = onLine && lineEnd !== -1 ? lineEnd + 1 : anywhere
  const [before, after] = [text.slice(0, place), text.slice(place)]
  switch (one.kind) {
    case 'insert':
      return before + one.word + after
    case 'drop':
      return before + after.slice(one.length)
    case 'repeat':
      return before + after.slice(0, one.length) + after
    case 'flip':
      return before + String.fromCharCode((after.charCodeAt(0) || 0) ^ one.bits) + after.slice(1)
  }
}
