import { InputError } from '../../boot/input-error.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { type GuestVirtual, highWord, lowWord, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { StartInfoFlag } from './abi.ts';
import type { DomainPlan, ListTables } from './domain-plan.ts';

/** What a domain is built with, besides its plan. */
export interface BuildOptions {
  readonly plan: DomainPlan;
  /** Machine frame number of each pseudo-physical frame; all attached. */
  readonly p2m: Uint32Array;
  readonly space: MachineSpace;
  readonly sharedInfo: Mfn;
  readonly storePort: number;
  readonly consolePort: number;
}

export interface BuiltDomain {
  readonly entry: GuestVirtual;
  readonly startInfo: GuestVirtual;
  readonly stack: GuestVirtual;
  /** Top-level page table. */
  readonly root: Mfn;
  readonly store: Mfn;
  readonly console: Mfn;
  /** Page to fill with hypercall stubs, for kernels that have one. */
  readonly hypercallPage: Mfn | undefined;
}

const ENTRIES = 512;
const LEAF = Pte.present | Pte.writable | Pte.accessed;
const TABLE = Pte.present | Pte.writable | Pte.user | Pte.accessed | Pte.dirty;

/** Offsets in start_info of a 64-bit guest. */
const enum StartInfo {
  magic = 0x00,
  pages = 0x20,
  sharedInfo = 0x28,
  flags = 0x30,
  storeMfn = 0x38,
  storePort = 0x40,
  consoleMfn = 0x48,
  consolePort = 0x50,
  tableBase = 0x58,
  tableFrames = 0x60,
  frameList = 0x68,
  moduleStart = 0x70,
  moduleLength = 0x78,
  commandLine = 0x80,
  firstP2mPfn = 0x480,
  p2mFrames = 0x488,
}

/** Loads kernel and initrd into the pages of a domain that has them all. */
export function loadImages(plan: DomainPlan, space: MachineSpace, p2m: Uint32Array): void {
  const image = new GuestImage(space, p2m);
  for (const { physical, segment } of plan.kernelPages.segments) image.write(physical, segment.data);
  image.write(plan.initrdPfn * PAGE_SIZE, plan.initrd);
}

/** Writes page tables, frame list and start_info. Kernel and initrd are there already. */
export function buildDomain(options: BuildOptions): BuiltDomain {
  const { plan, p2m, space } = options;
  const { initrd, pages, commandLine, entry, virtualBase, listBase } = plan;
  const { startInfoPfn, storePfn, consolePfn, tablesPfn, tables, stackPfn, mappedPages, initrdPfn } = plan;
  const { listPfn, listPages, listTables, hypercallPfn } = plan;
  const image = new GuestImage(space, p2m);

  const addressOfPfn = (pfn: number) => (virtualBase + pfn * PAGE_SIZE) as GuestVirtual;
  const isTable = (pfn: number) => pfn >= tablesPfn && pfn < tablesPfn + tables;
  const root = tablesPfn;
  const level3 = tablesPfn + 1;
  const level2Count = Math.ceil(Math.ceil(mappedPages / ENTRIES) / ENTRIES);
  const level2 = tablesPfn + 2;
  const level1 = level2 + level2Count;
  image.entry(root, index(virtualBase, 39), level3, TABLE);
  for (let table = 0; table < level2Count; table++) {
    image.entry(level3, index(virtualBase, 30) + table, level2 + table, TABLE);
  }
  for (let table = 0; table < Math.ceil(mappedPages / ENTRIES); table++) {
    image.entry(level2 + Math.floor(table / ENTRIES), table % ENTRIES, level1 + table, TABLE);
  }
  for (let pfn = 0; pfn < mappedPages; pfn++) {
    const flags = isTable(pfn) ? LEAF & ~Pte.writable : LEAF;
    image.entry(level1 + Math.floor(pfn / ENTRIES), pfn % ENTRIES, pfn, flags);
  }

  if (listTables) mapList(image, plan, listTables);
  for (let pfn = 0; pfn < pages; pfn++) image.long(listPfn * PAGE_SIZE + pfn * 8, p2m[pfn] as number);

  const info = startInfoPfn * PAGE_SIZE;
  image.write(info + StartInfo.magic, new TextEncoder().encode('xen-3.0-x86_64'));
  image.long(info + StartInfo.pages, pages);
  image.long(info + StartInfo.sharedInfo, options.sharedInfo * PAGE_SIZE);
  image.word(
    info + StartInfo.flags,
    (plan.isInitrdMapped ? 0 : StartInfoFlag.moduleStartPfn) | (listTables ? StartInfoFlag.virtualP2m : 0),
  );
  image.long(info + StartInfo.storeMfn, p2m[storePfn] as number);
  image.word(info + StartInfo.storePort, options.storePort);
  image.long(info + StartInfo.consoleMfn, p2m[consolePfn] as number);
  image.word(info + StartInfo.consolePort, options.consolePort);
  image.long(info + StartInfo.tableBase, addressOfPfn(tablesPfn));
  image.long(info + StartInfo.tableFrames, tables);
  image.long(info + StartInfo.frameList, listBase);
  if (initrd.length > 0) {
    image.long(info + StartInfo.moduleStart, plan.isInitrdMapped ? addressOfPfn(initrdPfn) : initrdPfn);
    image.long(info + StartInfo.moduleLength, initrd.length);
  }
  image.write(info + StartInfo.commandLine, new TextEncoder().encode(commandLine));
  if (listTables) {
    image.long(info + StartInfo.firstP2mPfn, listPfn);
    image.long(info + StartInfo.p2mFrames, listPages + listTables.count);
  }

  return {
    entry: entry as GuestVirtual,
    startInfo: addressOfPfn(startInfoPfn),
    stack: addressOfPfn(stackPfn + 1),
    root: image.mfn(root),
    store: image.mfn(storePfn),
    console: image.mfn(consolePfn),
    hypercallPage: hypercallPfn === undefined ? undefined : image.mfn(hypercallPfn),
  };
}

/** Maps the frame list where the kernel wants it. */
function mapList(image: GuestImage, plan: DomainPlan, { level2, level1 }: ListTables): void {
  const { tablesPfn, listBase, listPfn, listPages } = plan;
  const level3Pfn = listPfn + listPages;
  const level2Pfn = level3Pfn + 1;
  const level1Pfn = level2Pfn + level2;
  image.entry(tablesPfn, index(listBase, 39), level3Pfn, TABLE);
  for (let table = 0; table < level2; table++) {
    image.entry(level3Pfn, index(listBase, 30) + table, level2Pfn + table, TABLE);
  }
  for (let table = 0; table < level1; table++) {
    image.entry(level2Pfn + Math.floor(table / ENTRIES), table % ENTRIES, level1Pfn + table, TABLE);
  }
  for (let page = 0; page < listPages; page++) {
    image.entry(level1Pfn + Math.floor(page / ENTRIES), page % ENTRIES, listPfn + page, LEAF);
  }
}

/** Index of an address in the table whose entries cover 2^shift bytes. */
function index(address: number, shift: 39 | 30): number {
  const high = highWord(address);
  return shift === 39 ? (high >>> 7) & 0x1ff : ((high << 2) | (lowWord(address) >>> 30)) & 0x1ff;
}

/** Pseudo-physical memory of a guest that does not run yet. */
class GuestImage {
  readonly #space: MachineSpace;
  readonly #memory: HostMemory;
  readonly #p2m: Uint32Array;

  constructor(space: MachineSpace, p2m: Uint32Array) {
    this.#space = space;
    this.#memory = space.pool.memory;
    this.#p2m = p2m;
  }

  mfn(pfn: number): Mfn {
    const mfn = this.#p2m[pfn];
    if (mfn === undefined) throw new InputError(`the kernel names page ${pfn}, but the guest has ${this.#p2m.length}`);
    return mfn as Mfn;
  }

  #address(physical: number): number {
    return this.#space.addressOf(this.mfn(Math.floor(physical / PAGE_SIZE))) + (physical % PAGE_SIZE);
  }

  write(physical: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const room = PAGE_SIZE - ((physical + done) % PAGE_SIZE);
      const piece = bytes.subarray(done, done + room);
      this.#memory.u8.set(piece, this.#address(physical + done));
      done += piece.length;
    }
  }

  word(physical: number, value: number): void {
    this.#memory.view.setUint32(this.#address(physical), value, true);
  }

  long(physical: number, value: number): void {
    const address = this.#address(physical);
    this.#memory.view.setUint32(address, lowWord(value), true);
    this.#memory.view.setUint32(address + 4, highWord(value), true);
  }

  /** Sets a page-table entry: table and target are pseudo-physical frames. */
  entry(table: Pfn | number, position: number, target: number, flags: number): void {
    this.long(table * PAGE_SIZE + position * 8, this.mfn(target) * PAGE_SIZE + flags);
  }
}
