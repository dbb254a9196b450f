import { grown } from './hash-index.ts'

/** Ids by when they expire, the earliest first: a binary heap in 4 bytes each. */
export class ExpiryHeap {
  #ids = new Int32Array(8)
  #size = 0
  readonly #timeOf: (id: number) => number

  constructor(timeOf: (id: number) => number) {
    this.#timeOf = timeOf
  }

  push(id: number): void {
    if (this.#size >= this.#ids.length) this.#ids = grown(this.#ids, this.#size)
    const timeMs = this.#timeOf(id)
    let at = this.#size++
    while (at > 0) {
      const up = (at - 1) >>> 1
      if (this.#timeAt(up) <= timeMs) break
      this.#ids[at] = this.#ids[up] ?? 0
      at = up
    }
    this.#ids[at] = id
  }

  /** Takes out the earliest; undefined when none is over at `nowMs`. */
  popUntil(nowMs: number): number | undefined {
    const earliest = this.#ids[0]
    if (this.#size === 0 || this.#timeAt(0) > nowMs) return undefined
    const moved = this.#ids[--this.#size] ?? 0
    const timeMs = this.#timeOf(moved)
    let at = 0
    for (;;) {
      const left = 2 * at + 1
      const child = this.#timeAt(left + 1) < this.#timeAt(left) ? left + 1 : left
      if (this.#timeAt(child) >= timeMs) break
      this.#ids[at] = this.#ids[child] ?? 0
      at = child
    }
    this.#ids[at] = moved
    return earliest
  }

  #timeAt(at: number): number {
    return at < this.#size ? this.#timeOf(this.#ids[at] ?? 0) : Infinity
  }
}
