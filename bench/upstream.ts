/** The upstream of all benchmarks: 1 KB of JSON, and endless event streams. Tells its port to the parent process. */
import { createServer, type Server } from 'node:http'

const body = Buffer.from(JSON.stringify({ data: 'x'.repeat(1010) }))

createServer((req, res) => {
  req.resume()
  if (req.url === '/events') {
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    const timer = setInterval(() => res.write('data: {"tick":1}\n\n'), 100)
    res.on('close', () => clearInterval(timer))
    return
  }
  // Each event says when it was written, on the clock that all processes share. Only the sidecar takes the prefix off.
  if (req.url?.endsWith('/timed')) {
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    const timer = setInterval(() => res.write(`data: ${process.hrtime.bigint()}\n\n`), 50)
    res.on('close', () => clearInterval(timer))
    return
  }
  res.writeHead(200, { 'content-type': 'application/json', 'content-length': String(body.length) })
  res.end(body)
}).listen(0, '127.0.0.1', function listening(this: Server) {
  const address = this.address()
  if (address !== null && typeof address === 'object') process.send?.({ port: address.port })
})
process.on('disconnect', () => process.exit(0))
