import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decompress } from '../src/boot/decompress.ts';
import { type Architecture, obtain, type Progress, progressOnStderr } from './archive.ts';
import { buildInitramfs, type InitramfsOptions, type KernelModules, MODULES } from './initramfs.ts';

/** What ring1 boots when it is given no files: Debian's own kernels and a busybox userland. */

/**
 * Debian's kernels by flavour: `cloud-amd64` has drivers for virtual machines only, `amd64` is the general one. For 32-bit
 * x86 `686-pae` has page tables of three levels, `686` of two.
 */
export const KERNEL_FLAVOURS = ['cloud-amd64', 'amd64', '686-pae', '686'] as const;
export type KernelFlavour = (typeof KERNEL_FLAVOURS)[number];

export const ARCHITECTURES: Readonly<Record<KernelFlavour, Architecture>> = {
  'cloud-amd64': 'amd64',
  amd64: 'amd64',
  '686-pae': 'i386',
  '686': 'i386',
};

/** Kernel and modules come out of one package, because a kernel loads only modules that were built with it. */
function linux(flavour: KernelFlavour, progress: Progress): Promise<string> {
  const modules = MODULES.map((name) => ({
    path: new RegExp(`^(?:usr/)?lib/modules/([^/]+)/kernel/.*/${name}\\.ko(\\.xz)?$`),
    as: `modules/$1/${name}.ko$2`,
    isOptional: true,
  }));
  return obtain(
    {
      // What was kept for another list of modules lacks some.
      name: `linux-${flavour}-${createHash('sha256').update(MODULES.join()).digest('hex').slice(0, 8)}`,
      packageName: `linux-image-${flavour}`,
      dependency: /^linux-image-\d/,
      architecture: ARCHITECTURES[flavour],
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
    if (present.has(plain)) files.push({ name: module, data: await readFile(join(root, release, plain)) });
    else if (present.has(packed)) {
      files.push({ name: module, data: decompress(await readFile(join(root, release, packed)), 'xz') });
    }
  }
  return { release, files };
}

/** @returns the path of a statically linked busybox. */
export async function busybox(
  architecture: Architecture = 'amd64',
  progress: Progress = progressOnStderr,
): Promise<string> {
  const directory = await obtain(
    {
      name: architecture === 'amd64' ? 'busybox-static' : `busybox-static-${architecture}`,
      packageName: 'busybox-static',
      architecture,
      files: [{ path: /^(usr\/)?bin\/busybox$/, as: 'busybox' }],
    },
    progress,
  );
  return join(directory, 'busybox');
}

/** @returns the paths of a PC's BIOS and of its graphics adapter's, which other emulators need. */
export async function seabios(
  progress: Progress = progressOnStderr,
): Promise<{ readonly bios: string; readonly vgaBios: string }> {
  const directory = await obtain(
    {
      name: 'seabios',
      packageName: 'seabios',
      architecture: 'i386',
      files: [
        { path: /^usr\/share\/seabios\/bios\.bin$/, as: 'bios.bin' },
        { path: /^usr\/share\/seabios\/vgabios-stdvga\.bin$/, as: 'vgabios.bin' },
      ],
    },
    progress,
  );
  return { bios: join(directory, 'bios.bin'), vgaBios: join(directory, 'vgabios.bin') };
}

/** @returns the path of a GRUB that is itself a paravirtual Xen guest, by the word size of its code. */
export async function grub(bits: 32 | 64, progress: Progress = progressOnStderr): Promise<string> {
  const images = ['grub-i386-xen.bin', 'grub-x86_64-xen.bin'];
  const directory = await obtain(
    {
      name: 'grub-xen-host',
      packageName: 'grub-xen-host',
      architecture: 'amd64',
      files: images.map((name) => ({ path: new RegExp(`^usr/lib/grub-xen/${name}$`), as: name })),
    },
    progress,
  );
  return join(directory, bits === 32 ? 'grub-i386-xen.bin' : 'grub-x86_64-xen.bin');
}

/** @returns an initramfs (cpio) that ends in a shell; see initramfs.ts for what it understands. */
export async function initramfs(
  options: InitramfsOptions & { readonly architecture?: Architecture } = {},
  progress: Progress = progressOnStderr,
): Promise<Uint8Array> {
  return buildInitramfs(await readFile(await busybox(options.architecture, progress)), options);
}
