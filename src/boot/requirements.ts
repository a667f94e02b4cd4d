import { isBzImage, parseBzImage } from './bzimage.ts';
import { InputError } from './input-error.ts';
import type { KernelImage } from './kernel.ts';
import type { XenNotes } from './notes.ts';

/** What must hold before a domain is built, in words for the person who gave the files. */

/** Room for frame list, page tables and rings, and for Linux until it frees its initialisation code. Not a measured bound. */
const WORKING_MEMORY = 16 * 1024 * 1024;

/**
 * The notes of a kernel that can be a paravirtual Xen guest.
 * @throws InputError if it cannot.
 */
export function requireXenNotes(kernel: KernelImage): XenNotes & { readonly entry: bigint } {
  const { xenNotes } = kernel;
  if (xenNotes === undefined) {
    throw new InputError(
      'the kernel has no Xen notes, so it cannot be a Xen guest; give a kernel built with CONFIG_XEN_PV, as Debian\'s "linux-image-amd64" is',
    );
  }
  const { entry } = xenNotes;
  if (entry === undefined) {
    throw new InputError(
      'the kernel has Xen notes but no paravirtual entry (it may support PVH only); give a kernel built with CONFIG_XEN_PV, or --interface kvm or native',
    );
  }
  return { ...xenNotes, entry };
}

/**
 * Refuses at once what cannot fit whatever is in the kernel, since unpacking it takes a while.
 * @param kernelFile the file as given
 */
export function refuseHopelessMemory(kernelFile: Uint8Array, initrdSize: number, memory: number): void {
  const header = isBzImage(kernelFile) ? parseBzImage(kernelFile).header : undefined;
  const start = Number(header?.preferredAddress ?? 0n);
  if (start + kernelFile.length + initrdSize <= memory) return;
  const size = header?.initSize ?? kernelFile.length;
  throw notEnough(memory, `the kernel needs ${megabytes(size)} from ${megabytes(start)} on`, start + size, initrdSize);
}

/**
 * Checks that kernel and initrd fit into a guest's memory with something left to work in.
 * @param initrdSize bytes, 0 for none
 * @param memory bytes
 * @throws InputError that says how much is needed.
 */
export function requireMemory(kernel: KernelImage, initrdSize: number, memory: number): void {
  const kernelEnd = kernel.segments.reduce((end, segment) => Math.max(end, segment.paddr + segment.memsz), 0);
  if (kernelEnd + initrdSize + WORKING_MEMORY <= memory) return;
  throw notEnough(memory, `the kernel ends at ${megabytes(kernelEnd)}`, kernelEnd, initrdSize);
}

function notEnough(memory: number, kernel: string, kernelEnd: number, initrdSize: number): InputError {
  const initrd = initrdSize > 0 ? `the initrd has ${megabytes(initrdSize)}, ` : '';
  return new InputError(
    `${megabytes(memory)} of memory are not enough: ${kernel}, ${initrd}and ${megabytes(WORKING_MEMORY)} are needed to work in; give at least ${megabytes(kernelEnd + initrdSize + WORKING_MEMORY)}`,
  );
}

/** Rounded up, since it is used for what is needed; the value given is a whole number of MiB in practice. */
function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / (1024 * 1024))}M`;
}
