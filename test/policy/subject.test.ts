import { describe, expect, test } from 'vitest'
import { chainSubjects, parseSubject } from '../../policy/subject.ts'
import { grant } from '../kit/decide-input.ts'
import { names } from '../kit/tokens.ts'

describe('chainSubjects()', () => {
  test('names the authority of every link, and the person behind it', () => {
    const onBehalfOf = { iss: 'https://login.example.org', sub: 'dana' }
    const subjects = chainSubjects([grant({ jti: 'root', onBehalfOf }), grant({ jti: 'leaf' })])
    expect(subjects.filter((subject) => subject.startsWith('approver:'))).toEqual([
      `approver:${names.approver}`,
      'approver:https://login.example.org#dana',
    ])
  })

  test('names the authority and the person of every sign-off', () => {
    const signOff = { approver: 'https://a.example.org', subject: 'eve', jti: 's1', domain: 'ops' }
    const subjects = chainSubjects([grant()], [{ ...signOff, expiresAtMs: 1 }])
    expect(subjects).toContain('approver:https://a.example.org')
    expect(subjects).toContain('approver:https://a.example.org#eve')
  })

  test('gives only subjects that a revocation can name', () => {
    const onBehalfOf = { iss: 'https://login.example.org', sub: 'dana' }
    const subjects = chainSubjects([grant({ onBehalfOf })])
    expect(subjects.filter((subject) => parseSubject(subject) === undefined)).toEqual([])
  })
})
