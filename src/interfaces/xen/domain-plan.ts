import { InputError } from '../../boot/input-error.ts';
import type { KernelImage } from '../../boot/kernel.ts';
import { KernelPages } from '../../domain/kernel-pages.ts';
import { PAGE_SHIFT, PAGE_SIZE } from '../../x86/brand.ts';

/**
 * Where everything stands in the memory of a 64-bit PV guest, as Xen's tools have it (abi/xen-pv.md §2, golden/xen417-domain-builder.txt):
 *
 *   VIRT_BASE + …  kernel · start_info · XenStore ring · console ring · page tables · boot stack · padding to 4 MiB
 *   not mapped     initrd · frame list (p2m) · the tables that map it at INIT_P2M
 */
export interface DomainRequest {
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  /** Pages of the guest. */
  readonly pages: number;
}

/** Pseudo-physical page numbers, and addresses as the kernel's notes give them. */
export interface DomainPlan extends DomainRequest {
  readonly entry: number;
  readonly virtualBase: number;
  readonly listBase: number;
  /** The kernel as its segments lay it out. */
  readonly kernelPages: KernelPages;
  readonly startInfoPfn: number;
  readonly storePfn: number;
  readonly consolePfn: number;
  readonly tablesPfn: number;
  readonly tables: number;
  readonly stackPfn: number;
  /** Pages that the initial tables map, from the first. */
  readonly mappedPages: number;
  readonly initrdPfn: number;
  readonly initrdPages: number;
  readonly listPfn: number;
  readonly listPages: number;
  readonly listLevel1: number;
  readonly listLevel2: number;
  /** Page to fill with hypercall stubs, for kernels that have one. */
  readonly hypercallPfn: number | undefined;
}

const ENTRIES = 512;
const PADDING = 512 << 10;
const MAPPING_ALIGNMENT = 4 << 20;
const COMMAND_LINE_LIMIT = 1024;

function required(value: bigint | undefined, name: string): number {
  if (value === undefined)
    throw new InputError(`the kernel's Xen notes have no ${name}: it cannot start as a PV guest`);
  return Number(BigInt.asIntN(64, value));
}

function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** @throws InputError when the kernel is no 64-bit PV guest or does not fit. */
export function planDomain(request: DomainRequest): DomainPlan {
  const { kernel, initrd, pages, commandLine } = request;
  const notes = kernel.xenNotes;
  if (!notes) throw new InputError('the kernel has no Xen notes: it cannot run with --interface xen');
  if (kernel.bits !== 64) throw new InputError('the kernel is a 32-bit one; this interface runs 64-bit PV kernels');
  const entry = required(notes.entry, 'ENTRY');
  const virtualBase = required(notes.virtBase, 'VIRT_BASE');
  const paddrOffset = Number(notes.paddrOffset ?? 0n);
  const listBase = notes.initP2m === undefined ? undefined : Number(BigInt.asIntN(64, notes.initP2m));
  if (listBase === undefined || listBase % PAGE_SIZE !== 0) {
    throw new InputError('the kernel has no INIT_P2M note; only kernels since Linux 3.19 are built for');
  }
  if (!notes.modStartPfn && initrd.length > 0) {
    throw new InputError('the kernel has no MOD_START_PFN note; it cannot take an initrd here');
  }
  if (new TextEncoder().encode(commandLine).length >= COMMAND_LINE_LIMIT) {
    throw new InputError(`the kernel command line is longer than ${COMMAND_LINE_LIMIT - 1} bytes`);
  }

  const kernelPages = new KernelPages(kernel, paddrOffset);
  let nextPfn = kernelPages.endPfn;
  const startInfoPfn = nextPfn++;
  const storePfn = nextPfn++;
  const consolePfn = nextPfn++;
  const tablesPfn = nextPfn;
  // Tables, stack and padding must themselves be mapped by the tables.
  let tables = 0;
  let mappedPages = 0;
  for (let guess = 4; ; guess++) {
    const end = (tablesPfn + guess + 1) * PAGE_SIZE + PADDING;
    mappedPages = roundUp(end, MAPPING_ALIGNMENT) >>> PAGE_SHIFT;
    const level1 = Math.ceil(mappedPages / ENTRIES);
    const level2 = Math.ceil(level1 / ENTRIES);
    tables = level1 + level2 + 2;
    if (tables <= guess) break;
  }
  const stackPfn = tablesPfn + tables;
  const initrdPfn = mappedPages;
  const initrdPages = Math.ceil(initrd.length / PAGE_SIZE);
  const listPfn = initrdPfn + initrdPages;
  const listPages = Math.ceil((pages * 8) / PAGE_SIZE);
  const listLevel1 = Math.ceil(listPages / ENTRIES);
  const listLevel2 = Math.ceil(listLevel1 / ENTRIES);
  const listTables = 1 + listLevel2 + listLevel1;
  const needed = listPfn + listPages + listTables;
  if (needed > pages) {
    const megabytes = (count: number) => `${Math.ceil((count * PAGE_SIZE) / (1 << 20))}M`;
    throw new InputError(
      `the kernel and an initrd of ${megabytes(initrdPages)} need at least ${megabytes(needed)} of memory, but the guest has ${megabytes(pages)}; raise --memory`,
    );
  }
  const hypercall = notes.hypercallPage === undefined ? undefined : Number(BigInt.asIntN(64, notes.hypercallPage));
  return {
    ...request,
    entry,
    virtualBase,
    listBase,
    kernelPages,
    startInfoPfn,
    storePfn,
    consolePfn,
    tablesPfn,
    tables,
    stackPfn,
    mappedPages,
    initrdPfn,
    initrdPages,
    listPfn,
    listPages,
    listLevel1,
    listLevel2,
    hypercallPfn: hypercall === undefined ? undefined : (hypercall - virtualBase) / PAGE_SIZE,
  };
}

/** Pages that the builder writes itself; the others hold the kernel, the initrd, or nothing. */
export function builtPages(plan: DomainPlan): number[] {
  const { startInfoPfn, stackPfn, listPfn, listPages, listLevel1, listLevel2, hypercallPfn } = plan;
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_none, step) => from + step);
  const listEnd = listPfn + listPages + 1 + listLevel2 + listLevel1;
  const pages = [...range(startInfoPfn, stackPfn + 1), ...range(listPfn, listEnd)];
  return hypercallPfn === undefined ? pages : [...pages, hypercallPfn];
}
