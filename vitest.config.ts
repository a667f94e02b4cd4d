import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'src/**/*.test.ts'],
    // Boots of whole guests take tens of seconds on a slow machine; a hang still ends.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
