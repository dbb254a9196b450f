import { grown } from './hash-index.ts'
import type { Revocation, RevocationOp } from './types.ts'

/** What tells two records apart. */
export type RecordKey = Pick<Revocation, 'rid' | 'op' | 'subject' | 'expiresAtMs'>

/**
 * Records as bytes in pages outside the heap, each under a small number: a million take about 100 MB, and no garbage
 * collection walks over them. Numbers are used again; the fewer a page still has, the sooner it is given back.
 */
export class PackedRecords {
  /** Page number in the upper half, offset of the entry in the lower one. */
  #addresses = new Int32Array(8)
  #ids = 0
  readonly #freeIds: number[] = []
  readonly #pages: (Page | undefined)[] = []
  readonly #freePages: number[] = []
  #tail: Page | undefined
  #sequence = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Bytes of the pages. */
  get bytes(): number {
    return (this.#pages.length - this.#freePages.length) * pageBytes
  }

  /** The number of the record. Throws `RangeError` when it does not fit into a page. */
  add(record: Revocation): number {
    const id = this.#freeIds.pop() ?? this.#ids++
    if (id >= this.#addresses.length) this.#addresses = grown(this.#addresses, id)
    this.#write(id, record)
    this.#size++
    return id
  }

  get(id: number): Revocation {
    const [{ bytes }, at] = this.#at(id)
    return readRecord(bytes, at)
  }

  delete(id: number): void {
    const [page] = this.#at(id)
    this.#freeIds.push(id)
    this.#size--
    this.#addresses[id] = nowhere
    page.live--
    this.#vacateWhenSparse(page)
  }

  is(id: number, { rid, op, subject, expiresAtMs }: RecordKey): boolean {
    const [page, at] = this.#at(id)
    return (
      this.hasRid(id, rid) &&
      page.bytes[at + kindAt] === kinds[op] &&
      page.bytes.readDoubleLE(at + expiresAt) === expiresAtMs &&
      this.hasSubject(id, subject)
    )
  }

  hasRid(id: number, rid: string): boolean {
    const [{ bytes }, at] = this.#at(id)
    return bytes[at + ridLengthAt] === rid.length && isText(bytes, { at: at + ridAt, text: rid })
  }

  hasSubject(id: number, subject: string): boolean {
    const [{ bytes }, at] = this.#at(id)
    const from = ridAt + (bytes[at + ridLengthAt] ?? 0)
    const length = bytes.readUInt16LE(at) - from
    return length === subject.length && isText(bytes, { at: at + from, text: subject })
  }

  expiresAtMs(id: number): number {
    const [{ bytes }, at] = this.#at(id)
    return bytes.readDoubleLE(at + expiresAt)
  }

  /** 0: provisional. */
  epoch(id: number): number {
    const [{ bytes }, at] = this.#at(id)
    return bytes.readUIntLE(at + epochAt, 6)
  }

  op(id: number): RevocationOp {
    const [{ bytes }, at] = this.#at(id)
    return opOf(bytes, at)
  }

  /** At most so many, those that were written last; what was moved to give a page back counts as written then. */
  newest(limit: number): readonly Revocation[] {
    const pages = this.#pages.flatMap((page) => page ?? [])
    pages.sort((a, b) => b.sequence - a.sequence)
    const found: Revocation[][] = []
    let count = 0
    for (const page of pages) {
      if (count >= limit) break
      const records = [...this.#liveIn(page)].map((id) => this.get(id))
      found.unshift(records)
      count += records.length
    }
    return found.flat().slice(-limit)
  }

  #at(id: number): readonly [Page, number] {
    const address = this.#addresses[id] ?? nowhere
    const page = this.#pages[address >>> 16]
    if (!page || address === nowhere) throw new RangeError(`no record ${id}`)
    return [page, address & 0xffff]
  }

  #write(id: number, record: Revocation): void {
    const said = formatSaid(record)
    const length = ridAt + record.rid.length + record.subject.length
    const saidLength = textAt + Buffer.byteLength(said)
    if (record.rid.length > 0xff || length + saidLength > pageBytes) {
      throw new RangeError('a revocation is too long')
    }
    const page = this.#pageFor(length + saidLength)
    let offset = page.said.get(said)
    if (offset === undefined) {
      offset = page.used
      writeText(said, { page, length: saidLength })
      page.said.set(said, offset)
    }
    this.#addresses[id] = addressOf(page.number, page.used)
    writeRecord(record, { page, id, length, said: offset })
    page.added++
    page.live++
  }

  #pageFor(length: number): Page {
    const full = this.#tail
    if (full && full.used + length <= full.bytes.length) return full
    const page: Page = {
      number: this.#freePages.pop() ?? this.#pages.length,
      sequence: this.#sequence++,
      // The first are small: most sets are.
      bytes: Buffer.alloc(Math.max(length, Math.min(pageBytes, 1024 * 2 ** this.#sequence))),
      said: new Map(),
      used: 0,
      added: 0,
      live: 0,
    }
    this.#pages[page.number] = page
    this.#tail = page
    full?.said.clear()
    if (full) this.#vacateWhenSparse(full)
    // What was moved may have filled the new one.
    return this.#pageFor(length)
  }

  /** Moves what is left of a page that is mostly empty, and gives the page back. */
  #vacateWhenSparse(page: Page): void {
    if (page === this.#tail || page.live * 4 > page.added) return
    const left = [...this.#liveIn(page)].map((id) => ({ id, record: this.get(id) }))
    this.#pages[page.number] = undefined
    this.#freePages.push(page.number)
    for (const { id, record } of left) this.#write(id, record)
  }

  *#liveIn({ bytes, used, number }: Page): Generator<number> {
    for (let at = 0; at < used; at += bytes.readUInt16LE(at)) {
      if (bytes[at + kindAt] === textKind) continue
      const id = bytes.readUInt32LE(at + idAt)
      if (this.#addresses[id] === addressOf(number, at)) yield id
    }
  }
}

interface Page {
  readonly number: number
  readonly sequence: number
  readonly bytes: Buffer
  /** Who said why, to its offset: many records share it. */
  readonly said: Map<string, number>
  used: number
  added: number
  live: number
}

const pageBytes = 65_536
/** No entry begins at the last byte of a page. */
const nowhere = -1

/**
 * An entry: its length (2 bytes), its kind (1), and then a text, or of a record its number (4), where the page says who
 * said why (2), time (6), epoch (6), expiry (8), length of the rid (1), rid, subject.
 */
const kindAt = 2
const textAt = 3
const idAt = 3
const saidAt = 7
const timeAt = 9
const epochAt = 15
const expiresAt = 21
const ridLengthAt = 29
const ridAt = 30

const textKind = 0
const kinds: Readonly<Record<RevocationOp, number>> = { pause: 1, revoke: 2, quarantine: 3 }

function addressOf(page: number, offset: number): number {
  return (page << 16) | offset
}

function opOf(bytes: Buffer, at: number): RevocationOp {
  const kind = bytes[at + kindAt]
  if (kind === kinds.quarantine) return 'quarantine'
  return kind === kinds.pause ? 'pause' : 'revoke'
}

/** The text is ASCII. */
function isText(bytes: Buffer, { at, text }: { readonly at: number; readonly text: string }) {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false
  return true
}

function writeText(
  text: string,
  { page, length }: { readonly page: Page; readonly length: number },
): void {
  page.bytes.writeUInt16LE(length, page.used)
  page.bytes.write(text, page.used + textAt)
  page.used += length
}

function writeRecord(
  { rid, op, subject, atMs, expiresAtMs, epoch = 0 }: Revocation,
  to: { readonly page: Page; readonly id: number; readonly length: number; readonly said: number },
): void {
  const { bytes, used: at } = to.page
  bytes.writeUInt16LE(to.length, at)
  bytes[at + kindAt] = kinds[op]
  bytes.writeUInt32LE(to.id, at + idAt)
  bytes.writeUInt16LE(to.said, at + saidAt)
  bytes.writeUIntLE(atMs, at + timeAt, 6)
  bytes.writeUIntLE(epoch, at + epochAt, 6)
  bytes.writeDoubleLE(expiresAtMs, at + expiresAt)
  bytes[at + ridLengthAt] = rid.length
  bytes.write(rid, at + ridAt, 'latin1')
  bytes.write(subject, at + ridAt + rid.length, 'latin1')
  to.page.used += to.length
}

function readRecord(bytes: Buffer, at: number): Revocation {
  const subjectAt = at + ridAt + (bytes[at + ridLengthAt] ?? 0)
  const said = bytes.readUInt16LE(at + saidAt)
  const text = bytes.toString('utf8', said + textAt, said + bytes.readUInt16LE(said))
  const epoch = bytes.readUIntLE(at + epochAt, 6)
  return {
    rid: bytes.toString('latin1', at + ridAt, subjectAt),
    op: opOf(bytes, at),
    subject: bytes.toString('latin1', subjectAt, at + bytes.readUInt16LE(at)),
    ...parseSaid(text),
    atMs: bytes.readUIntLE(at + timeAt, 6),
    expiresAtMs: bytes.readDoubleLE(at + expiresAt),
    ...(epoch !== 0 && { epoch }),
  }
}

/** The length of `by`, and then both. */
function formatSaid({ by, reason }: Revocation): string {
  return `${by.length} ${by}${reason}`
}

function parseSaid(text: string): Pick<Revocation, 'by' | 'reason'> {
  const from = text.indexOf(' ') + 1
  const to = from + Number(text.slice(0, from))
  return { by: text.slice(from, to), reason: text.slice(to) }
}
