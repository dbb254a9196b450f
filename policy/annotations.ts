import { nearestName } from '../config/nearest-name.ts'

/** How bad it is when the policy decides: for whoever reads the audit. */
export const severities = ['low', 'medium', 'high', 'critical'] as const
export type Severity = (typeof severities)[number]

/** What stands before a policy as `@name("value")`. */
export interface Annotations {
  readonly id: string
  /** For the agent's model, with the denial. */
  readonly reason?: string
  readonly severity?: Severity
  /** `shadow`: decided beside the others, never enforced. */
  readonly mode: 'enforce' | 'shadow'
  /** What this permits needs the approval of a person first. */
  readonly stepUp: boolean
}

export type AnnotationsResult =
  | { readonly ok: true; readonly annotations: Annotations }
  | {
      readonly ok: false
      /** The annotation that is wrong; undefined when one is missing. */
      readonly name?: string
      readonly message: string
      readonly hint: string
    }

/** Reads the annotations of a policy. One that nobody reads is a slip: it would look as though it did something. */
export function readAnnotations(
  raw: Readonly<Record<string, string | null>>,
  { effect }: { readonly effect: 'permit' | 'forbid' },
): AnnotationsResult {
  const { id, reason, severity, mode = 'enforce' } = raw
  const unknown = Object.keys(raw).find((name) => !known.includes(name))
  if (unknown !== undefined) {
    const near = nearestName(unknown, known)
    const hint =
      near === undefined ? `Known are ${known.map(at).join(', ')}` : `did you mean ${at(near)}?`
    return wrong(unknown, `Unknown annotation ${at(unknown)}`, hint)
  }
  if (!id || !idForm.test(id)) {
    return {
      ok: false,
      ...(id !== undefined && { name: 'id' }),
      message: 'Expected an @id of letters, digits and ._/-',
      hint: 'Write @id("team/rule") before it',
    }
  }
  if (reason === null || reason === '' || (reason && reason.length > maxReasonLength)) {
    const message = `Expected at most ${maxReasonLength} characters of @reason, and at least one`
    return wrong('reason', message, 'Write a sentence that the agent can act on')
  }
  const level = severities.find((one) => one === severity)
  if (severity !== undefined && level === undefined) {
    return wrong('severity', `Expected ${severities.join(', ')}`, 'Write @severity("high")')
  }
  if (mode !== 'enforce' && mode !== 'shadow') {
    return wrong('mode', 'Expected enforce or shadow', 'Write @mode("shadow"), or leave it out')
  }
  if ('stepup' in raw && raw['stepup']) {
    return wrong('stepup', 'Expected @stepup without a value', 'Write @stepup')
  }
  if ('stepup' in raw && effect === 'forbid') {
    return wrong('stepup', 'Expected @stepup on a permit', 'A forbid refuses: leave it out here')
  }
  return {
    ok: true,
    annotations: {
      id,
      mode,
      stepUp: 'stepup' in raw,
      ...(reason !== undefined && { reason }),
      ...(level !== undefined && { severity: level }),
    },
  }
}

const known = ['id', 'reason', 'severity', 'mode', 'stepup']
const idForm = /^[A-Za-z0-9._/-]{1,128}$/
const maxReasonLength = 500

function wrong(name: string, message: string, hint: string): AnnotationsResult {
  return { ok: false, name, message, hint }
}

function at(name: string): string {
  return `@${name}`
}
