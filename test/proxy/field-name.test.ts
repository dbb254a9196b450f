import { describe, expect, test } from 'vitest'
import { fieldName } from '../../proxy/field-name.ts'

describe('fieldName()', () => {
  test('gives the same answer when it is asked again, and when thousands of others came between', () => {
    const first = fieldName('X_Api-Key')
    expect(first).toEqual({
      lower: 'x_api-key',
      folded: 'x-api-key',
      isToken: true,
      isOwned: true,
      isHopByHop: false,
      isWithheld: false,
      isCookie: false,
    })
    expect(fieldName('X_Api-Key')).toBe(first)
    for (let n = 0; n < 5_000; n++) fieldName(`x-${n}`)
    expect(fieldName('X_Api-Key')).toEqual(first)
  })

  test.each([
    ['a space', 'x y'],
    ['nothing', ''],
    ['129 characters', 'x'.repeat(129)],
    ['a letter that is not ASCII', 'x-\u212a'],
  ])('says that it is no token when it has %s', (_what, name) => {
    expect(fieldName(name).isToken).toBe(false)
  })

  test.each(['constructor', '__proto__'])('takes %s for a name like any other', (name) => {
    expect(fieldName(name)).toMatchObject({ lower: name, isOwned: false, isHopByHop: false })
  })
})
