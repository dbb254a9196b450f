/** A proxy of the Node world that does nothing but pass. Arguments: the port of the upstream, its name. */
import { listenAsPeer } from '../test/kit/peer-proxy.ts'

const [, , upstreamPort, name = ''] = process.argv
const port = await listenAsPeer(name, { upstream: `127.0.0.1:${upstreamPort}`, port: 0 })
process.send?.({ port })
process.on('disconnect', () => process.exit(0))
