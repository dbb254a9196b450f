/**
 * Small numbers (ids) by a 32-bit hash, in 12 bytes each and outside the heap. Linear hashing: every id that is added
 * splits one bucket, so that no insertion waits for a whole table to be built anew. Equal hashes are for the caller to
 * tell apart.
 */
export class HashIndex {
  /** Bucket to the first of its ids, and id to the next: plus one, so that 0 says none. */
  #heads = new Uint32Array(8)
  #next = new Uint32Array(8)
  #hashes = new Uint32Array(8)
  #buckets = 1
  #mask = 0
  #size = 0

  add(id: number, hash: number): void {
    if (id >= this.#next.length) {
      this.#next = grown(this.#next, id)
      this.#hashes = grown(this.#hashes, id)
    }
    this.#hashes[id] = hash
    this.#push(this.#bucketOf(hash), id)
    if (++this.#size > this.#buckets) this.#split()
  }

  /** False when it was not there. */
  delete(id: number): boolean {
    const bucket = this.#bucketOf(this.#hashes[id] ?? 0)
    let before = 0
    for (let at = this.#heads[bucket] ?? 0; at !== 0; at = this.#next[at - 1] ?? 0) {
      if (at - 1 !== id) {
        before = at
        continue
      }
      const after = this.#next[id] ?? 0
      if (before === 0) this.#heads[bucket] = after
      else this.#next[before - 1] = after
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
    return this.#seek(this.#next[id] ?? 0, this.#hashes[id] ?? 0)
  }

  #seek(from: number, hash: number): number | undefined {
    for (let at = from; at !== 0; at = this.#next[at - 1] ?? 0) {
      if (this.#hashes[at - 1] === hash) return at - 1
    }
    return undefined
  }

  #bucketOf(hash: number): number {
    const bucket = hash & this.#mask
    return bucket < this.#buckets ? bucket : bucket & (this.#mask >>> 1)
  }

  #push(bucket: number, id: number): void {
    this.#next[id] = this.#heads[bucket] ?? 0
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
      const after = this.#next[at - 1] ?? 0
      this.#push(this.#bucketOf(this.#hashes[at - 1] ?? 0), at - 1)
      at = after
    }
  }
}

/** FNV-1a over UTF-16 units, its bits mixed once more. No secret in it: who may write records may refuse service anyway. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  return (hash ^ (hash >>> 13)) >>> 0
}

/** The same numbers with room for this index, at least twice as many as before. */
export function grown<T extends Uint32Array | Float64Array>(old: T, index: number): T
export function grown(old: Uint32Array | Float64Array, index: number): Uint32Array | Float64Array {
  const length = Math.max(old.length * 2, index + 1)
  const next = old instanceof Float64Array ? new Float64Array(length) : new Uint32Array(length)
  next.set(old)
  return next
}
