import { accessSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { type KernelFlavour, kernel } from '../guests/recipes.ts';

/** Where there is no apt there is no Debian kernel, and tests that need one are skipped; anywhere else they must run. */
export const hasPackageArchive = (process.env.PATH ?? '').split(delimiter).some((directory) => {
  try {
    accessSync(join(directory, 'apt-get'));
    return true;
  } catch {
    return false;
  }
});

export async function debianKernel(flavour: KernelFlavour): Promise<Uint8Array> {
  return readFile(await kernel(flavour));
}
