import { mkdir, writeFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeConfigFolder, type ConfigFolder } from '../kit/config-folder.ts'
import { runPolicy } from '../kit/run-policy.ts'

let folder: ConfigFolder
beforeEach(async () => {
  folder = await writeConfigFolder()
  for (const name of ['policies', 'shown']) await mkdir(folder.file(name))
  await folder.write(
    'policies/a.cedar',
    '// Ours; "quoted".\n@id("a") forbid (principal, action, resource)\nwhen { context.path == "/a;b" };\n',
  )
  await folder.load({
    policy: `policy: { directory: policies, presets: [{ id: reads, effect: allow, access: read, reason: 'Wörter "und" mehr' }] }`,
  })
})
afterEach(() => folder[Symbol.asyncDispose]())

const shown = (): string => folder.file('shown')

describe('chaperone policy show --cedar', () => {
  test('prints the whole set as text that check takes for the same set', async () => {
    const config = ['-c', folder.file('chaperone.yaml')]
    const { out, code } = await runPolicy('show', '--cedar', ...config)
    expect(code).toBe(0)
    for (const id of ['system/sensitivity', 'a', 'preset/reads'])
      expect(out).toContain(`@id("${id}")`)
    await writeFile(`${shown()}/all.cedar`, out)
    const checked = await runPolicy('check', '-d', shown())
    expect(checked).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+ policies, set \w/) })
    expect(checked.out).toBe((await runPolicy('check', ...config)).out)
  })

  test('does not let a file change what is shipped', async () => {
    const { out } = await runPolicy('show', '--cedar')
    const system = /@id\("(system\/[^"]+)"\)[^;]*;/.exec(out) ?? ['']
    await writeFile(`${shown()}/all.cedar`, system[0].replace('forbid', 'permit'))
    const { code, err } = await runPolicy('check', '-d', shown())
    expect(code).toBe(1)
    expect(err).toContain(`The @id "${system[1]}" stands twice`)
  })
})
