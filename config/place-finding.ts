import { formatPath, type ConfigProblem, type Finding } from './problem.ts'
import type { YamlSource } from './yaml-source.ts'

/** Says where in its file a finding stands. */
export function placeFinding(
  { path, message, suggestion, atKey = false }: Finding,
  { source, file }: { readonly source: YamlSource; readonly file: string },
): ConfigProblem {
  return {
    file,
    ...source.locate(path, { atKey }),
    path: formatPath(path),
    message,
    ...(suggestion !== undefined && { suggestion }),
  }
}
