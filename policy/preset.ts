import type { Preset } from '../config/preset-schema.ts'
import type { PolicySource } from './cedar-source.ts'
import { quoted } from './cedar-text.ts'
import { rank } from './cedar-request.ts'

/** The presets of a configuration as Cedar: one evaluator, whatever a rule was written in. */
export function compilePresets(
  presets: readonly Preset[],
  { file }: { readonly file: string },
): PolicySource {
  return { file, text: presets.map(policyOf).join('\n') }
}

function policyOf(preset: Preset): string {
  const { id, effect, agents = [], reason } = preset
  const annotations = [`@id(${quoted(`preset/${id}`)})`]
  if (reason !== undefined) annotations.push(`@reason(${quoted(reason)})`)
  const principal =
    agents.length === 1 ? `principal in ${group(agents[0] ?? '')}` : 'principal is Chaperone::Agent'
  const conditions = conditionsOf(preset)
  const when = conditions.length === 0 ? '' : `\nwhen {\n  ${conditions.join(' &&\n  ')}\n}`
  return `${annotations.join('\n')}
${effect === 'allow' ? 'permit' : 'forbid'} (
  ${principal},
  ${actionOf(preset)},
  ${resourceOf(preset)}
)${when};
`
}

/** Methods and paths are of plain HTTP: a rule about them must not be read as one about what has none. */
function actionOf({ access, methods, paths, tools }: Preset): string {
  if (tools) return 'action == Chaperone::Action::"tools/call"'
  if (methods || paths) {
    const names = access === undefined ? ['read', 'write'] : [access]
    return `action in [${names.map((name) => `Chaperone::Action::"http.${name}"`).join(', ')}]`
  }
  return access === undefined ? 'action' : `action in Chaperone::Action::"${access}"`
}

function resourceOf({ upstreams = [] }: Preset): string {
  const [only] = upstreams
  return only !== undefined && upstreams.length === 1
    ? `resource == ${upstream(only)}`
    : 'resource is Chaperone::Upstream'
}

function conditionsOf(preset: Preset): readonly string[] {
  const { agents = [], upstreams = [], methods, paths, tools, maxSensitivity } = preset
  return [
    ...(agents.length > 1 ? [anyOf(agents.map((agent) => `principal in ${group(agent)}`))] : []),
    ...(upstreams.length > 1 ? [`[${upstreams.map(upstream).join(', ')}].contains(resource)`] : []),
    ...(methods ? [`[${methods.map(quoted).join(', ')}].contains(context.method)`] : []),
    ...(paths ? [anyOf(paths.map(pathTest))] : []),
    ...(tools ? [anyOf(tools.map((tool) => nameTest('context.tool', tool)))] : []),
    ...(maxSensitivity === undefined ? [] : [`resource.sensitivity <= ${rank(maxSensitivity)}`]),
  ]
}

/** `/v1/**` is what lies below `/v1`, and not `/v1` itself. The raw path is compared: the schema takes what has one spelling. */
function pathTest(path: string): string {
  return path.endsWith('/**')
    ? `context.path like ${quoted(path.slice(0, -1))}`
    : `context.path == ${quoted(path)}`
}

function nameTest(attribute: string, name: string): string {
  return name.endsWith('*')
    ? `${attribute} like ${quoted(name)}`
    : `${attribute} == ${quoted(name)}`
}

function anyOf(tests: readonly string[]): string {
  return tests.length === 1 ? (tests[0] ?? '') : `(${tests.join(' || ')})`
}

function group(prefix: string): string {
  return `Chaperone::AgentGroup::${quoted(prefix)}`
}

function upstream(name: string): string {
  return `Chaperone::Upstream::${quoted(name)}`
}
