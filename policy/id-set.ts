import { grown } from './hash-index.ts'

/** A set of small numbers, one bit each. */
export class IdSet {
  #words = new Int32Array(2)
  #size = 0

  get size(): number {
    return this.#size
  }

  has(id: number): boolean {
    return ((this.#words[id >>> 5] ?? 0) & bitOf(id)) !== 0
  }

  add(id: number): void {
    if (this.has(id)) return
    const at = id >>> 5
    if (at >= this.#words.length) this.#words = grown(this.#words, at)
    this.#words[at] = (this.#words[at] ?? 0) | bitOf(id)
    this.#size++
  }

  /** False when it was not there. */
  delete(id: number): boolean {
    if (!this.has(id)) return false
    const at = id >>> 5
    this.#words[at] = (this.#words[at] ?? 0) & ~bitOf(id)
    this.#size--
    return true
  }

  copy(): IdSet {
    const copy = new IdSet()
    copy.#words = this.#words.slice()
    copy.#size = this.#size
    return copy
  }

  *[Symbol.iterator](): Generator<number> {
    for (let at = 0; at < this.#words.length; at++) {
      if (this.#words[at] === 0) continue
      for (let id = at * 32; id < at * 32 + 32; id++) if (this.has(id)) yield id
    }
  }
}

function bitOf(id: number): number {
  return 1 << (id & 31)
}
