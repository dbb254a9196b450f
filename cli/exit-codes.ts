/** What the commands end with: a public contract (docs/cli.md). */
export const exitCodes = {
  ok: 0,
  /** The command ran, and what it looked at is not right. */
  failed: 1,
  /** The command could not do its work: a file or a server was not there. */
  fault: 2,
  /** The configuration cannot be used. */
  badConfig: 3,
  /** It is recorded, but not every sidecar has confirmed that it enforces it, or fewer replicas than asked have it. */
  unconfirmed: 4,
  /** A drill measured more than its budget allows. */
  overBudget: 5,
  /** The command line is wrong (EX_USAGE). */
  usage: 64,
} as const
