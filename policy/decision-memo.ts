import type { Subject } from './cedar-request.ts'
import { uidKey, type Observations, type Observed } from './observe.ts'
import type { PolicySlice } from './policy-slices.ts'
import { argumentsUid, contextOfQuestion, integersUid, type Question } from './question.ts'
import type { Agent, Decision, GrantChain, Upstream } from './types.ts'

/** What one task, at one upstream, was answered about one action. */
export interface MemoCell {
  /** The policies that can have a say in it. */
  readonly slice: PolicySlice
  readonly sight: Sight
  readonly decisions: Map<string, Decision>
}

/** Past these, all is forgotten: an agent that asks for ever new things gains nothing. */
const maxEntries = 4096
const maxCellsPerTask = 64
const maxKeyLength = 512

/** One decision in this many is made again in the plain way, the first one among them. */
const checkEvery = 1024

/**
 * Remembers what the policies of one engine answered. Sound by construction: a cell is the identity of agent, chain and
 * upstream (immutable: a changed one is another object) and the action, which fix the policies that can have a say; the
 * key is what these policies see of the rest. Revocation, age, expiry and grants are not policies and are asked every time.
 */
export class DecisionMemo {
  #entries = 0
  #asked = 0
  #cells = new WeakMap<GrantChain, TaskCell[]>()
  #isOn = true

  /** False once a decision was found to be another one in the plain way: nothing but that way is left then. */
  get isOn(): boolean {
    return this.#isOn
  }

  turnOff(): void {
    this.#isOn = false
    this.#cells = new WeakMap()
  }

  /** Counts a decision: true when this one is to be made again in the plain way. */
  isDue(): boolean {
    this.#asked += 1
    return this.#asked % checkEvery === 1
  }

  find({ agent, chain, upstream }: Subject, action: string): MemoCell | undefined {
    const cells = this.#cells.get(chain)
    return cells?.find(
      (cell) => cell.agent === agent && cell.upstream === upstream && cell.action === action,
    )?.cell
  }

  open(
    subject: Subject,
    { action, slice }: { readonly action: string; readonly slice: PolicySlice },
  ) {
    const cell: MemoCell = { slice, sight: sightOf(slice.observations), decisions: new Map() }
    const { agent, chain, upstream } = subject
    const cells = this.#cells.get(chain) ?? []
    const kept = cells.length < maxCellsPerTask ? cells : []
    this.#cells.set(chain, [...kept, { agent, upstream, action, cell }])
    return cell
  }

  keep(
    { decisions }: MemoCell,
    { key, decision }: { readonly key: string; readonly decision: Decision },
  ) {
    if (key.length > maxKeyLength) return
    if (this.#entries >= maxEntries) {
      this.#cells = new WeakMap()
      this.#entries = 0
      return
    }
    decisions.set(key, decision)
    this.#entries += 1
  }
}

interface TaskCell {
  readonly agent: Agent
  readonly upstream: Upstream
  readonly action: string
  readonly cell: MemoCell
}

/** What policies see of a question. */
export interface Sight {
  /** Attributes of the context that come of the question. */
  readonly context: readonly string[]
  readonly texts: SeenTags
  readonly integers: SeenTags
}

type SeenTags = readonly string[] | 'all'

/** Two questions that look alike to the policies have the same key. Each part says where it ends. */
export function memoKey({ context, texts, integers }: Sight, question: Question): string {
  let key = ''
  for (const name of context) {
    const value = contextOfQuestion[name]?.(question)
    key += typeof value === 'string' ? textPart(value) : `${JSON.stringify(value)};`
  }
  return key + tagsPart(question.texts, texts) + tagsPart(question.integers, integers)
}

function textPart(text: string): string {
  return `${text.length}:${text}`
}

function tagsPart(tags: ReadonlyMap<string, string | number>, seen: SeenTags): string {
  if (seen === 'all') return `${JSON.stringify([...tags])};`
  let part = ''
  for (const name of seen) {
    const value = tags.get(name)
    part += typeof value === 'string' ? textPart(value) : `${value};`
  }
  return part
}

function sightOf(observations: Observations): Sight {
  const context = observations.get('context')
  const tagsOf = (name: string, uid: typeof argumentsUid): SeenTags => {
    const places = [context?.attributes.get(name), observations.get(uidKey(uid))]
    return seenTags(places.filter((place) => place !== undefined))
  }
  return {
    context: Object.keys(contextOfQuestion).filter(
      (name) => context?.value === true || context?.attributes.has(name),
    ),
    texts: tagsOf('args', argumentsUid),
    integers: tagsOf('integers', integersUid),
  }
}

function seenTags(places: readonly Observed[]): SeenTags {
  if (places.some(({ anyTag }) => anyTag)) return 'all'
  return [...new Set(places.flatMap(({ tags }) => [...tags.keys()]))]
}
