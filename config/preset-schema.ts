/** A rule for the common cases, without Cedar: `policy.presets`. */
import * as v from 'valibot'
import { name, sensitivity, text } from './setting.ts'

/** Reads or writes, as the Cedar groups of the same names. */
const access = v.picklist(['read', 'write'], 'Expected read or write')

const method = v.pipe(
  v.string(),
  v.regex(/^[A-Z]{1,16}$/, 'Expected a method such as GET, in capitals'),
)

/**
 * Cedar's `*` passes over slashes: one segment cannot be said, so only whole subtrees can. The raw path is compared, so
 * only characters of one spelling can be said: `%40` is `@` to the upstream, and a forbid of the one would miss the other.
 */
const path = v.pipe(
  v.string(),
  v.regex(
    /^(?:\/[A-Za-z0-9._~/-]*|(?:\/[A-Za-z0-9._~/-]+)?\/\*\*)$/,
    'Expected a path of letters, digits and ._~-, perhaps with "/**" at its end: other characters have two spellings',
  ),
)

const tool = v.pipe(
  v.string(),
  v.regex(/^[^*\s"\\]+\*?$|^\*$/, 'Expected the name of a tool, perhaps with "*" at its end'),
)

function list<T extends v.GenericSchema<unknown, string>>(item: T, about: string) {
  return v.exactOptional(
    v.pipe(
      v.array(item),
      v.minLength(1, 'Expected at least one'),
      v.maxLength(64),
      v.description(about),
    ),
  )
}

export const preset = v.strictObject({
  id: v.pipe(
    v.string(),
    v.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'Expected an id of lower-case letters, digits and "-"'),
    v.description('The policy is named `preset/<id>`.'),
  ),
  effect: v.pipe(
    v.picklist(['allow', 'forbid'], 'Expected allow or forbid'),
    v.description('A forbid wins over every allow.'),
  ),
  agents: list(text, 'SPIFFE IDs or prefixes of them that end at a segment. Absent: every agent.'),
  upstreams: list(name, 'Names of upstreams. Absent: every upstream.'),
  access: v.exactOptional(
    v.pipe(access, v.description('`read` or `write`. Absent: both. A tool call is a write.')),
  ),
  methods: list(method, 'HTTP methods; then MCP and WebSockets are not meant.'),
  paths: list(
    path,
    'Paths at the upstream, exact or with `/**` at the end; then MCP and WebSockets are not meant.',
  ),
  tools: list(tool, 'MCP tools, perhaps with `*` at the end; then only calls of tools are meant.'),
  maxSensitivity: v.exactOptional(
    v.pipe(sensitivity, v.description('Only upstreams of at most this sensitivity.')),
  ),
  reason: v.exactOptional(
    v.pipe(text, v.maxLength(500), v.description("Given to the agent's model with a denial.")),
  ),
})

export type Preset = v.InferOutput<typeof preset>
