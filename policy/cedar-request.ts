import type {
  CedarValueJson,
  Context,
  EntityJson,
  TypeAndId,
} from '@cedar-policy/cedar-wasm/nodejs'
import {
  sensitivities,
  type Agent,
  type ArgumentValue,
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

export interface CedarRequestInput {
  readonly agent: Agent
  readonly chain: GrantChain
  readonly operation: Operation
  readonly upstream: Upstream
  /** Epoch milliseconds. */
  readonly nowMs: number
  /** Asks whether a list may show the tool, before any arguments are known. Default false. */
  readonly listing?: boolean
}

export type BuildCedarRequestResult =
  | { readonly ok: true; readonly request: CedarRequest }
  | { readonly ok: false; readonly reason: string }

/**
 * Builds the request of chaperone.cedarschema. Agent JSON enters as flat text only: as structure it could spell an
 * entity or the `unknown` extension, and a forbid that meets one is skipped. What cannot be shown to policy whole is
 * refused, never cut short: padding must not push an argument out of a policy's sight.
 */
export function buildCedarRequest(input: CedarRequestInput): BuildCedarRequestResult {
  const reason = findUnfit(input)
  if (reason !== undefined) return { ok: false, reason }
  const { operation } = input
  if (operation.kind !== 'mcp' || operation.message.type !== 'tools/call') {
    return { ok: true, request: assemble(input, { context: {}, entities: [] }) }
  }
  const { tool, args } = operation.message
  const encoded = encodeArguments(args)
  if (!encoded.ok) return encoded
  const { texts, integers } = encoded
  const more: Assembly = {
    context: {
      tool,
      args: reference(argumentsUid),
      integers: reference(integersUid),
      listing: input.listing ?? false,
    },
    entities: [
      { uid: argumentsUid, attrs: {}, parents: [], tags: texts },
      { uid: integersUid, attrs: {}, parents: [], tags: integers },
    ],
  }
  return { ok: true, request: assemble(input, more) }
}

/** The rank of a data class: 0 public to 3 restricted. */
export function rank(sensitivity: Sensitivity): number {
  return sensitivities.indexOf(sensitivity)
}

/** Whether what is asked only looks. A tool call may do anything; what an agent answers a server leaves the agent. */
export function isRead(operation: Operation): boolean {
  if (operation.kind === 'http') return readMethods.has(operation.method)
  if (operation.kind === 'websocket') return false
  const { type } = operation.message
  return type === 'request' || type === 'notification'
}

const readMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The cost of a decision grows with what enters Cedar. A request beyond these is refused. */
const maxNameLength = 2048
const maxPathLength = 16 * 1024
const maxAgentGroups = 32
const maxArguments = 512
const maxArgumentsLength = 512 * 1024
/** ECMA-262 section 21.4.1.1: no date lies beyond. Cedar's datetime holds more. */
const maxTimeMs = 8.64e15

const argumentsUid = uid('Arguments', 'args')
const integersUid = uid('Integers', 'integers')

/** Every attribute and id that an agent, an approver or an operator chose, by what it is called in the reason. */
function findUnfit({
  agent,
  chain,
  operation,
  upstream,
  nowMs,
}: CedarRequestInput): string | undefined {
  const { leaf, links } = chain
  const names: readonly (readonly [string, string])[] = [
    ['agent', agent.id],
    ['agent', agent.trustDomain],
    ...links.map(({ txn }) => ['task', txn] as const),
    ['purpose', leaf.purpose],
    ['on-behalf-of subject', leaf.onBehalfOf?.sub ?? ''],
    ['upstream', upstream.name],
    ['upstream', upstream.origin],
    ['method', operation.method],
    ...links.map((link) => ['approver', link.approver] as const),
    ...messageNames(operation),
  ]
  const unfit = names.find(([, text]) => !isFit(text, maxNameLength))
  if (unfit) return `the ${unfit[0]} is too long or not plain Unicode text`
  if (!isFit(operation.path, maxPathLength)) return 'the path is too long or not plain Unicode text'
  if (agentGroups(agent).length > maxAgentGroups) return 'the agent id has too many segments'
  return Math.abs(nowMs) <= maxTimeMs ? undefined : 'the time is not one'
}

function messageNames(operation: Operation): readonly (readonly [string, string])[] {
  if (operation.kind !== 'mcp') return []
  const { message } = operation
  if (message.type === 'tools/call') return [['tool', message.tool]]
  return message.type === 'response' ? [] : [['MCP method', message.method]]
}

/** A lone surrogate makes the engine throw. Two spellings of one text would be two names to Cedar, hence NFC alone. */
function isFit(text: string, maxLength: number): boolean {
  return text.length <= maxLength && text.isWellFormed() && text.normalize('NFC') === text
}

type EncodedArguments =
  | {
      readonly ok: true
      readonly texts: Record<string, string>
      readonly integers: Record<string, number>
    }
  | { readonly ok: false; readonly reason: string }

function encodeArguments(args: ReadonlyMap<string, ArgumentValue>): EncodedArguments {
  if (args.size > maxArguments) return { ok: false, reason: 'there are too many arguments' }
  const texts = new Map<string, string>()
  const integers = new Map<string, number>()
  let length = 0
  for (const [rawName, value] of args) {
    const rawText = String(value)
    length += rawName.length + rawText.length
    if (length > maxArgumentsLength) return { ok: false, reason: 'the arguments are too long' }
    if (!rawName.isWellFormed() || !rawText.isWellFormed()) {
      return { ok: false, reason: 'an argument is not Unicode text' }
    }
    const name = rawName.normalize('NFC')
    if (texts.has(name)) return { ok: false, reason: 'two arguments have one name' }
    texts.set(name, rawText.normalize('NFC'))
    // Beyond 2^53 the number that the upstream reads is not the one that was judged.
    if (typeof value === 'number' && Number.isSafeInteger(value)) integers.set(name, value)
  }
  // fromEntries() defines own members, `__proto__` among them: an argument must not vanish by its name.
  return { ok: true, texts: Object.fromEntries(texts), integers: Object.fromEntries(integers) }
}

interface Assembly {
  readonly context: Context
  readonly entities: readonly EntityJson[]
}

function assemble(input: CedarRequestInput, more: Assembly): CedarRequest {
  const { agent, chain, operation, upstream, nowMs } = input
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
      sensitivity: leastSensitivity(chain),
      identity_kind: agent.kind,
      method: operation.method,
      path: operation.path,
      has_query: operation.hasQuery,
      now: { __extn: { fn: 'datetime', arg: wholeSecond(nowMs) } },
      ...mcpMethod(operation),
      ...more.context,
    },
    entities: [
      agentEntity(agent, principal),
      { uid: task, attrs: taskAttributes(chain), parents: ancestorTasks(chain) },
      { uid: resource, attrs: upstreamAttributes(upstream), parents: [] },
      ...actionEntities(operation, action),
      ...more.entities,
    ],
  }
}

/** A second is what a rule about time means; finer, no answer would hold for a second request. */
function wholeSecond(nowMs: number): string {
  return new Date(Math.floor(nowMs / 1000) * 1000).toISOString()
}

function actionOf(operation: Operation): string {
  if (operation.kind === 'websocket') return 'websocket.connect'
  if (operation.kind === 'http') return isRead(operation) ? 'http.read' : 'http.write'
  const { type } = operation.message
  if (type === 'tools/call') return type
  return type === 'response' ? 'mcp.response' : 'mcp.request'
}

/** With its group: without it, `action in Action::"write"` would be false and the forbid that says so would not apply. */
function actionEntities(operation: Operation, action: TypeAndId): EntityJson[] {
  const group = uid('Action', isRead(operation) ? 'read' : 'write')
  return [
    { uid: action, attrs: {}, parents: [group] },
    { uid: group, attrs: {}, parents: [] },
  ]
}

function mcpMethod(operation: Operation): Context {
  if (operation.kind !== 'mcp') return {}
  const { message } = operation
  return 'method' in message ? { mcp_method: message.method } : {}
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

function leastSensitivity({ links }: GrantChain): number {
  return Math.min(...links.map((link) => rank(link.sensitivity)))
}

function upstreamAttributes({
  kind,
  origin,
  sensitivity,
}: Upstream): Record<string, CedarValueJson> {
  return { kind, origin, sensitivity: rank(sensitivity) }
}

function uid(type: string, id: string): TypeAndId {
  return { type: `Chaperone::${type}`, id }
}

function reference({ type, id }: TypeAndId): CedarValueJson {
  return { __entity: { type, id } }
}
