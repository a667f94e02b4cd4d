import { encodeBootParameters, RegionType } from '../../boot/boot-parameters.ts';
import { InputError } from '../../boot/input-error.ts';
import type { KernelImage } from '../../boot/kernel.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type GuestPhysical, PAGE_SIZE } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import type { LguestKernel } from './recognise.ts';

/**
 * Puts into a guest's memory what its kernel finds: boot parameters at 0 and the command line behind them, the initrd at the
 * end, and in front of that the first page tables, where the era has the host make them. Kernel and initrd are pages of
 * their files.
 */
export interface GuestLayout {
  readonly ramPages: number;
  readonly initrdBytes: number;
  /** First page of the initrd. */
  readonly initrdPage: number;
  /** The first page tables; none where the kernel brings its own. */
  readonly tables: TablesLayout | undefined;
}

interface TablesLayout {
  /** First of all their pages; the root is the last. */
  readonly firstPage: number;
  readonly pages: number;
  /** Of level 1. */
  readonly leaves: number;
}

const BOOT_PARAMETERS = 0;
const COMMAND_LINE = PAGE_SIZE;
const LONGEST_COMMAND_LINE = PAGE_SIZE - 1;

/** hardware_subarch and flags in the boot parameters (Documentation/arch/x86/boot.rst). */
const VERSION_WITH_SUBARCH = 0x207;
const SUBARCH_LGUEST = 1;
const enum Field {
  version = 0x206,
  loadFlags = 0x211,
  subarch = 0x23c,
}
/** The kernel leaves segment registers as they are. */
const KEEP_SEGMENTS = 0x40;

const TABLE = Pte.present | Pte.writable | Pte.user;

const GEOMETRY = {
  'two-level': { entryBytes: 4, entries: 1024 },
  pae: { entryBytes: 8, entries: 512 },
} as const;

/** @throws InputError when it does not fit */
export function layOutGuest(
  { era, format }: LguestKernel,
  ramPages: number,
  kernelEndPage: number,
  initrdBytes: number,
): GuestLayout {
  const initrdPage = ramPages - Math.ceil(initrdBytes / PAGE_SIZE);
  let tables: TablesLayout | undefined;
  if (era.layout.rootTable !== undefined) {
    const leaves = Math.ceil(ramPages / GEOMETRY[format].entries);
    const pages = leaves + (format === 'pae' ? 2 : 1);
    tables = { firstPage: initrdPage - pages, pages, leaves };
  }
  if (kernelEndPage > (tables?.firstPage ?? initrdPage)) {
    throw new InputError('kernel and initrd do not fit into the memory of the guest; raise --memory');
  }
  return { ramPages, initrdBytes, initrdPage, tables };
}

/** Pages that `loadGuest` writes, which have to be there. */
export function loadedPages({ tables }: GuestLayout): number[] {
  const parameters = [BOOT_PARAMETERS / PAGE_SIZE, COMMAND_LINE / PAGE_SIZE];
  return [...parameters, ...Array.from({ length: tables?.pages ?? 0 }, (_, index) => (tables?.firstPage ?? 0) + index)];
}

export interface LoadOptions {
  readonly kernel: KernelImage;
  readonly format: LguestKernel['format'];
  /** Linear address of the kernel's first byte of memory. */
  readonly kernelAddress: number;
  readonly layout: GuestLayout;
  readonly commandLine: string;
}

/** @returns the root of the first page tables, if the host makes them. @throws InputError */
export function loadGuest(paging: NestedPaging, host: HostMemory, options: LoadOptions): number | undefined {
  const { kernel, layout, format } = options;
  const { ramPages, initrdBytes, initrdPage, tables } = layout;
  const write = (physical: number, bytes: Uint8Array): void => {
    host.u8.set(bytes, paging.addressOf(physical as GuestPhysical));
  };
  const commandLine = new TextEncoder().encode(`${options.commandLine}\0`);
  if (commandLine.length > LONGEST_COMMAND_LINE + 1) {
    throw new InputError(
      `the command line has ${commandLine.length - 1} bytes, and there is room for ${LONGEST_COMMAND_LINE}`,
    );
  }
  const parameters = encodeBootParameters({
    header: kernel.setupHeader,
    commandLine: COMMAND_LINE,
    initrd: { address: initrdBytes === 0 ? 0 : initrdPage * PAGE_SIZE, bytes: initrdBytes },
    rsdp: 0,
    regions: [{ start: 0, bytes: ramPages * PAGE_SIZE, type: RegionType.ram }],
  });
  const view = new DataView(parameters.buffer, parameters.byteOffset, parameters.length);
  view.setUint16(Field.version, VERSION_WITH_SUBARCH, true);
  view.setUint8(Field.loadFlags, view.getUint8(Field.loadFlags) | KEEP_SEGMENTS);
  view.setUint32(Field.subarch, SUBARCH_LGUEST, true);
  write(BOOT_PARAMETERS, parameters);
  write(COMMAND_LINE, commandLine);
  if (!tables) return undefined;
  const entry = (page: number, index: number, value: number): void => {
    const address = paging.addressOf((page * PAGE_SIZE + index * GEOMETRY[format].entryBytes) as GuestPhysical);
    host.view.setUint32(address, value >>> 0, true);
  };
  return writeTables({ ...options, entry }, tables, ramPages);
}

type TableOptions = Pick<LoadOptions, 'format' | 'kernelAddress'> & {
  readonly entry: (page: number, index: number, value: number) => void;
};

/** Maps all of RAM twice: as it is, and from the kernel's address on. */
function writeTables({ format, kernelAddress, entry }: TableOptions, tables: TablesLayout, ramPages: number): number {
  const { entries } = GEOMETRY[format];
  const { firstPage, pages, leaves } = tables;
  const root = firstPage + pages - 1;
  const isPae = format === 'pae';
  const firstLeaf = isPae ? firstPage + 1 : firstPage;
  for (let page = 0; page < ramPages; page++) {
    entry(firstLeaf + Math.floor(page / entries), page % entries, page * PAGE_SIZE + TABLE);
  }
  if (isPae) {
    // One table of level 2 spans a gigabyte: as much as a kernel maps for itself.
    for (let leaf = 0; leaf < Math.min(leaves, entries); leaf++) {
      entry(firstPage, leaf, (firstLeaf + leaf) * PAGE_SIZE + TABLE);
    }
    for (const index of [0, kernelAddress >>> 30]) entry(root, index, firstPage * PAGE_SIZE + Pte.present);
    return root * PAGE_SIZE;
  }
  const offset = kernelAddress >>> 22;
  for (let leaf = 0; leaf < Math.min(leaves, entries - offset); leaf++) {
    const value = (firstLeaf + leaf) * PAGE_SIZE + TABLE;
    entry(root, leaf, value);
    entry(root, offset + leaf, value);
  }
  return root * PAGE_SIZE;
}
