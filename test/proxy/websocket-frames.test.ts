import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { closeFrame, WebSocketFrames } from '../../proxy/websocket-frames.ts'

const frame = fc
  .record({
    first: fc.nat({ max: 255 }),
    isMasked: fc.boolean(),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.constantFrom(125, 126, 127, 65_535, 65_536).map((length) => new Uint8Array(length)),
    ),
  })
  .map(({ first, isMasked, payload }) => encode(first, { isMasked, payload }))

describe('WebSocketFrames', () => {
  test('is at a boundary exactly between frames, however they are cut into chunks', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 6 }),
        fc.infiniteStream(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.nat({ max: 70_000 }))),
        (frames, sizes) => {
          const bytes = Buffer.concat(frames)
          const ends = new Set<number>([0])
          let end = 0
          for (const one of frames) ends.add((end += one.length))
          const tracker = new WebSocketFrames()
          let at = 0
          for (const size of sizes) {
            expect(tracker.atBoundary).toBe(ends.has(at))
            if (at >= bytes.length) break
            const next = Math.min(bytes.length, at + size)
            tracker.push(bytes.subarray(at, next))
            at = next
          }
        },
      ),
    )
  })

  test('is at no boundary after any single byte of a frame but its last', () => {
    for (const isMasked of [false, true])
      for (const length of [0, 1, 125, 126, 65_536]) {
        const bytes = encode(0x82, { isMasked, payload: new Uint8Array(length) })
        const tracker = new WebSocketFrames()
        const boundaries = [...bytes].filter((byte) => {
          tracker.push(Buffer.from([byte]))
          return tracker.atBoundary
        })
        expect([boundaries.length, tracker.atBoundary]).toEqual([1, true])
      }
  })

  test('stays within a frame of the largest length there is', () => {
    const tracker = new WebSocketFrames()
    tracker.push(Buffer.from([0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]))
    tracker.push(Buffer.alloc(1_000_000))
    expect(tracker.atBoundary).toBe(false)
  })
})

describe('closeFrame()', () => {
  test('is one whole unmasked frame with 1008 and the reason', () => {
    const sent = closeFrame('task-terminated')
    expect([...sent.subarray(0, 2)]).toEqual([0x88, 17])
    expect(sent.readUInt16BE(2)).toBe(1008)
    expect(sent.toString('utf8', 4)).toBe('task-terminated')
  })

  test('keeps within the 125 bytes of a control frame', () => {
    expect(closeFrame('x'.repeat(200))).toHaveLength(127)
  })
})

function encode(
  first: number,
  { isMasked, payload }: { readonly isMasked: boolean; readonly payload: Uint8Array },
): Buffer {
  const { length } = payload
  const mask = isMasked ? 0x80 : 0
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8
  const header = Buffer.alloc(2 + extended + (isMasked ? 4 : 0))
  header[0] = first
  header[1] = mask | (extended === 0 ? length : extended === 2 ? 126 : 127)
  if (extended === 2) header.writeUInt16BE(length, 2)
  if (extended === 8) header.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([header, payload])
}
