import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const listed = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', '*.md']
const pages = execFileSync('git', listed, { cwd: root, encoding: 'utf8' })
  .split('\0')
  .filter((page) => page !== '' && existsSync(resolve(root, page)))

describe('Links in the documentation', () => {
  test('are looked for in every page', () => {
    expect(pages).toEqual(
      expect.arrayContaining(['README.md', 'ARCHITECTURE.md', 'docs/config.md']),
    )
  })

  test.each(pages)('%s: every relative link leads to a file, and to a heading of it', (page) => {
    const text = readFileSync(resolve(root, page), 'utf8')
    expect(relativeLinks(text).filter((link) => !leadsSomewhere(link, page))).toEqual([])
  })
})

function relativeLinks(text: string): readonly string[] {
  const prose = text.replace(/^```.*?^```/gms, '')
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link)
  return links.filter((link) => !/^[a-z]+:/.test(link))
}

function leadsSomewhere(link: string, page: string): boolean {
  const [path = '', anchor] = link.split('#')
  const target = path === '' ? resolve(root, page) : resolve(root, dirname(page), path)
  if (!target.startsWith(root) || !existsSync(target)) return false
  if (anchor === undefined) return true
  return statSync(target).isFile() && anchorsOf(readFileSync(target, 'utf8')).has(anchor)
}

/** As GitHub makes them: lower case, marks taken off, spaces as hyphens. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-'),
    ),
  )
}
