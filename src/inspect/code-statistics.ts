import type { Jit } from '../cpu/jit/jit.ts';
import type { ProcessorGroup } from '../cpu/processor.ts';

/** What compiling guests' code cost a host, and what came of it. A region is a piece of code with one entry. */
export interface JitStatistics {
  /** Regions that can be entered. */
  readonly regions: number;
  readonly regionsCompiled: number;
  /** Those of them that were translated on another thread, while guests went on. */
  readonly regionsTranslatedAside: number;
  /** How often regions were made again, in one module with those that they lead to. */
  readonly regionsGathered: number;
  /** Regions given up since: their code was written to, or they were evicted. */
  readonly regionsDropped: number;
  /** Those of the dropped that had to make room. */
  readonly regionsEvicted: number;
  /** WebAssembly modules with regions that can be entered, and the bytes of these modules. */
  readonly modules: number;
  readonly moduleBytes: number;
  readonly modulesCompiled: number;
  readonly moduleBytesCompiled: number;
  /** Guest instructions in all that was compiled. */
  readonly instructionsCompiled: number;
  /** Time that guests waited while their code was compiled: all of it that was done on their own thread. */
  readonly compileSeconds: number;
  /**
   * Time that passed on another thread while it translated code and compiled modules of several regions, and guests went
   * on; that thread is one for all hosts of a process, and this is what it did for this one. The engine's own threads,
   * which make code quicker and compile gathered regions, are not in it.
   */
  readonly asideSeconds: number;
}

/** The figures of a host's processors, for all its domains. */
export interface CodeStatistics {
  readonly decodedInstructions: number;
  /** Runs of decoded code that were given up because their bytes were written to. */
  readonly droppedBlocks: number;
  /** Handlers of instructions that were generated when they were first met. */
  readonly coldHandlers: number;
  /** Null where all is left to the interpreter. */
  readonly jit: JitStatistics | null;
}

export function codeStatistics({ parts: { code }, interpreter, jit }: ProcessorGroup): CodeStatistics {
  const { decodedInstructions, droppedBlocks } = code;
  return {
    decodedInstructions,
    droppedBlocks,
    coldHandlers: interpreter.coldHandlers,
    jit: jit ? jitStatistics(jit) : null,
  };
}

function jitStatistics({ regions, dropped, liveModules, liveBytes, counters }: Jit): JitStatistics {
  return {
    regions,
    regionsCompiled: counters.compiled,
    regionsTranslatedAside: counters.translatedAside,
    regionsGathered: counters.gathered,
    regionsDropped: dropped,
    regionsEvicted: counters.evicted,
    modules: liveModules,
    moduleBytes: liveBytes,
    modulesCompiled: counters.modules,
    moduleBytesCompiled: counters.bytes,
    instructionsCompiled: counters.instructions,
    compileSeconds: counters.milliseconds / 1000,
    asideSeconds: counters.millisecondsAside / 1000,
  };
}
