/** The one of `names` that `name` is probably a slip of, or undefined when none is near. */
export function nearestName(name: string, names: readonly string[]): string | undefined {
  const folded = fold(name)
  let best: string | undefined
  let bestDistance = Math.max(1, Math.floor(Math.min(folded.length, maxChars) / 3)) + 1
  for (const candidate of names) {
    const distance = editDistance(folded, fold(candidate))
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** The distance is quadratic: longer names are cut. */
const maxChars = 64

/** `clock_skew`, `clock-skew` and `clockSkew` are one name to whoever typed it. */
function fold(name: string): string {
  return name.slice(0, maxChars).toLowerCase().replace(/[-_]/g, '')
}

/** Levenshtein distance, one row at a time. */
function editDistance(from: string, to: string): number {
  let previous = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let row = 1; row <= from.length; row++) {
    const current = [row]
    for (let column = 1; column <= to.length; column++) {
      const replaced = at(previous, column - 1) + (from[row - 1] === to[column - 1] ? 0 : 1)
      current.push(Math.min(replaced, at(previous, column) + 1, at(current, column - 1) + 1))
    }
    previous = current
  }
  return at(previous, to.length)
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY
}
