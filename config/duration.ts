/** Reads `250ms`, `30s`, `5m`, `8h`, `1d` as milliseconds; undefined when the text is anything else. */
export function parseDuration(text: string): number | undefined {
  const match = durationPattern.exec(text)
  if (!match) return undefined
  const [, digits, unit] = match
  return Number(digits) * (unitMs.get(unit ?? '') ?? Number.NaN)
}

export const durationPattern: RegExp = /^(\d{1,9})(ms|s|m|h|d)$/

const unitMs: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
])
