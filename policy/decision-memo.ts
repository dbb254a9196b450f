import type { Agent, Decision, GrantChain, Operation, Upstream } from './types.ts'

/** Everything that a policy answer depends on, besides the policies themselves. */
export interface MemoSubject {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly operation: Operation
  readonly upstream: Upstream
  /** Epoch milliseconds. Policies see whole seconds. */
  readonly nowMs: number
}

/** In one second; then all is forgotten. An agent that asks for ever new paths gains nothing. */
const maxEntries = 4096
const maxPathLength = 256

/**
 * Remembers what the policies of one engine answered within the current second. Sound by construction: the cell is the
 * identity of the agent, chain and upstream (immutable: a changed one is another object), and the key is all of the rest
 * that enters the request. Revocation, age, expiry and grants are not policies and are asked every time.
 */
export class DecisionMemo {
  #second = Number.NaN
  #entries = 0
  readonly #cells = new Map<GrantChain, Cell[]>()

  find(subject: MemoSubject): Decision | undefined {
    const key = keyOf(subject.operation)
    if (key === undefined || this.#second !== secondOf(subject.nowMs)) return undefined
    return this.#cell(subject)?.decisions.get(key)
  }

  keep(subject: MemoSubject, decision: Decision): void {
    const key = keyOf(subject.operation)
    const second = secondOf(subject.nowMs)
    if (key === undefined || !Number.isFinite(second)) return
    if (this.#second !== second || this.#entries >= maxEntries) {
      this.#cells.clear()
      this.#entries = 0
      this.#second = second
    }
    let cell = this.#cell(subject)
    if (!cell) {
      const { agent, chain, upstream } = subject
      cell = { agent, upstream, decisions: new Map() }
      this.#cells.set(chain, [...(this.#cells.get(chain) ?? []), cell])
    }
    cell.decisions.set(key, decision)
    this.#entries += 1
  }

  #cell({ agent, chain, upstream }: MemoSubject): Cell | undefined {
    return this.#cells
      .get(chain)
      ?.find((cell) => cell.agent === agent && cell.upstream === upstream)
  }
}

interface Cell {
  readonly agent: Agent
  readonly upstream: Upstream
  readonly decisions: Map<string, Decision>
}

function secondOf(nowMs: number): number {
  return Math.floor(nowMs / 1000)
}

/** Undefined for what is not kept: tool calls differ in their arguments, and long paths rarely come again. */
function keyOf(operation: Operation): string | undefined {
  const { kind, method, path, hasQuery } = operation
  if (path.length > maxPathLength) return undefined
  if (kind !== 'mcp') return `${kind} ${method} ${hasQuery ? '?' : '-'} ${path}`
  const { message } = operation
  if (message.type === 'tools/call') return undefined
  const asked = message.type === 'response' ? '' : message.method
  return `mcp ${message.type} ${asked.length} ${asked} ${hasQuery ? '?' : '-'} ${path}`
}
