import { defineConfig } from 'vitest/config';

const GUESTS = 'test/guest/**/*.test.ts';

export default defineConfig({
  test: {
    // Boots of whole guests take tens of seconds on a slow machine; a hang still ends.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [
      {
        extends: true,
        test: { name: 'parts', include: ['test/**/*.test.ts', 'src/**/*.test.ts'], exclude: [GUESTS] },
      },
      {
        // Whole guests come last and one after another: each wants a processor of the machine for itself.
        extends: true,
        test: { name: 'guests', include: [GUESTS], maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
