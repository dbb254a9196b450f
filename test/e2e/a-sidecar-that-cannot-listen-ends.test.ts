import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runCli, startWorld, type World } from '../kit/world.ts'

let world: World
let directory: string
const taken = createServer()

beforeAll(async () => {
  world = await startWorld()
  directory = await mkdtemp(join(tmpdir(), 'chaperone-taken-'))
  await cp(world.sidecar.directory, directory, { recursive: true })
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
})
afterAll(async () => {
  await new Promise((resolve) => taken.close(resolve))
  await rm(directory, { recursive: true })
  await world[Symbol.asyncDispose]()
})

describe('a sidecar that cannot listen', () => {
  test.each(['agent', 'admin'])('ends with 3 and says why: the %s port is taken', async (name) => {
    const address = takenAddress()
    const config = join(directory, 'chaperone.yaml')
    await listenAt(config, { agent: '127.0.0.1:0', admin: '127.0.0.1:0', [name]: address })

    // One that stayed up half alive would run into the deadline of the test.
    const { code, stderr } = await runCli(['run', '-c', config])

    expect(code).toBe(3)
    expect(stderr).toMatch(/EADDRINUSE/)
  })
})

function takenAddress(): string {
  const address = taken.address()
  if (address === null || typeof address === 'string') throw new TypeError('Expected a TCP address')
  return `127.0.0.1:${address.port}`
}

async function listenAt(config: string, listen: Readonly<Record<string, string>>): Promise<void> {
  const lines = (await readFile(config, 'utf8')).split('\n')
  const others = lines.filter((line) => !line.startsWith('listen:'))
  await writeFile(config, [...others, `listen: ${JSON.stringify(listen)}`].join('\n'))
}
