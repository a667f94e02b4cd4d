import { i32, store64, sub } from '../../wasm/expression.ts';
import { CompilationHint, type FunctionBuilder, ModuleBuilder, type Signature } from '../../wasm/module.ts';
import { HOST_FUNCTIONS, type HostFunction, type Semantics, type Shape } from '../semantics/context.ts';
import { State } from '../state.ts';
import { type Functions, RecordContext, type Ways } from './context.ts';
import type { InterpreterOptions } from './options.ts';

/** What a cold handler answers, besides 0 (go on) and a positive Exit (leave at the instruction). */
export const enum Answer {
  /** Control goes to State.rip. */
  jump = -1,
  /** Taken direct branch of the record. */
  branch = -2,
  /** The same of a record that stands for two instructions. */
  fusedBranch = -3,
  /** Exits behind the instruction are −4 − exit. */
  leaveAfter = -4,
}

/** (state) → an Exit, the flags or CF. */
export const STATE_TO_INTEGER: Signature = { parameters: ['i32'], result: 'i32' };
/** (state, record) → 0, an Exit or an Answer. */
export const COLD_HANDLER: Signature = { parameters: ['i32', 'i32'], result: 'i32' };

export function importHost(module: ModuleBuilder): Record<HostFunction, number> {
  const host = {} as Record<HostFunction, number>;
  for (const name of Object.keys(HOST_FUNCTIONS) as HostFunction[]) {
    host[name] = module.importFunction(name, {
      parameters: new Array<'i32'>(HOST_FUNCTIONS[name]).fill('i32'),
      result: 'i32',
    });
  }
  return host;
}

/** A module with a function for each shape: `0`, `1` … */
export function buildHandlers(options: InterpreterOptions, shapes: readonly Shape[]): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memory.size / 0x1_0000);
  // Most of many are never called.
  if (shapes.length > 1) module.hint = CompilationHint.lazily;
  const functions: Functions = {
    host: importHost(module),
    flags: module.importFunction('flags', STATE_TO_INTEGER),
    carry: module.importFunction('carry', STATE_TO_INTEGER),
  };
  for (const [index, shape] of shapes.entries()) {
    emitHandler(module.function(COLD_HANDLER, String(index)).builder, shape, functions, options);
  }
  return module.build();
}

function emitHandler(fn: FunctionBuilder, shape: Shape, functions: Functions, options: InterpreterOptions): void {
  const { semantics, tlbEntries } = options;
  const state = fn.parameter(0, 'i32');
  const ways: Ways = {
    next: () => fn.return(i32(0)),
    leave: (kind) => fn.return(kind),
    leaveAfter: (kind) => fn.return(sub(i32(Answer.leaveAfter), kind)),
    branch: () => fn.return(i32(shape.fused ? Answer.fusedBranch : Answer.branch)),
    jump: (target) => {
      fn.store(store64(state, target, State.rip));
      fn.return(i32(Answer.jump));
    },
  };
  const context = new RecordContext(fn, shape, state, fn.parameter(1, 'i32'), ways, functions, tlbEntries);
  emitMeaning(context, semantics.get(shape.operation) ?? (semantics.get('ud2') as Semantics));
  context.done();
  fn.unreachable();
}

/** An instruction, and the conditional jump behind it when the record stands for both. */
export function emitMeaning(context: RecordContext, semantics: Semantics): void {
  semantics(context);
  const { fused } = context.shape;
  if (fused) context.fn.if(context.condition(fused), () => context.branch());
}
