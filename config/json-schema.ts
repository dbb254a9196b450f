import { toJsonSchema } from '@valibot/to-json-schema'
import { configSchema } from './schema.ts'

/**
 * The JSON Schema of `chaperone.yaml`, for editors: durations and sizes are text with a pattern. Bounds of those, and
 * what settings mean to each other, are beyond it: `chaperone check` has the last word. Needs a development dependency.
 */
export function configJsonSchema(): object {
  return {
    ...toJsonSchema(configSchema, {
      typeMode: 'input',
      // The checks within durations and sizes cannot be told; nothing else may fall away unseen.
      overrideAction: ({ valibotAction, jsonSchema }) =>
        valibotAction.type === 'raw_transform' ? jsonSchema : undefined,
    }),
    title: 'chaperone.yaml',
  }
}
