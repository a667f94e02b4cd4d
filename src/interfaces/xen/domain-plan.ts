import { InputError } from '../../boot/input-error.ts';
import type { KernelImage } from '../../boot/kernel.ts';
import type { XenNotes } from '../../boot/notes.ts';
import { KernelPages } from '../../domain/kernel-pages.ts';
import { TABLE_RULES } from '../../paging/direct/table-rules.ts';
import { PAGE_SHIFT, PAGE_SIZE } from '../../x86/brand.ts';
import { numberLimit } from './domain-frames.ts';
import { GUEST_ABIS, type GuestAbi } from './guest-abi.ts';
import { TableRun } from './table-run.ts';

/**
 * Where everything stands in the memory of a PV guest, as Xen's tools have it (abi/xen-pv.md §2, golden/xen417-domain-builder.txt):
 *
 *   VIRT_BASE + …  kernel · start_info · XenStore ring · console ring · page tables · boot stack · padding to 4 MiB
 *   not mapped     initrd · frame list (p2m) · the tables that map it at INIT_P2M
 *
 * A kernel that does not say that it takes the initrd by its page number (MOD_START_PFN) has it mapped, behind the kernel
 * image; one that names no place for the frame list (INIT_P2M) has that mapped, behind the initrd. So it is with 32-bit
 * kernels.
 */
export interface DomainRequest {
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  /** Pages of the guest. */
  readonly pages: number;
  /** Whether its frames are translated for it: there is no frame list then, and page tables may be written. */
  readonly isTranslated?: boolean;
}

/** Pseudo-physical page numbers, and addresses as the kernel's notes give them. */
export interface DomainPlan extends DomainRequest {
  readonly isTranslated: boolean;
  readonly abi: GuestAbi;
  /** A PAE kernel says that its top tables may lie beyond 4 GiB. */
  readonly extendedCr3: boolean;
  readonly entry: number;
  readonly virtualBase: number;
  /** Address of the frame list; 0 when there is none. */
  readonly listBase: number;
  /** The kernel as its segments lay it out. */
  readonly kernelPages: KernelPages;
  readonly startInfoPfn: number;
  readonly storePfn: number;
  readonly consolePfn: number;
  /** The root, what is below it, and the table that stands in `requiredTable`. */
  readonly tablesPfn: number;
  readonly tables: number;
  readonly mapping: TableRun;
  /** Entry of the root that must be there although nothing of the guest's is mapped below. */
  readonly requiredTable: number | undefined;
  readonly stackPfn: number;
  /** Pages that the initial tables map, from the first. */
  readonly mappedPages: number;
  readonly initrdPfn: number;
  readonly initrdPages: number;
  readonly isInitrdMapped: boolean;
  readonly listPfn: number;
  readonly listPages: number;
  /** The tables that map the frame list apart, behind it; undefined where it stands in the initial mapping. */
  readonly listTables: TableRun | undefined;
  /** Page to fill with hypercall stubs, for kernels that have one. */
  readonly hypercallPfn: number | undefined;
}

const PADDING = 512 << 10;
const MAPPING_ALIGNMENT = 4 << 20;
const COMMAND_LINE_LIMIT = 1024;
/** Level-1 tables begin at multiples of this. */
const TABLE_ALIGNMENT = 2 << 20;
/** Of a 32-bit guest: machine addresses are words of it. */
const MOST_NARROW_NUMBERS = 1 << 20;

function required(value: bigint | undefined, name: string): number {
  if (value === undefined)
    throw new InputError(`the kernel's Xen notes have no ${name}: it cannot start as a PV guest`);
  return Number(BigInt.asIntN(64, value));
}

function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** What a kernel for PAE says of itself. @throws InputError when it has page tables of two levels */
function extendedCr3(paeMode: string | undefined): boolean {
  if (paeMode === undefined || !/yes|bimodal/.test(paeMode)) {
    throw new InputError(
      `the kernel is a 32-bit one without PAE (PAE_MODE is ${paeMode ?? 'missing'}), which no Xen guest can be; give --interface kvm or native`,
    );
  }
  return paeMode.includes('extended-cr3');
}

/** Refuses what does not fit below the addresses of the host. @throws InputError */
function requireAddresses(abi: GuestAbi, start: number, mappedPages: number, hostStart: bigint | undefined): void {
  if (start % TABLE_ALIGNMENT !== 0) {
    throw new InputError(`the kernel's VIRT_BASE is no multiple of ${TABLE_ALIGNMENT >> 20}M`);
  }
  if (abi.bits === 64) return;
  const { hostWindow } = TABLE_RULES[abi.tables];
  if (hostStart !== undefined && Number(hostStart) > hostWindow.start) {
    throw new InputError('the kernel wants addresses that are the hypervisor’s (HV_START_LOW)');
  }
  if (start + mappedPages * PAGE_SIZE > hostWindow.start) {
    throw new InputError(
      'the kernel, its initrd and its frame list need more addresses than there are below the hypervisor',
    );
  }
}

const TRANSLATED = 'auto_translated_physmap';
const TRANSLATED_BIT = 1n << 2n;

/** Refuses a kernel that cannot do with frames of the chosen kind. @throws InputError */
function requireTranslation({ features, supportedFeatures }: XenNotes, isTranslated: boolean): void {
  const isSupported =
    features.includes(TRANSLATED) ||
    features.includes(`!${TRANSLATED}`) ||
    ((supportedFeatures ?? 0n) & TRANSLATED_BIT) !== 0n;
  if (isTranslated && !isSupported) {
    throw new InputError(
      `the kernel does not say that it can do with ${TRANSLATED} (FEATURES, in its Xen notes); give --paging direct or shadow`,
    );
  }
  if (!isTranslated && features.includes(`!${TRANSLATED}`)) {
    throw new InputError(`the kernel cannot do without ${TRANSLATED}; give --paging translated`);
  }
}

/** @throws InputError when the kernel is no PV guest or does not fit. */
export function planDomain(request: DomainRequest): DomainPlan {
  const { kernel, initrd, pages, commandLine, isTranslated = false } = request;
  const notes = kernel.xenNotes;
  if (!notes) throw new InputError('the kernel has no Xen notes: it cannot run with --interface xen');
  requireTranslation(notes, isTranslated);
  const abi = GUEST_ABIS[kernel.bits];
  const { geometry, requiredSlot } = TABLE_RULES[abi.tables];
  const hasExtendedCr3 = abi.bits === 32 && extendedCr3(notes.paeMode);
  if (abi.bits === 32 && numberLimit(request) > MOST_NARROW_NUMBERS) {
    throw new InputError('a 32-bit guest of the interface xen has at most 3900M of memory; lower --memory');
  }
  const entry = required(notes.entry, 'ENTRY');
  const virtualBase = required(notes.virtBase, 'VIRT_BASE');
  const paddrOffset = Number(notes.paddrOffset ?? 0n);
  const hasOwnList = notes.initP2m !== undefined && !isTranslated;
  const ownListBase = hasOwnList ? Number(BigInt.asIntN(64, notes.initP2m ?? 0n)) : undefined;
  if (ownListBase !== undefined && ownListBase % PAGE_SIZE !== 0) {
    throw new InputError('the kernel wants its frame list (INIT_P2M) at an address that is no page');
  }
  if (new TextEncoder().encode(commandLine).length >= COMMAND_LINE_LIMIT) {
    throw new InputError(`the kernel command line is longer than ${COMMAND_LINE_LIMIT - 1} bytes`);
  }

  const kernelPages = new KernelPages(kernel, paddrOffset);
  const initrdPages = Math.ceil(initrd.length / PAGE_SIZE);
  const listPages = isTranslated ? 0 : Math.ceil((pages * abi.longSize) / PAGE_SIZE);
  const isInitrdMapped = !notes.modStartPfn;
  let nextPfn = kernelPages.endPfn;
  const take = (count: number): number => {
    const first = nextPfn;
    nextPfn += count;
    return first;
  };
  const mappedInitrdPfn = take(isInitrdMapped ? initrdPages : 0);
  const mappedListPfn = take(ownListBase === undefined ? listPages : 0);
  const startInfoPfn = take(1);
  const storePfn = take(1);
  const consolePfn = take(1);
  const tablesPfn = nextPfn;
  // Tables, stack and padding must themselves be mapped by the tables.
  let tables = 0;
  let mappedPages = 0;
  let requiredTable: number | undefined;
  let mapping = new TableRun(geometry, virtualBase, 0);
  for (let guess = 4; ; guess++) {
    const end = (tablesPfn + guess + 1) * PAGE_SIZE + PADDING;
    mappedPages = roundUp(end, MAPPING_ALIGNMENT) >>> PAGE_SHIFT;
    mapping = new TableRun(geometry, virtualBase, mappedPages);
    requiredTable = requiredSlot === undefined || mapping.hasRootEntry(requiredSlot) ? undefined : requiredSlot;
    tables = 1 + mapping.total + (requiredTable === undefined ? 0 : 1);
    if (tables <= guess) break;
  }
  requireAddresses(abi, virtualBase, mappedPages, notes.hvStartLow);
  const stackPfn = tablesPfn + tables;
  nextPfn = mappedPages;
  const initrdPfn = isInitrdMapped ? mappedInitrdPfn : take(initrdPages);
  const listPfn = ownListBase === undefined ? mappedListPfn : take(listPages);
  const listTables = ownListBase === undefined ? undefined : new TableRun(geometry, ownListBase, listPages);
  const needed = nextPfn + (listTables?.total ?? 0);
  if (needed > pages) {
    const megabytes = (count: number) => `${Math.ceil((count * PAGE_SIZE) / (1 << 20))}M`;
    throw new InputError(
      `the kernel and an initrd of ${megabytes(initrdPages)} need at least ${megabytes(needed)} of memory, but the guest has ${megabytes(pages)}; raise --memory`,
    );
  }
  const hypercall = notes.hypercallPage === undefined ? undefined : Number(BigInt.asIntN(64, notes.hypercallPage));
  return {
    ...request,
    isTranslated,
    abi,
    extendedCr3: hasExtendedCr3,
    entry,
    virtualBase,
    listBase: isTranslated ? 0 : (ownListBase ?? virtualBase + listPfn * PAGE_SIZE),
    kernelPages,
    startInfoPfn,
    storePfn,
    consolePfn,
    tablesPfn,
    tables,
    mapping,
    requiredTable,
    stackPfn,
    mappedPages,
    initrdPfn,
    initrdPages,
    isInitrdMapped,
    listPfn,
    listPages,
    listTables,
    hypercallPfn: hypercall === undefined ? undefined : (hypercall - virtualBase) / PAGE_SIZE,
  };
}

/** Pages that the builder writes itself; the others hold the kernel, the initrd, or nothing. */
export function builtPages(plan: DomainPlan): number[] {
  const { startInfoPfn, stackPfn, listPfn, listPages, listTables, hypercallPfn } = plan;
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_none, step) => from + step);
  const listEnd = listPfn + listPages + (listTables?.total ?? 0);
  const pages = [...range(startInfoPfn, stackPfn + 1), ...range(listPfn, listEnd)];
  return hypercallPfn === undefined ? pages : [...pages, hypercallPfn];
}
