import type { Config } from '../config/schema.ts'
import type { GrantChain } from '../policy/types.ts'

/** Where what the policies refuse is allowed all the same, for a while. */
export interface ObservedOnly {
  readonly kind: 'route' | 'task'
  readonly name: string
  /** Epoch milliseconds. */
  readonly untilMs: number
}

/** The settings that say so. */
export const observedBy = { route: 'unsafeObserveUntil', task: 'unsafeObserveTasks' } as const

/** Everything that a configuration has observed only, also what has ended. */
export function observedOnly({
  routes,
  policy,
}: Pick<Config, 'routes' | 'policy'>): readonly ObservedOnly[] {
  return [
    ...routes.flatMap((route): readonly ObservedOnly[] => {
      const { unsafeObserveUntil: untilMs } = route
      const name = 'host' in route ? route.host : route.prefix
      return untilMs === undefined ? [] : [{ kind: 'route', name, untilMs }]
    }),
    ...policy.unsafeObserveTasks.map(({ task, until }): ObservedOnly => ({
      kind: 'task',
      name: task,
      untilMs: until,
    })),
  ]
}

/** The later end of the two: that of the route, and that of the task itself, not of what it was delegated from. */
export function observedUntilMs(
  { policy }: Pick<Config, 'policy'>,
  {
    route: { unsafeObserveUntilMs: routeMs },
    chain,
  }: {
    readonly route: { readonly unsafeObserveUntilMs?: number | undefined }
    readonly chain: GrantChain
  },
): number | undefined {
  const taskMs = policy.unsafeObserveTasks.find(({ task }) => task === chain.leaf.txn)?.until
  if (taskMs === undefined || routeMs === undefined) return taskMs ?? routeMs
  return Math.max(taskMs, routeMs)
}
