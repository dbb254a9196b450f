import { existsSync, statSync } from 'node:fs'
import { readTextFile, TextFileError } from '../config/read-text-file.ts'
import type { Config } from '../config/schema.ts'
import { CredentialError } from '../credential/issuer.ts'
import { createMintKeys } from '../credential/mint.ts'
import { maxBundleBytes, parseTrustBundle } from '../identity/trust-bundle.ts'
import {
  ApproverError,
  createApproverRegistry,
  parseApproverKeys,
  type ApproverKey,
} from '../policy/approver.ts'
import { compilePolicies } from '../policy/cedar.ts'
import { findSuspicious } from '../policy/findings.ts'
import { parseStrictJson } from '../policy/strict-json.ts'
import { ListenTlsError, readListenTls } from '../proxy/listen-tls.ts'
import { loadPolicies, PoliciesError } from '../proxy/policies.ts'
import { cedarSchema, loadPolicyFiles, PolicyFileError } from '../proxy/policy-files.ts'
import { upstreamFacts } from '../proxy/upstream-facts.ts'
import { systemClock } from '../proxy/system-clock.ts'
import { maxDenyListBytes, parseDenyList } from '../revocation/deny-list.ts'

/** What is wrong with something that a configuration refers to. Never quotes a key or a secret. */
export interface ReferenceProblem {
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly col: number
  readonly message: string
  readonly hint?: string
}

export interface ReferenceReport {
  /** What would keep the sidecar from starting, or a request from being served. */
  readonly problems: readonly ReferenceProblem[]
  readonly warnings: readonly ReferenceProblem[]
}

/** Compiles the policies and reads the key and secret files of a configuration; `file` is its own path. Offline. */
export function checkReferences(
  config: Config,
  { file }: { readonly file: string },
): ReferenceReport {
  const bundles = config.identity.trustBundles.flatMap((bundle) =>
    'file' in bundle ? [checkTrustBundle(bundle.file)] : [],
  )
  const reports = [
    checkPolicies(config, file),
    checkApprovers(config, file),
    ...config.operators.map(({ jwks }) => checkOperatorKeys(jwks)),
    ...bundles,
    ...certificateFiles(config).map(checkText),
    ...secretFiles(config).map(checkSecret),
    checkMintKeys(config),
    checkListenTls(config.listen),
    checkDenyFile(config.revocation),
  ]
  return {
    problems: reports.flatMap(({ problems }) => problems),
    warnings: reports.flatMap(({ warnings }) => warnings),
  }
}

const maxKeySetBytes = 1024 * 1024
const maxSecretBytes = 65_536
const maxPemBytes = 1024 * 1024
const none: ReferenceReport = { problems: [], warnings: [] }

function problem(file: string, message: string): ReferenceReport {
  return { problems: [{ file, line: 1, col: 1, message }], warnings: [] }
}

function warning(file: string, message: string): ReferenceReport {
  return { problems: [], warnings: [{ file, line: 1, col: 1, message }] }
}

function checkPolicies(config: Config, file: string): ReferenceReport {
  try {
    const upstreams = upstreamFacts(config.upstreams)
    const compiled = compilePolicies(loadPolicyFiles(config.policy), {
      schema: cedarSchema(upstreams),
    })
    if (!compiled.ok) return { problems: compiled.problems, warnings: [] }
    compiled.engine[Symbol.dispose]()
    // The shadow set and the cases: a sidecar refuses to start with bad ones too.
    loadPolicies(config.policy, { upstreams })[Symbol.dispose]()
    return { problems: [], warnings: findSuspicious(compiled.policies, { upstreams }) }
  } catch (error) {
    const isKnown = error instanceof PolicyFileError || error instanceof PoliciesError
    if (isKnown) return problem(file, error.message)
    throw error
  }
}

function checkApprovers(config: Config, file: string): ReferenceReport {
  const { approvers, delegation } = config
  const keysByIss = new Map<string, readonly ApproverKey[]>()
  const problems = [...approvers, ...(delegation ? [delegation] : [])].flatMap(({ iss, jwks }) => {
    const read = readApproverKeys(jwks)
    if (typeof read === 'string') return problem(jwks, read).problems
    keysByIss.set(iss, read)
    return []
  })
  if (problems.length > 0) return { problems, warnings: [] }
  try {
    createApproverRegistry(approvers, keysByIss, { delegation })
    return none
  } catch (error) {
    if (error instanceof ApproverError) return problem(file, error.message)
    throw error
  }
}

function checkOperatorKeys(path: string): ReferenceReport {
  const read = readApproverKeys(path)
  return typeof read === 'string' ? problem(path, read) : none
}

/** The keys, or why there are none. */
function readApproverKeys(path: string): readonly ApproverKey[] | string {
  try {
    const bytes = Buffer.from(readTextFile(path, { maxBytes: maxKeySetBytes }))
    const parsed = parseStrictJson(bytes, { maxBytes: maxKeySetBytes, maxDepth: 16 })
    return parsed.ok ? parseApproverKeys(parsed.value) : `Expected JSON: ${parsed.reason}`
  } catch (error) {
    if (error instanceof TextFileError || error instanceof ApproverError) return error.message
    throw error
  }
}

function checkTrustBundle(path: string): ReferenceReport {
  const text = readOrProblem(path, maxBundleBytes)
  if (typeof text !== 'string') return text
  const parsed = parseTrustBundle(Buffer.from(text))
  if (!parsed.ok) return problem(path, parsed.reason)
  const { keys, ignored } = parsed.bundle
  if (keys.size === 0) return problem(path, 'Expected at least one usable jwt-svid key')
  return { problems: [], warnings: ignored.flatMap((reason) => warning(path, reason).warnings) }
}

function checkText(path: string): ReferenceReport {
  const text = readOrProblem(path, maxPemBytes)
  if (typeof text !== 'string') return text
  return text.includes('-----BEGIN ') ? none : problem(path, 'Expected PEM')
}

function checkSecret(path: string): ReferenceReport {
  const text = readOrProblem(path, maxSecretBytes)
  if (typeof text !== 'string') return text
  if (text.trim() === '') return problem(path, 'Expected a secret: the file is empty')
  return isWorldReadable(path) ? warning(path, 'Every user of this machine can read it') : none
}

/** The file is among the secret files too: there its absence is reported, here only what it holds. */
function checkMintKeys({ mint }: Config): ReferenceReport {
  if (!mint || checkSecret(mint.keys.file).problems.length > 0) return none
  try {
    createMintKeys(mint, { clock: systemClock })
    return none
  } catch (error) {
    if (error instanceof CredentialError) return problem(mint.keys.file, error.message)
    throw error
  }
}

/** The key is among the secret files too. */
function checkListenTls({ tls }: Config['listen']): ReferenceReport {
  if (!tls || checkSecret(tls.keyFile).problems.length > 0) return none
  try {
    readListenTls(tls)
    return none
  } catch (error) {
    if (error instanceof ListenTlsError) return problem(error.file, error.message)
    throw error
  }
}

/** It may be mounted only where the sidecar runs, but what is there must say what it means. */
function checkDenyFile({ denyFile: file }: Config['revocation']): ReferenceReport {
  if (file === undefined) return none
  if (!existsSync(file)) return warning(file, 'The file does not exist: it denies nothing')
  const text = readOrProblem(file, maxDenyListBytes)
  if (typeof text !== 'string') return text
  return {
    problems: parseDenyList(text).problems.map((found) => ({ file, ...found })),
    warnings: [],
  }
}

function readOrProblem(path: string, maxBytes: number): string | ReferenceReport {
  try {
    return readTextFile(path, { maxBytes })
  } catch (error) {
    if (error instanceof TextFileError) return problem(path, error.message)
    throw error
  }
}

function isWorldReadable(path: string): boolean {
  const { mode } = statSync(path)
  return (mode & 0o004) !== 0
}

function certificateFiles({ identity, revocation, upstreams }: Config): readonly string[] {
  const redis = revocation.source === 'redis' ? revocation.redis : undefined
  const paths = [
    ...identity.trustBundles.map((bundle) => ('url' in bundle ? bundle.caFile : undefined)),
    ...upstreams.map(({ caFile }) => caFile),
    redis?.caFile,
    redis?.certFile,
  ]
  return [...new Set(paths.filter((path) => path !== undefined))]
}

function secretFiles({
  listen,
  grants,
  revocation,
  upstreams,
  mint,
  audit,
}: Config): readonly string[] {
  const redis = revocation.source === 'redis' ? revocation.redis : undefined
  const paths = [
    ...upstreams.map(({ credential }) =>
      'inject' in credential ? credential.inject.secret.file : undefined,
    ),
    listen.tls?.keyFile,
    grants.file,
    redis?.passwordFile,
    redis?.sentinelPasswordFile,
    redis?.keyFile,
    mint?.keys.file,
    audit.checkpoint?.keys.file,
  ]
  return [...new Set(paths.filter((path) => path !== undefined))]
}
