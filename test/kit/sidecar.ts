import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const mainPath = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

export type AuditLine = Readonly<Record<string, unknown>>

/** The built program as a process of its own, with the folder that holds its configuration and audit. */
export interface SidecarProcess extends AsyncDisposable {
  readonly agentUrl: string
  readonly adminUrl: string
  readonly directory: string
  readonly pid: number
  /** What it wrote to stdout and stderr so far. */
  output(): string
  audit(): Promise<readonly AuditLine[]>
  /** The last audit record that fits; waits for one to come. Rejects after `withinMs` (default 30 s). */
  recorded(fits: (record: AuditLine) => boolean, withinMs?: number): Promise<AuditLine>
  readonly exited: Promise<number | null>
  kill(signal: NodeJS.Signals): void
  /** Resolves when `/readyz` says ready (or not ready, with `false`). */
  readyIs(wanted: boolean, withinMs?: number): Promise<void>
}

/**
 * Starts `chaperone run` on free ports. `files` are written into its folder first; `config` is its `chaperone.yaml`
 * with `listen` left to this function.
 */
export async function startSidecarProcess(options: {
  readonly config: string
  readonly files: Readonly<Record<string, string>>
  /** More members of `listen`. */
  readonly listen?: string
  /** Modules that its process loads first. */
  readonly imports?: readonly string[]
  readonly waitReady?: boolean
}): Promise<SidecarProcess> {
  const directory = await mkdtemp(join(tmpdir(), 'chaperone-test-'))
  for (const [name, text] of Object.entries(options.files)) {
    await writeFile(join(directory, name), text, { mode: 0o600 })
  }
  const listen = `listen: { agent: "127.0.0.1:0", admin: "127.0.0.1:0", ${options.listen ?? ''} }\n`
  const imports = (options.imports ?? []).flatMap((path) => ['--import', path])
  await writeFile(join(directory, 'chaperone.yaml'), options.config + listen)
  const child = spawn(
    process.execPath,
    [...imports, mainPath, 'run', '-c', join(directory, 'chaperone.yaml')],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  const exited = once(child, 'exit').then(([code]: unknown[]) =>
    typeof code === 'number' ? code : null,
  )
  const started = Promise.withResolvers<{ agentUrl: string; adminUrl: string }>()
  const read = (chunk: Buffer): void => {
    output += chunk.toString('utf8')
    const agentUrl = /"agentUrl":"([^"]+)"/.exec(output)?.[1]
    const adminUrl = /"adminUrl":"([^"]+)"/.exec(output)?.[1]
    if (agentUrl !== undefined && adminUrl !== undefined) started.resolve({ agentUrl, adminUrl })
  }
  child.stdout.on('data', read)
  child.stderr.on('data', read)
  void exited.then((code) =>
    started.reject(new Error(`chaperone run ended with ${code}:\n${output}`)),
  )
  const { agentUrl, adminUrl } = await started.promise
  const sidecar: SidecarProcess = {
    agentUrl,
    adminUrl,
    directory,
    pid: child.pid ?? 0,
    output: () => output,
    exited,
    kill: (signal) => void child.kill(signal),
    async audit() {
      const text = await readFile(join(directory, 'audit.ndjson'), 'utf8')
      return text
        .trim()
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line))
    },
    async recorded(fits, withinMs = 30_000) {
      const deadline = performance.now() + withinMs
      for (;;) {
        const found = (await sidecar.audit()).findLast((record) => fits(record))
        if (found) return found
        if (performance.now() > deadline)
          throw new Error(
            `No such audit record:\n${JSON.stringify(await sidecar.audit(), null, 1)}`,
          )
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    async readyIs(wanted, withinMs = 30_000) {
      const deadline = performance.now() + withinMs
      while ((await status(`${adminUrl}/readyz`)) !== (wanted ? 200 : 503)) {
        if (performance.now() > deadline)
          throw new Error(`readyz did not become ${wanted}:\n${output}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await exited
      }
      await rm(directory, { recursive: true, force: true })
    },
  }
  if (options.waitReady !== false) await sidecar.readyIs(true)
  return sidecar
}

function status(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request(url, (res) => {
      res.resume()
      resolve(res.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })
}
