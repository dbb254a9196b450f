import { formatProblem, loadConfig } from '../../config/load.ts'
import type { PolicySource } from '../../policy/cedar.ts'
import { cedarSchema, loadPolicyFiles } from '../../proxy/policy-files.ts'
import { policyDirectories } from '../../proxy/policies.ts'
import type { Upstream } from '../../policy/types.ts'
import { upstreamFacts } from '../../proxy/upstream-facts.ts'
import { exitCodes } from '../exit-codes.ts'

/** Where a command takes its policies from: a directory, or everything that a configuration says. */
export interface PolicySetOptions {
  readonly directory?: string
  readonly config?: string
}

export interface PolicySet {
  readonly sources: readonly PolicySource[]
  readonly schema: string
  /** Of the configuration; empty without one. */
  readonly upstreams: ReadonlyMap<string, Upstream>
  /** Directories that a sidecar of the configuration reads policies and cases from. */
  readonly policyDirectories: readonly string[]
}

/** A configuration that cannot be used. The message has a line for each problem. */
export class PolicySetError extends Error {
  override readonly name = 'PolicySetError'
  readonly code = 'ERR_POLICY_SET'
  readonly exitCode = exitCodes.badConfig
}

/** Reads the policies that the options name, else the shipped default. Throws `PolicySetError`, `PolicyFileError`. */
export function loadPolicySet({ directory, config: path }: PolicySetOptions): PolicySet {
  if (path === undefined) {
    return {
      sources: loadPolicyFiles({ directory }),
      schema: cedarSchema(),
      upstreams: new Map(),
      policyDirectories: [],
    }
  }
  const loaded = loadConfig(path)
  if (!loaded.ok) throw new PolicySetError(loaded.problems.map(formatProblem).join('\n'))
  const { policy } = loaded.config
  const upstreams = upstreamFacts(loaded.config.upstreams)
  return {
    sources: loadPolicyFiles(directory === undefined ? policy : { ...policy, directory }),
    schema: cedarSchema(upstreams),
    policyDirectories: policyDirectories(policy),
    upstreams,
  }
}

export const directoryFlags = '-d, --directory <path>'
export const directoryText = 'directory of *.cedar; default: the shipped default policy'
export const configFlags = '-c, --config <path>'
export const configText = 'configuration: its policies and upstreams'
