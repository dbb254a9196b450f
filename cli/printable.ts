/** Text of others on one line of a terminal: what could move the cursor or forge a line becomes `?`. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?')
}
