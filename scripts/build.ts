import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type BuildOptions, build } from 'esbuild';

/** Bundles the command and the library to dist/. Bundling inlines the const enums. */
const common = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  outdir: 'dist',
  sourcemap: true,
  legalComments: 'external',
  logLevel: 'warning',
} satisfies BuildOptions;

await rm('dist', { recursive: true, force: true });
await build({ ...common, entryPoints: { cli: 'src/cli/main.ts' }, platform: 'node' });
// The library's part is bundled without Node's built-in modules, so that a browser can load it.
if (existsSync('src/index.ts')) {
  await build({
    ...common,
    entryPoints: { index: 'src/index.ts' },
    platform: 'neutral',
    mainFields: ['module', 'main'],
  });
}
