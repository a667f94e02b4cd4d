import { defineConfig } from 'vitest/config';

const GUESTS = 'test/guest/**/*.test.ts';

export default defineConfig({
  test: {
    // Boots of whole guests take tens of seconds on a slow machine; a hang still ends.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // By default one processor of the machine would be left to the process that only waits for the others.
    maxWorkers: '100%',
    // Of projects, the one whose name comes first in the alphabet is run first: so whole guests, which take longest, are not
    // what one processor is left alone with at the end.
    projects: [
      { extends: true, test: { name: 'guests', include: [GUESTS] } },
      {
        extends: true,
        test: { name: 'parts', include: ['test/**/*.test.ts', 'src/**/*.test.ts'], exclude: [GUESTS] },
      },
    ],
  },
});
