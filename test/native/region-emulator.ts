import { ProcessorEmulator } from './emulator.ts';

/** The project's processor with every block made into a region before it is executed first. */
export function createEmulator(): ProcessorEmulator {
  return new ProcessorEmulator({ jit: { threshold: 1, regionsPerModule: 1 } });
}
