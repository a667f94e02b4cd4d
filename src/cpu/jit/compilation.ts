/** A compilation that somebody looks at from time to time. */
export interface Compilation {
  readonly isDone: boolean;
  /** Undefined as long as it is not done, and when there was no memory for it. */
  readonly module: WebAssembly.Module | undefined;
}

/** @param isAside whether the engine compiles while the guest goes on */
export function compile(wasm: Uint8Array<ArrayBuffer>, isAside: boolean): Compilation {
  if (!isAside) return { isDone: true, module: new WebAssembly.Module(wasm) };
  const compilation: Compilation = { isDone: false, module: undefined };
  const settle = (module?: WebAssembly.Module) => Object.assign(compilation, { isDone: true, module });
  WebAssembly.compile(wasm).then(settle, () => settle());
  return compilation;
}
