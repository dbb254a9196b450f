/** Reads `512`, `16KiB`, `1MiB`, `2GiB` as bytes; undefined when the text is anything else. */
export function parseByteSize(text: string): number | undefined {
  const match = byteSizePattern.exec(text)
  if (!match) return undefined
  const [, digits, unit] = match
  return Number(digits) * (unitBytes.get(unit ?? '') ?? 1)
}

export const byteSizePattern: RegExp = /^(\d{1,12})(KiB|MiB|GiB)?$/

const unitBytes: ReadonlyMap<string, number> = new Map([
  ['KiB', 1024],
  ['MiB', 1024 ** 2],
  ['GiB', 1024 ** 3],
])
