import type {
  CedarValueJson,
  Context,
  EntityJson,
  TypeAndId,
} from '@cedar-policy/cedar-wasm/nodejs'
import {
  actionOf,
  argumentsUid,
  contextOfQuestion,
  findUnfitName,
  integersUid,
  isCall,
  isRead,
  readQuestion,
  reference,
  uid,
  type Question,
  type QuestionInput,
} from './question.ts'
import {
  sensitivities,
  type Agent,
  type GrantChain,
  type Operation,
  type Sensitivity,
  type Upstream,
} from './types.ts'

/** What Cedar is asked: the ids, and every entity that they reach, so that no policy fails on one that is missing. */
export interface CedarRequest {
  readonly principal: TypeAndId
  readonly action: TypeAndId
  readonly resource: TypeAndId
  readonly context: Context
  readonly entities: EntityJson[]
}

/** Who asks for what task, and where: what stays the same from one request of a task to the next. */
export interface Subject {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly upstream: Upstream
}

export interface CedarRequestInput extends Subject, QuestionInput {}

export type BuildCedarRequestResult =
  | { readonly ok: true; readonly request: CedarRequest }
  | { readonly ok: false; readonly reason: string }

/**
 * Builds the request of chaperone.cedarschema. Agent JSON enters as flat text only: as structure it could spell an
 * entity or the `unknown` extension, and a forbid that meets one is skipped. What cannot be shown to policy whole is
 * refused, never cut short: padding must not push an argument out of a policy's sight.
 */
export function buildCedarRequest(input: CedarRequestInput): BuildCedarRequestResult {
  const read = readQuestion(input)
  if (!read.ok) return read
  const reason = findUnfitSubject(input)
  if (reason !== undefined) return { ok: false, reason }
  return { ok: true, request: assembleRequest(input, read.question) }
}

/** Why the subject cannot be shown to policy; undefined when it can. */
export function findUnfitSubject({ agent, chain, upstream }: Subject): string | undefined {
  const { leaf, links } = chain
  const names: readonly (readonly [string, string])[] = [
    ['agent', agent.id],
    ['agent', agent.trustDomain],
    ...links.map(({ txn }) => ['task', txn] as const),
    ['purpose', leaf.purpose],
    ['on-behalf-of subject', leaf.onBehalfOf?.sub ?? ''],
    ['upstream', upstream.name],
    ['upstream', upstream.origin],
    ...links.map((link) => ['approver', link.approver] as const),
  ]
  const unfit = findUnfitName(names)
  if (unfit !== undefined) return unfit
  return agentGroups(agent).length > maxAgentGroups
    ? 'the agent id has too many segments'
    : undefined
}

/** Both must have been found fit. */
export function assembleRequest(subject: Subject, question: Question): CedarRequest {
  const { agent, chain, upstream } = subject
  const { operation, texts, integers } = question
  const principal = uid('Agent', agent.id)
  const resource = uid('Upstream', upstream.name)
  const task = uid('Task', chain.leaf.txn)
  const action = uid('Action', actionOf(operation))
  return {
    principal,
    action,
    resource,
    context: {
      task: reference(task),
      purpose: chain.leaf.purpose,
      sensitivity: rank(leastSensitivity(chain)),
      identity_kind: agent.kind,
      ...contextOf(question),
    },
    entities: [
      agentEntity(agent, principal),
      { uid: task, attrs: taskAttributes(chain), parents: ancestorTasks(chain) },
      { uid: resource, attrs: upstreamAttributes(upstream), parents: [] },
      ...actionEntities(operation, action),
      // fromEntries() defines own members, `__proto__` among them: an argument must not vanish by its name.
      ...(isCall(operation)
        ? [
            { uid: argumentsUid, attrs: {}, parents: [], tags: Object.fromEntries(texts) },
            { uid: integersUid, attrs: {}, parents: [], tags: Object.fromEntries(integers) },
          ]
        : []),
    ],
  }
}

/** The rank of a data class: 0 public to 3 restricted. */
export function rank(sensitivity: Sensitivity): number {
  return sensitivities.indexOf(sensitivity)
}

/** The least of all grants of a chain: no link may be widened by the next. */
export function leastSensitivity({ leaf, links }: GrantChain): Sensitivity {
  const ranks = links.map(({ sensitivity }) => rank(sensitivity))
  return sensitivities[Math.min(...ranks)] ?? leaf.sensitivity
}

const maxAgentGroups = 32

function contextOf(question: Question): Context {
  const pairs = Object.entries(contextOfQuestion).flatMap(([name, read]) => {
    const value = read(question)
    return value === undefined ? [] : [[name, value] as const]
  })
  return Object.fromEntries(pairs)
}

/** With its group: without it, `action in Action::"write"` would be false and the forbid that says so would not apply. */
function actionEntities(operation: Operation, action: TypeAndId): EntityJson[] {
  const group = uid('Action', isRead(operation) ? 'read' : 'write')
  return [
    { uid: action, attrs: {}, parents: [group] },
    { uid: group, attrs: {}, parents: [] },
  ]
}

/** Flat: every prefix is a parent of the agent itself, since a chain of parents costs more than its square. */
function agentEntity(agent: Agent, principal: TypeAndId): EntityJson {
  return {
    uid: principal,
    attrs: { trust_domain: agent.trustDomain },
    parents: agentGroups(agent).map((group) => uid('AgentGroup', group)),
  }
}

function agentGroups({ id }: Agent): string[] {
  const [trustDomain = '', ...segments] = id.slice('spiffe://'.length).split('/')
  const groups = [`spiffe://${trustDomain}`]
  for (const segment of segments) groups.push(`${groups.at(-1) ?? ''}/${segment}`)
  return groups
}

function taskAttributes({ leaf, links }: GrantChain): Record<string, CedarValueJson> {
  return {
    purpose: leaf.purpose,
    sensitivity: rank(leaf.sensitivity),
    approvers: links.map((link) => link.approver),
    depth: links.length - 1,
    ...(leaf.onBehalfOf && { on_behalf_of: leaf.onBehalfOf.sub }),
  }
}

/** Flat, as the groups of an agent are: `context.task in Chaperone::Task::"T-1"` covers all that hangs on T-1. */
function ancestorTasks({ links }: GrantChain): TypeAndId[] {
  return links.slice(0, -1).map(({ txn }) => uid('Task', txn))
}

function upstreamAttributes({
  kind,
  origin,
  sensitivity,
}: Upstream): Record<string, CedarValueJson> {
  return { kind, origin, sensitivity: rank(sensitivity) }
}
