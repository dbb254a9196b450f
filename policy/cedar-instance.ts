import type {
  formatPolicies,
  policySetTextToParts,
  policyToJson,
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
  templateToJson,
  validate,
} from '@cedar-policy/cedar-wasm/nodejs'
import { cedarModule } from './cedar-module.ts'

/** What we call of Cedar. Each of them may throw. */
export interface CedarFunctions {
  readonly formatPolicies: typeof formatPolicies
  readonly policySetTextToParts: typeof policySetTextToParts
  readonly policyToJson: typeof policyToJson
  readonly preparsePolicySet: typeof preparsePolicySet
  readonly preparseSchema: typeof preparseSchema
  readonly statefulIsAuthorized: typeof statefulIsAuthorized
  readonly templateToJson: typeof templateToJson
  readonly validate: typeof validate
}

/** Everything that an instance at rest holds. Another that begins with it knows the same policies at once. */
export interface CedarImage {
  readonly memory: ArrayBuffer
  /** Length of the table through which Cedar holds values of JavaScript. */
  readonly externrefs: number
}

/**
 * One Cedar of its own. The published package has one for the whole process, and whatever makes that throw often enough
 * ends it for good: a throw leaves its stack behind, and about 1100 of them are all of it. This one is thrown away.
 */
export class CedarInstance {
  readonly #wasm: CedarExports
  readonly #functions: CedarFunctions
  #throws = 0

  constructor(image?: CedarImage) {
    this.#wasm = instantiate()
    this.#functions = bind(this.#wasm)
    if (image) restore(this.#wasm, image)
  }

  /** True once it has thrown too often, or trapped: its answers are no longer worth anything. */
  get isSpent(): boolean {
    return this.#throws >= maxThrows
  }

  /** Calls Cedar. Undefined when it threw, or is spent. */
  call<T>(ask: (cedar: CedarFunctions) => T): T | undefined {
    if (this.isSpent) return undefined
    try {
      return ask(this.#functions)
    } catch (error) {
      // A trap, or a stack that ran out, leaves the instance broken; anything else costs it a little of its stack.
      const isBroken = error instanceof WebAssembly.RuntimeError || error instanceof RangeError
      this.#throws += isBroken ? maxThrows : 1
      return undefined
    }
  }

  /** Undefined when it has ever thrown: what that left behind is not passed on. */
  image(): CedarImage | undefined {
    if (this.#throws > 0) return undefined
    const { memory, __wbindgen_externrefs: table } = this.#wasm
    return { memory: memory.buffer.slice(0), externrefs: table.length }
  }
}

/** An instance dies of about 1100 throws. */
const maxThrows = 100
const pageBytes = 65_536

/** What the glue of wasm-bindgen uses. Strings and values cross as [pointer, length] and as references. */
interface CedarExports extends Omit<
  CedarFunctions,
  'policySetTextToParts' | 'preparsePolicySet' | 'preparseSchema'
> {
  readonly memory: WebAssembly.Memory
  readonly __wbindgen_externrefs: WebAssembly.Table
  policySetTextToParts(
    pointer: number,
    length: number,
  ): ReturnType<CedarFunctions['policySetTextToParts']>
  preparsePolicySet(
    pointer: number,
    length: number,
    policies: Parameters<CedarFunctions['preparsePolicySet']>[1],
  ): ReturnType<CedarFunctions['preparsePolicySet']>
  preparseSchema(
    pointer: number,
    length: number,
    schema: Parameters<CedarFunctions['preparseSchema']>[1],
  ): ReturnType<CedarFunctions['preparseSchema']>
  __externref_table_alloc(): number
  __wbindgen_exn_store(index: number): void
  __wbindgen_malloc(length: number, alignment: number): number
  __wbindgen_start(): void
}

function instantiate(): CedarExports {
  const module = cedarModule()
  const glue: Record<string, (...args: never[]) => unknown> = {}
  let wasm: CedarExports | undefined
  const exports = (): CedarExports => {
    if (!wasm) throw new Error('Cedar is not there yet')
    return wasm
  }
  const known = imports(exports)
  for (const { name } of WebAssembly.Module.imports(module)) {
    // The names end in a hash of the version: another version may want another glue, so an unknown name is refused.
    const stem = name.replace(/_[0-9a-f]{16}$/, '')
    const found = known[stem]
    if (!found) throw new Error(`Cedar asks for "${stem}", which is not known`)
    glue[name] = found
  }
  const { exports: found } = new WebAssembly.Instance(module, { './cedar_wasm_bg.js': glue })
  if (!isCedar(found)) throw new Error('Cedar has not what is asked of it')
  wasm = found
  wasm.__wbindgen_start()
  return wasm
}

/** The package is pinned: where the names are there, so is what they stand for. */
function isCedar(exports: object): exports is CedarExports {
  return exportNames.every((name) => name in exports)
}

const exportNames = [
  'formatPolicies',
  'policySetTextToParts',
  'policyToJson',
  'preparsePolicySet',
  'preparseSchema',
  'statefulIsAuthorized',
  'templateToJson',
  'validate',
  'memory',
  '__wbindgen_externrefs',
  '__externref_table_alloc',
  '__wbindgen_exn_store',
  '__wbindgen_malloc',
  '__wbindgen_start',
] as const satisfies readonly (keyof CedarExports)[]

/** As in the package's own glue, one instance apart from the other. */
function imports(
  wasm: () => CedarExports,
): Readonly<Record<string, (...args: never[]) => unknown>> {
  /** Cedar turns what is thrown here into its own error. */
  const guarded = <A, B>(call: (a: A, b: B) => unknown) => {
    return (a: A, b: B): unknown => {
      try {
        return call(a, b)
      } catch (error) {
        const index = wasm().__externref_table_alloc()
        wasm().__wbindgen_externrefs.set(index, error)
        return wasm().__wbindgen_exn_store(index)
      }
    }
  }
  return {
    __wbg_parse: guarded((pointer: number, length: number) =>
      JSON.parse(readText(wasm(), { pointer, length })),
    ),
    __wbg_stringify: guarded((value: unknown) => JSON.stringify(value)),
    __wbg___wbindgen_throw: (pointer: number, length: number) => {
      throw new Error(readText(wasm(), { pointer, length }))
    },
    __wbg___wbindgen_string_get: (result: number, value: unknown) => {
      const { pointer, length } =
        typeof value === 'string' ? writeText(wasm(), value) : { pointer: 0, length: 0 }
      const view = new DataView(wasm().memory.buffer)
      view.setInt32(result, pointer, true)
      view.setInt32(result + 4, length, true)
    },
    __wbg___wbindgen_is_undefined: (value: unknown) => value === undefined,
    __wbindgen_init_externref_table: () => {
      const { __wbindgen_externrefs: table } = wasm()
      const offset = table.grow(4)
      table.set(0, undefined)
      for (const [index, value] of [undefined, null, true, false].entries())
        table.set(offset + index, value)
    },
  }
}

function bind(wasm: CedarExports): CedarFunctions {
  const put = (text: string): [number, number] => {
    const { pointer, length } = writeText(wasm, text)
    return [pointer, length]
  }
  return {
    formatPolicies: (call) => wasm.formatPolicies(call),
    policySetTextToParts: (text) => wasm.policySetTextToParts(...put(text)),
    policyToJson: (policy) => wasm.policyToJson(policy),
    preparsePolicySet: (id, policies) => wasm.preparsePolicySet(...put(id), policies),
    preparseSchema: (name, schema) => wasm.preparseSchema(...put(name), schema),
    statefulIsAuthorized: (call) => wasm.statefulIsAuthorized(call),
    templateToJson: (template) => wasm.templateToJson(template),
    validate: (call) => wasm.validate(call),
  }
}

/**
 * The memory is all that changes between two calls: the one mutable global is the stack pointer, which is back at its
 * start, and the slots of the table are free again.
 */
function restore(wasm: CedarExports, { memory: bytes, externrefs }: CedarImage): void {
  const { memory, __wbindgen_externrefs: table } = wasm
  const missing = (bytes.byteLength - memory.buffer.byteLength) / pageBytes
  if (missing > 0) memory.grow(missing)
  new Uint8Array(memory.buffer).set(new Uint8Array(bytes))
  if (externrefs > table.length) table.grow(externrefs - table.length)
}

interface Place {
  readonly pointer: number
  readonly length: number
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true, fatal: true })
const encoder = new TextEncoder()

function readText({ memory }: CedarExports, { pointer, length }: Place): string {
  const start = pointer >>> 0
  return decoder.decode(new Uint8Array(memory.buffer, start, length >>> 0))
}

/** Cedar frees it. */
function writeText(wasm: CedarExports, text: string): Place {
  const bytes = encoder.encode(text)
  const pointer = wasm.__wbindgen_malloc(bytes.length, 1) >>> 0
  new Uint8Array(wasm.memory.buffer, pointer, bytes.length).set(bytes)
  return { pointer, length: bytes.length }
}
