/**
 * Small numbers (ids) by a hash of 32 bits, in 12 bytes each and outside the heap. Linear hashing: every id that is added
 * splits one bucket, so that no insertion waits for a whole table to be built anew. Equal hashes are for the caller to
 * tell apart.
 */
export class HashIndex {
  /** Bucket to the first of its ids, plus one: 0 says none. */
  #heads = new Int32Array(8)
  /** Of each id the next one, plus one, and its hash: side by side, because they are read together. */
  #links = new Int32Array(16)
  #buckets = 1
  #mask = 0
  #size = 0

  add(id: number, hash: number): void {
    if (2 * id + 1 >= this.#links.length) this.#links = grown(this.#links, 2 * id + 1)
    this.#links[2 * id + 1] = hash
    this.#push(this.#bucketOf(hash), id)
    if (++this.#size > this.#buckets) this.#split()
  }

  /** False when it was not there. */
  delete(id: number): boolean {
    const bucket = this.#bucketOf(this.#hashOf(id))
    let before = 0
    for (let at = this.#heads[bucket] ?? 0; at !== 0; at = this.#nextOf(at - 1)) {
      if (at - 1 !== id) {
        before = at
        continue
      }
      const after = this.#nextOf(id)
      if (before === 0) this.#heads[bucket] = after
      else this.#links[2 * before - 2] = after
      this.#size--
      return true
    }
    return false
  }

  /** The first id of this hash; undefined: there is none. */
  first(hash: number): number | undefined {
    return this.#seek(this.#heads[this.#bucketOf(hash)] ?? 0, hash)
  }

  /** The next id of the same hash. */
  after(id: number): number | undefined {
    return this.#seek(this.#nextOf(id), this.#hashOf(id))
  }

  #seek(from: number, hash: number): number | undefined {
    for (let at = from; at !== 0; at = this.#nextOf(at - 1)) {
      if (this.#hashOf(at - 1) === hash) return at - 1
    }
    return undefined
  }

  #nextOf(id: number): number {
    return this.#links[2 * id] ?? 0
  }

  #hashOf(id: number): number {
    return this.#links[2 * id + 1] ?? 0
  }

  #bucketOf(hash: number): number {
    const bucket = hash & this.#mask
    return bucket < this.#buckets ? bucket : bucket & (this.#mask >>> 1)
  }

  #push(bucket: number, id: number): void {
    this.#links[2 * id] = this.#heads[bucket] ?? 0
    this.#heads[bucket] = id + 1
  }

  #split(): void {
    const to = this.#buckets++
    if (to > this.#mask) this.#mask = this.#mask * 2 + 1
    if (to >= this.#heads.length) this.#heads = grown(this.#heads, to)
    const from = to & (this.#mask >>> 1)
    let at = this.#heads[from] ?? 0
    this.#heads[from] = 0
    while (at !== 0) {
      const after = this.#nextOf(at - 1)
      this.#push(this.#bucketOf(this.#hashOf(at - 1)), at - 1)
      at = after
    }
  }
}

/** FNV-1a over UTF-16 units, its bits mixed once more. No secret in it: who may write records may refuse service anyway. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  return hash ^ (hash >>> 13)
}

/** The same numbers with room for this index, at least twice as many as before. */
export function grown(old: Int32Array, index: number): Int32Array<ArrayBuffer> {
  const next = new Int32Array(Math.max(old.length * 2, index + 1))
  next.set(old)
  return next
}
