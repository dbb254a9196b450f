import { describe, expect, test } from 'vitest'
import { annotationStart, clausesOf, onOneLine, policyOfClause } from '../../policy/clauses.ts'

const partsOf = (text: string): readonly string[] =>
  clausesOf(text).map((clause) => `${clause.part}: ${onOneLine(clause)}`)

describe('clausesOf()', () => {
  test('leaves out what is always true of a scope', () => {
    expect(partsOf('permit (principal, action, resource);')).toEqual([])
  })

  test('keeps each constraint of a scope, whatever its brackets and quotes hold', () => {
    const text =
      '@permit("(a, b") forbid (principal in A::"x, (", action in [B::"y", B::"z"], resource is C);'
    expect(partsOf(text)).toEqual([
      'principal: principal in A::"x, ("',
      'action: action in [B::"y", B::"z"]',
      'resource: resource is C',
    ])
  })

  test.each([
    ['when { a && (b && c) }', ['when: a', 'when: b', 'when: c']],
    ['when { a && (b || c) }', ['when: a', 'when: b || c']],
    ['when { a || b && c }', ['when: a || b && c']],
    ['when { (a && b) && if c then d else e && f }', ['when: (a && b) && if c then d else e && f']],
    ['when { !(a && b) }', ['when: !(a && b)']],
    ['when { a } when { b } unless { c }', ['when: a', 'when: b', 'unless: c']],
    ['unless { a || (b || c) }', ['unless: a', 'unless: b', 'unless: c']],
    ['unless { a && b || c }', ['unless: a && b', 'unless: c']],
    ['when { "a && b" == c && // d && e\n f }', ['when: "a && b" == c', 'when: f']],
  ])('splits %s', (conditions, parts) => {
    expect(partsOf(`permit (principal, action, resource) ${conditions};`)).toEqual(parts)
  })

  test('says where each stands, and makes a policy of each', () => {
    const text =
      'permit (principal, action == A::"x", resource) when { a // note\n && b } unless { c };'
    expect(
      clausesOf(text).map(({ start, text: clause }) => text.slice(start, start + clause.length)),
    ).toEqual(['action == A::"x"', 'a', 'b', 'c'])
    expect(clausesOf(text).map(policyOfClause)).toEqual([
      'permit (principal, action == A::"x", resource);',
      'permit (principal, action, resource) when { a };',
      'permit (principal, action, resource) when { b };',
      'permit (principal, action, resource) unless { c };',
    ])
  })
})

describe('annotationStart()', () => {
  test('finds the annotation and not a text that looks like one', () => {
    const text = '@id("@mode") @mode("shadow") permit (principal, action, resource);'
    expect(annotationStart(text, 'mode')).toBe(13)
  })
})
