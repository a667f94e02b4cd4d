import { rm } from 'node:fs/promises';
import { bundleCommand, bundleLibrary } from './bundle.ts';

/** Bundles the command and the library to dist/. */
await rm('dist', { recursive: true, force: true });
await bundleCommand('dist');
await bundleLibrary('dist');
