/** Text as Cedar writes it. What a terminal or a reader could mistake is written by its number. */
export function quoted(text: string): string {
  const escaped = text.replaceAll(/["\\\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    character === '"' || character === '\\'
      ? `\\${character}`
      : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )
  return `"${escaped}"`
}

/** The schema with more text behind this line of it. The line must stand in it once. */
export function insertBehind(
  schema: string,
  { line, text }: { readonly line: string; readonly text: string },
): string {
  if (schema.split(line).length !== 2) throw new TypeError(`The schema has no one line "${line}"`)
  return schema.replace(line, () => `${line}${text}`)
}
