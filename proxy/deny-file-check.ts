import type { FeedStatus } from '../revocation/feed.ts'
import type { CheckResult } from './admin.ts'

/** Never a reason not to be ready: what can be read is in force, and a typo must not take every sidecar out of service. */
export function denyFileCheck({ denyFile }: FeedStatus): readonly CheckResult[] {
  if (!denyFile) return []
  const { subjects, problems } = denyFile
  const detail = `${subjects} denied, ${problems} problems${problems > 0 ? ': see the log' : ''}`
  return [{ name: 'deny-file', ok: true, detail }]
}
