import type { CedarDecision, PolicyEngine } from './cedar-engine.ts'
import { assembleRequest, findUnfitSubject, type Subject } from './cedar-request.ts'
import { memoKey } from './decision-memo.ts'
import { deny } from './denial.ts'
import { actionOf, readQuestion, type Question, type QuestionInput } from './question.ts'
import type { Decision } from './types.ts'

export interface PolicyInput extends Subject, QuestionInput {
  readonly engine: PolicyEngine
}

/**
 * What the policies alone say; the gates in code are not asked. One decision in so many is made again in the plain way.
 * Where the two differ it is a refusal, and from then on the plain way is the only one.
 */
export function askPolicies(input: PolicyInput): Decision {
  const { engine } = input
  const read = readQuestion(input)
  if (!read.ok) return unfit(read.reason)
  const { question } = read
  if (!engine.memo.isOn || !engine.healthy) return askPlainly(input, question)
  const isDue = engine.memo.isDue()
  const decision = recall(input, question) ?? askSlice(input, question)
  return isDue ? checked(input, { question, decision }) : decision
}

/** What the policies were found to say before; undefined when they would have to be asked. */
export function recallPolicies(input: PolicyInput): Decision | undefined {
  const { memo, healthy } = input.engine
  const read = readQuestion(input)
  return read.ok && memo.isOn && healthy ? recall(input, read.question) : undefined
}

function recall(input: PolicyInput, question: Question): Decision | undefined {
  const { memo, observer } = input.engine
  const cell = memo.find(input, actionOf(question.operation))
  const decision = cell?.decisions.get(memoKey(cell.sight, question))
  if (decision) observer.answered('memo')
  return decision
}

/** Asks the policies that can have a say, about what they can see. */
function askSlice(input: PolicyInput, question: Question): Decision {
  const { engine } = input
  const { memo, observer } = engine
  const reason = findUnfitSubject(input)
  if (reason !== undefined) return unfit(reason)
  const request = assembleRequest(input, question)
  const action = actionOf(question.operation)
  const cell =
    memo.find(input, action) ?? memo.open(input, { action, slice: engine.sliceOf(request) })
  const answer = engine.authorizeSlice(cell.slice, request)
  observer.answered('engine')
  const decision = toDecision(answer)
  // What went wrong once is asked again: it is no answer of the policies.
  if (answer.errors.length === 0) {
    memo.keep(cell, { key: memoKey(cell.sight, question), decision })
  }
  return decision
}

/** Asks all policies about the whole request. */
function askPlainly(input: PolicyInput, question: Question): Decision {
  const reason = findUnfitSubject(input)
  if (reason !== undefined) return unfit(reason)
  input.engine.observer.answered('engine')
  return toDecision(input.engine.authorize(assembleRequest(input, question)))
}

function checked(
  input: PolicyInput,
  { question, decision }: { readonly question: Question; readonly decision: Decision },
): Decision {
  const { memo, observer } = input.engine
  const isSame = JSON.stringify(askPlainly(input, question)) === JSON.stringify(decision)
  observer.selfChecked(isSame ? 'same' : 'different')
  if (isSame) return decision
  memo.turnOff()
  return deny('policy-denied', 'the policy engine contradicted itself', { undecided: true })
}

function unfit(reason: string): Decision {
  return deny('policy-denied', `cannot be put to policy: ${reason}`, { undecided: true })
}

function toDecision(answer: CedarDecision): Decision {
  const { decision, policyIds, errors, reason, severity, stepUp } = answer
  if (errors.length > 0) {
    const detail = `policy evaluation error: ${errors.join(', ')}`
    return deny('policy-denied', detail, { policyIds, undecided: true })
  }
  const more = {
    policyIds,
    ...(reason !== undefined && { reason }),
    ...(severity !== undefined && { severity }),
  }
  if (decision === 'deny') {
    const detail = policyIds.length > 0 ? 'a policy forbids it' : 'no policy permits it'
    return deny('policy-denied', detail, more)
  }
  // No determining policy: nobody permitted it.
  if (policyIds.length === 0)
    return deny('policy-denied', 'allowed by no policy', { undecided: true })
  // One that asks for approval is not overruled by another that does not.
  if (stepUp) {
    const detail = 'a policy permits it with the approval of a person only'
    return { outcome: 'step-up', code: 'approval-required', detail, ...more }
  }
  return { outcome: 'allow', policyIds }
}
