import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import { AbstractConnector, type RedisOptions } from 'ioredis'
import type { RedisAddress } from '../config/redis-url.ts'

export interface MasterConnectorOptions {
  /** Asked before every connection. Rejects when nobody could say; it is asked again until the client disconnects. */
  readonly findMaster: (signal: AbortSignal) => Promise<RedisAddress>
  readonly tls: ConnectionOptions | undefined
  readonly disconnectTimeoutMs: number
  /** How long to rest after a question that nobody answered, milliseconds. */
  readonly retryMs: () => number
}

/**
 * Has a plain client of ioredis connect to whichever server is the master by now. The client's own `Cluster` does not serve
 * the feed: it subscribes on a random node, and does not notice that one has fallen silent.
 */
export function masterConnector(
  options: MasterConnectorOptions,
): NonNullable<RedisOptions['Connector']> {
  return class extends AbstractConnector {
    #stopped = new AbortController()

    constructor() {
      super(options.disconnectTimeoutMs)
    }

    /** What the client read of the server by INFO: a deposed master that came back as a replica is left at once. */
    override check({ role = 'master' }: { readonly role?: string }): boolean {
      return role === 'master'
    }

    override async connect(emit: (type: string, error: Error) => void) {
      this.connecting = true
      this.#stopped = new AbortController()
      const { signal } = this.#stopped
      for (;;) {
        try {
          const address = await options.findMaster(signal)
          signal.throwIfAborted()
          const stream = options.tls ? connectTls({ ...address, ...options.tls }) : connect(address)
          this.stream = stream
          stream.once('error', (error) => {
            this.firstError = error
          })
          return stream
        } catch (error) {
          // The client ends for good when this rejects: it does so only when it was told to.
          signal.throwIfAborted()
          if (error instanceof Error) emit('error', error)
          await delay(options.retryMs(), undefined, { signal })
        }
      }
    }

    override disconnect(): void {
      this.#stopped.abort()
      super.disconnect()
    }
  }
}
