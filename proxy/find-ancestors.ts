import { deny, isDenial } from '../policy/denial.ts'
import type { Denial, Grant, GrantChain } from '../policy/types.ts'

/** Where compact grants of ancestors come from. None is trusted: what counts is the digest that the child has signed. */
export interface AncestorSources {
  /** What the request brought. Each must be an ancestor. */
  readonly presented: readonly string[]
  /** The grant of a task, for the ancestors that the request did not bring. */
  readonly stored: (txn: string) => Promise<string | Denial>
}

type Verify = (compact: string) => Promise<GrantChain | Denial>

/** The verified grants above this one, root first. That they fit together is for `linkGrants()` to say. */
export async function findAncestors(
  { parent }: Grant,
  { presented, stored, verify }: AncestorSources & { readonly verify: Verify },
): Promise<readonly Grant[] | Denial> {
  const ancestors = parent?.ancestors ?? []
  const brought = new Map<string, Grant>()
  for (const one of await Promise.all(presented.map(verify))) {
    if (isDenial(one)) return deny(one.code, `Task-Grant-Chain: ${one.detail}`)
    brought.set(one.leaf.jti, one.leaf)
  }
  for (const { jti, txn } of brought.values()) {
    if (!ancestors.some((ancestor) => ancestor.jti === jti && ancestor.txn === txn)) {
      return deny('task-conflict', 'Task-Grant-Chain: a grant in it is no ancestor of the task')
    }
  }
  const found = await Promise.all(
    ancestors.map(
      async ({ jti, txn }) => brought.get(jti) ?? (await verifyStored(txn, { stored, verify })),
    ),
  )
  const above: Grant[] = []
  for (const [index, one] of found.entries()) {
    if (isDenial(one)) return deny(one.code, `ancestor ${index + 1}: ${one.detail}`)
    above.push(one)
  }
  return above
}

async function verifyStored(
  txn: string,
  { stored, verify }: Pick<AncestorSources, 'stored'> & { readonly verify: Verify },
): Promise<Grant | Denial> {
  const compact = await stored(txn)
  if (typeof compact !== 'string') return compact
  const one = await verify(compact)
  return isDenial(one) ? one : one.leaf
}
