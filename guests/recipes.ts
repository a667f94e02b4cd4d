import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decompress } from '../src/boot/decompress.ts';
import { obtain, type Progress, progressOnStderr } from './archive.ts';
import { buildInitramfs, type InitramfsOptions, type KernelModules } from './initramfs.ts';

/** What ring1 boots when it is given no files: Debian's own kernels and a busybox userland. */

/** Debian's kernels by flavour: `cloud-amd64` has drivers for virtual machines only, `amd64` is the general one. */
export type KernelFlavour = 'cloud-amd64' | 'amd64';

/**
 * Drivers of what ring1 offers, in the order in which they can be loaded. Those that a kernel has built in are not in
 * its package.
 */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_mmio',
  'virtio_blk',
  'virtio-rng',
  'virtio_console',
  'failover',
  'net_failover',
  'virtio_net',
  'crc32c_generic',
  'crc16',
  'mbcache',
  'jbd2',
  'ext4',
];

/** Kernel and modules come out of one package, because a kernel loads only modules that were built with it. */
function linux(flavour: KernelFlavour, progress: Progress): Promise<string> {
  const modules = MODULES.map((name) => ({
    path: new RegExp(`^(?:usr/)?lib/modules/([^/]+)/kernel/.*/${name}\\.ko(\\.xz)?$`),
    as: `modules/$1/${name}.ko$2`,
    isOptional: true,
  }));
  return obtain(
    {
      name: `linux-${flavour}`,
      packageName: `linux-image-${flavour}`,
      dependency: /^linux-image-\d/,
      files: [{ path: /^boot\/vmlinuz-.*/, as: 'vmlinuz' }, ...modules],
    },
    progress,
  );
}

/** @returns the path of a vmlinuz. */
export async function kernel(flavour: KernelFlavour, progress: Progress = progressOnStderr): Promise<string> {
  return join(await linux(flavour, progress), 'vmlinuz');
}

/** @returns the modules of `kernel` that an initramfs may need. */
export async function kernelModules(
  flavour: KernelFlavour,
  progress: Progress = progressOnStderr,
): Promise<KernelModules> {
  const root = join(await linux(flavour, progress), 'modules');
  const [release = ''] = await readdir(root);
  const present = new Set(await readdir(join(root, release)));
  const files: KernelModules['files'][number][] = [];
  for (const module of MODULES) {
    const [plain, packed] = [`${module}.ko`, `${module}.ko.xz`];
    if (present.has(plain)) files.push({ name: plain, data: await readFile(join(root, release, plain)) });
    else if (present.has(packed)) {
      files.push({ name: plain, data: decompress(await readFile(join(root, release, packed)), 'xz') });
    }
  }
  return { release, files };
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
