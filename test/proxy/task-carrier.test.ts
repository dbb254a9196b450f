import { describe, expect, test } from 'vitest'
import { taskCarrier } from '../../proxy/task-carrier.ts'

const grant = 'aa.bb.cc'

describe('taskCarrier()', () => {
  test('gives nothing when the request names no task', () => {
    expect(taskCarrier(['Accept', 'Task-Id'], undefined)).toBeUndefined()
  })

  test.each([
    [['TASK-GRANT', grant], undefined, { grant, carrier: 'task-grant' }],
    [['Task-Grant', grant], 't1', { grant, txn: 't1', carrier: 'task-grant' }],
    [
      ['Task-Grant', grant, 'Task-Id', 't1'],
      undefined,
      { grant, txn: 't1', carrier: 'task-grant' },
    ],
    [['task-id', 't1'], undefined, { txn: 't1', carrier: 'task-id' }],
    [['Task-Id', 't1'], 't1', { txn: 't1', carrier: 'task-id' }],
    [[], 't1', { txn: 't1', carrier: 'path' }],
    [
      ['Task-Id', 't1', 'task-grant-chain', `${grant}, dd.ee.ff`],
      undefined,
      { txn: 't1', ancestors: [grant, 'dd.ee.ff'], carrier: 'task-id' },
    ],
  ])('reads %j with path task %s', (rawHeaders, pathTxn, wanted) => {
    expect(taskCarrier(rawHeaders, pathTxn)).toEqual({ ancestors: [], ...wanted })
  })

  test.each([
    [
      ['Task-Grant', grant, 'task-grant', grant],
      undefined,
      'task-conflict',
      'more than one Task-Grant',
    ],
    [['Task-Id', 't1', 'task-id', 't1'], undefined, 'task-conflict', 'more than one Task-Id'],
    [['Task-Id', 't1'], 't2', 'task-conflict', 'different tasks'],
    [['Task-Grant', grant, 'Task-Id', 't1'], 't2', 'task-conflict', 'different tasks'],
    [['Task-Grant', ''], undefined, 'task-grant-invalid', 'compact JWS'],
    [['Task-Grant', 'aa.bb'], 't1', 'task-grant-invalid', 'compact JWS'],
    [['Task-Grant', `${grant}, ${grant}`], undefined, 'task-grant-invalid', 'compact JWS'],
    [['Task-Grant', `aa.bb.${'c'.repeat(8192)}`], undefined, 'task-grant-invalid', 'compact JWS'],
    [
      ['Task-Grant-Chain', grant, 'Task-Grant-Chain', grant],
      't1',
      'task-conflict',
      'more than one Task-Grant-Chain',
    ],
    [['Task-Grant-Chain', ''], 't1', 'task-grant-invalid', '1 to 3 compact JWSs'],
    [['Task-Grant-Chain', `${grant},`], 't1', 'task-grant-invalid', '1 to 3 compact JWSs'],
    [
      ['Task-Grant-Chain', [grant, grant, grant, grant].join()],
      't1',
      'task-grant-invalid',
      '1 to 3 compact JWSs',
    ],
    [['Task-Id', ''], undefined, 'request-refused', 'malformed'],
    [['Task-Id', '..'], undefined, 'request-refused', 'malformed'],
    [['Task-Id', 't1, t2'], undefined, 'request-refused', 'malformed'],
    [['Task-Id', 'a'.repeat(129)], undefined, 'request-refused', 'malformed'],
  ])('refuses %j with path task %s as %s', (rawHeaders, pathTxn, code, detail) => {
    expect(taskCarrier(rawHeaders, pathTxn)).toMatchObject({
      code,
      detail: expect.stringContaining(detail),
    })
  })
})
