import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { obtain, type Progress, progressOnStderr } from './archive.ts';
import { buildInitramfs, type InitramfsOptions } from './initramfs.ts';

/** What ring1 boots when it is given no files: Debian's own kernels and a busybox userland. */

/** Debian's kernels by flavour: `cloud-amd64` has drivers for virtual machines only, `amd64` is the general one. */
export type KernelFlavour = 'cloud-amd64' | 'amd64';

/** @returns the path of a vmlinuz. */
export async function kernel(flavour: KernelFlavour, progress: Progress = progressOnStderr): Promise<string> {
  const directory = await obtain(
    {
      name: `kernel-${flavour}`,
      packageName: `linux-image-${flavour}`,
      dependency: /^linux-image-\d/,
      files: [{ path: /^boot\/vmlinuz-/, as: 'vmlinuz' }],
    },
    progress,
  );
  return join(directory, 'vmlinuz');
}

/** @returns the path of a statically linked busybox for x86-64. */
export async function busybox(progress: Progress = progressOnStderr): Promise<string> {
  const directory = await obtain(
    {
      name: 'busybox-static',
      packageName: 'busybox-static',
      files: [{ path: /^(usr\/)?bin\/busybox$/, as: 'busybox' }],
    },
    progress,
  );
  return join(directory, 'busybox');
}

/** @returns an initramfs (cpio, gzip) that ends in a shell; see initramfs.ts for what it understands. */
export async function initramfs(
  options: InitramfsOptions = {},
  progress: Progress = progressOnStderr,
): Promise<Uint8Array> {
  return buildInitramfs(await readFile(await busybox(progress)), options);
}
