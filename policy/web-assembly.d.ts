/** What we use of WebAssembly: the standard library types it for browsers alone. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array)
    static imports(module: Module): readonly { readonly name: string }[]
  }
  class Instance {
    constructor(module: Module, imports: Readonly<Record<string, object>>)
    readonly exports: object
  }
  class RuntimeError extends Error {}
  interface Memory {
    readonly buffer: ArrayBuffer
    /** In pages of 64 KiB. */
    grow(pages: number): number
  }
  interface Table {
    readonly length: number
    grow(entries: number): number
    set(index: number, value: unknown): void
  }
}
