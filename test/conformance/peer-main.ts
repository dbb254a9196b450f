/** A proxy of the Node world. Arguments: its name, the port to listen on, the host and port of the upstream. */
import { listenAsPeer } from '../kit/peer-proxy.ts'

const [, , name = '', port, upstream = ''] = process.argv
await listenAsPeer(name, { upstream, port: Number(port) })
