import type { HostMemory } from '../../memory/host-memory.ts';
import type { HOST_FUNCTIONS, HostFunction, Semantics } from '../semantics/context.ts';
import type { ShapeLists } from '../semantics/shapes/index.ts';

/** A host function takes as many numbers as HOST_FUNCTIONS says. */
type HostFunctionOf<Count extends number> = Count extends 1
  ? (state: number) => number
  : Count extends 2
    ? (state: number, a: number) => number
    : Count extends 3
      ? (state: number, a: number, b: number) => number
      : Count extends 4
        ? (state: number, a: number, b: number, c: number) => number
        : (state: number, a: number, b: number, c: number, d: number, e: number) => number;
export type HostFunctions = { readonly [Name in HostFunction]: HostFunctionOf<(typeof HOST_FUNCTIONS)[Name]> };

export interface InterpreterOptions {
  readonly memory: HostMemory;
  readonly host: HostFunctions;
  /** Meaning of each operation. */
  readonly semantics: ReadonlyMap<string, Semantics>;
  /** Shapes whose handlers are part of the big functions. */
  readonly hotShapes: ShapeLists;
  /** Shapes whose handlers are made together when the first of their kind is met: a module for each costs more. */
  readonly commonShapes: ShapeLists;
  /** Entries of each TLB, a power of two. */
  readonly tlbEntries: number;
  /** Address of the table of decoded code by place. */
  readonly codeSlots: number;
  /** Regions that there is room for. */
  readonly regionSlots: number;
  /** Address of one 64-bit counter for each slot of the function table: executions of cold handlers, for the profile. */
  readonly profile?: number;
}
