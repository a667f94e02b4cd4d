import type { GatheringOptions } from '../src/cpu/jit/gatherer.ts';

/** Two runs after a region was entered it is in a module with all others. */
export const ALL_THE_TIME: GatheringOptions = {
  census: 0,
  recess: 0,
  rest: 0,
  share: 0,
  atLeast: 1,
  piece: 1000,
  pause: 0,
};
