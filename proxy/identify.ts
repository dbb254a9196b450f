import { isDenial } from '../policy/denial.ts'
import type { Agent, Denial } from '../policy/types.ts'
import { bearerToken } from '../identity/bearer.ts'
import type { Arrival } from './arrival.ts'
import type { Snapshot } from './snapshot.ts'

/** The agent that the request's one JWT-SVID proves, or why there is none. */
export async function identify({ req }: Arrival, snapshot: Snapshot): Promise<Agent | Denial> {
  const bearer = bearerToken(req.rawHeaders)
  return isDenial(bearer) ? bearer : await snapshot.svids.verify(bearer.token)
}
