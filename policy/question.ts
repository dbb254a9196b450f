import type { CedarValueJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs'
import { findApiOperation } from './api-operations.ts'
import { typedArguments } from './tool-types.ts'
import type { ArgumentValue, McpMessage, Operation, Upstream } from './types.ts'

/** What an agent asks, and when. */
export interface QuestionInput {
  readonly operation: Operation
  /** Its tools may have typed arguments, and its operations names. */
  readonly upstream: Upstream
  /** Epoch milliseconds. */
  readonly nowMs: number
  /** Asks whether a list may show the tool, before any arguments are known. Default false. */
  readonly listing?: boolean
}

/** What is asked, fit to be shown to policy. With the subject it is all that a request is made of. */
export interface Question extends Required<QuestionInput> {
  /** Of a tool call: empty of anything else. In NFC, by names that are never inherited. */
  readonly texts: ReadonlyMap<string, string>
  readonly integers: ReadonlyMap<string, number>
  /** Of a tool call where arguments have types; of plain HTTP where operations have names. */
  readonly typed?: Typed
  /** Of plain HTTP, where operations have names. */
  readonly called?: string
}

type Typed = Readonly<Record<string, Readonly<Record<string, ArgumentValue>>>>

export type ReadQuestionResult =
  | { readonly ok: true; readonly question: Question }
  | { readonly ok: false; readonly reason: string }

/** The part of `buildCedarRequest()` that must be asked of every request, also of one whose answer is known. */
export function readQuestion({
  operation,
  upstream,
  nowMs,
  listing = false,
}: QuestionInput): ReadQuestionResult {
  const reason = findUnfitOperation(operation, nowMs)
  if (reason !== undefined) return { ok: false, reason }
  const args = isCall(operation) ? operation.message.args : noArguments
  const encoded = args.size === 0 ? noEncoded : encodeArguments(args)
  if (!encoded.ok) return encoded
  const { texts, integers } = encoded
  const question: Question = { operation, upstream, nowMs, listing, texts, integers }
  if (upstream.operations && operation.kind === 'http') {
    return { ok: true, question: { ...question, ...findApiOperation(upstream, operation) } }
  }
  if (!upstream.tools || !isCall(operation)) return { ok: true, question }
  // A list is shown before any arguments are known.
  const asDeclared = listing ? { ...upstream, tools: new Map() } : upstream
  const typing = typedArguments(asDeclared, operation.message)
  return typing.ok ? { ok: true, question: { ...question, typed: typing.typed } } : typing
}

/** Of the question alone, by the name in `context`; undefined where it is absent. */
export const contextOfQuestion: Readonly<
  Record<string, (question: Question) => CedarValueJson | undefined>
> = {
  method: ({ operation }) => operation.method,
  path: ({ operation }) => operation.path,
  has_query: ({ operation }) => operation.hasQuery,
  now: ({ nowMs }) => ({ __extn: { fn: 'datetime', arg: wholeSecond(nowMs) } }),
  mcp_method: ({ operation }) =>
    operation.kind === 'mcp' && 'method' in operation.message
      ? operation.message.method
      : undefined,
  tool: ({ operation }) => (isCall(operation) ? operation.message.tool : undefined),
  args: ({ operation }) => (isCall(operation) ? reference(argumentsUid) : undefined),
  integers: ({ operation }) => (isCall(operation) ? reference(integersUid) : undefined),
  listing: ({ operation, listing }) => (isCall(operation) ? listing : undefined),
  operation: ({ called }) =>
    called === undefined ? undefined : reference(uid('Operation', called)),
  typed: ({ typed }) => typed,
}

/** The id of the action. */
export function actionOf(operation: Operation): string {
  if (operation.kind === 'websocket') return 'websocket.connect'
  if (operation.kind === 'http') return isRead(operation) ? 'http.read' : 'http.write'
  const { type } = operation.message
  if (type === 'tools/call') return type
  return type === 'response' ? 'mcp.response' : 'mcp.request'
}

/** Whether what is asked only looks. A tool call may do anything; what an agent answers a server leaves the agent. */
export function isRead(operation: Operation): boolean {
  if (operation.kind === 'http') return readMethods.has(operation.method)
  if (operation.kind === 'websocket') return false
  const { type } = operation.message
  return type === 'request' || type === 'notification'
}

/** A call of one tool. */
export type ToolCall = Extract<Operation, { kind: 'mcp' }> & {
  readonly message: Extract<McpMessage, { type: 'tools/call' }>
}

export function isCall(operation: Operation): operation is ToolCall {
  return operation.kind === 'mcp' && operation.message.type === 'tools/call'
}

const readMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The cost of a decision grows with what enters Cedar. A request beyond these is refused. */
const maxNameLength = 2048
const maxPathLength = 16 * 1024
const maxArguments = 512
const maxArgumentsLength = 512 * 1024
/** ECMA-262 section 21.4.1.1: no date lies beyond. Cedar's datetime holds more. */
const maxTimeMs = 8.64e15

export const argumentsUid = uid('Arguments', 'args')
export const integersUid = uid('Integers', 'integers')

/** Every attribute and id that an agent, an approver or an operator chose, by what it is called in the reason. */
function findUnfitOperation(operation: Operation, nowMs: number): string | undefined {
  const unfit = findUnfitName([['method', operation.method], ...messageNames(operation)])
  if (unfit !== undefined) return unfit
  if (!isFit(operation.path, maxPathLength)) return 'the path is too long or not plain Unicode text'
  return Math.abs(nowMs) <= maxTimeMs ? undefined : 'the time is not one'
}

/** The first of these that cannot be shown to policy, by what it is called. */
export function findUnfitName(names: readonly (readonly [string, string])[]): string | undefined {
  const unfit = names.find(([, text]) => !isFit(text, maxNameLength))
  return unfit && `the ${unfit[0]} is too long or not plain Unicode text`
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
  | ({ readonly ok: true } & Pick<Question, 'texts' | 'integers'>)
  | { readonly ok: false; readonly reason: string }

const noArguments: ReadonlyMap<string, ArgumentValue> = new Map()
const noEncoded: EncodedArguments = { ok: true, texts: new Map(), integers: new Map() }

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
  return { ok: true, texts, integers }
}

/** A second is what a rule about time means; finer, no answer would hold for a second request. */
function wholeSecond(nowMs: number): string {
  return new Date(Math.floor(nowMs / 1000) * 1000).toISOString()
}

export function uid(type: string, id: string): TypeAndId {
  return { type: `Chaperone::${type}`, id }
}

export function reference({ type, id }: TypeAndId): CedarValueJson {
  return { __entity: { type, id } }
}
