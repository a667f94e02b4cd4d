import { type BuildOptions, build } from 'esbuild';

const common = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  sourcemap: true,
  legalComments: 'external',
  logLevel: 'warning',
} satisfies BuildOptions;

/** Bundles the command into a directory as bin/ring1 expects it. Bundling inlines the const enums. */
export async function bundleCommand(outdir: string): Promise<void> {
  await build({
    ...common,
    outdir,
    entryPoints: { cli: 'src/cli/main.ts', 'jit-worker': 'src/node/jit-worker.ts' },
    platform: 'node',
    // With its comments, some of which are not ASCII, V8 would keep the text with two bytes for each character.
    minifyWhitespace: true,
    // Node shows the line that an error comes from.
    lineLimit: 160,
    // The reference guest is part of the command.
    loader: { '.elf': 'binary' },
  });
}

/** Bundles the library, without Node's built-in modules, so that a browser can load it. */
export async function bundleLibrary(outdir: string): Promise<void> {
  await build({
    ...common,
    outdir,
    entryPoints: { index: 'src/index.ts' },
    platform: 'neutral',
    mainFields: ['module', 'main'],
  });
}
