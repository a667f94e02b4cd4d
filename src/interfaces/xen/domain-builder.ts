import { InputError } from '../../boot/input-error.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { TABLE_RULES } from '../../paging/direct/table-rules.ts';
import { type GuestVirtual, highWord, lowWord, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { StartInfoFlag } from './abi.ts';
import type { DomainPlan } from './domain-plan.ts';
import type { GuestAbi } from './guest-abi.ts';
import type { SetEntry } from './table-run.ts';

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

const LEAF = Pte.present | Pte.writable | Pte.accessed;
const TABLE = Pte.present | Pte.writable | Pte.user | Pte.accessed | Pte.dirty;

/** Loads kernel and initrd into the pages of a domain that has them all. */
export function loadImages(plan: DomainPlan, space: MachineSpace, p2m: Uint32Array): void {
  const image = new GuestImage(space, p2m, plan.abi);
  for (const { physical, segment } of plan.kernelPages.segments) image.write(physical, segment.data);
  image.write(plan.initrdPfn * PAGE_SIZE, plan.initrd);
}

/** Writes page tables, frame list and start_info. Kernel and initrd are there already. */
export function buildDomain(options: BuildOptions): BuiltDomain {
  const { plan, p2m, space } = options;
  const { initrd, pages, commandLine, entry, virtualBase, listBase } = plan;
  const { startInfoPfn, storePfn, consolePfn, tablesPfn, tables, stackPfn, initrdPfn } = plan;
  const { listPfn, listPages, listTables, hypercallPfn } = plan;
  const image = new GuestImage(space, p2m, plan.abi);

  const addressOfPfn = (pfn: number) => (virtualBase + pfn * PAGE_SIZE) as GuestVirtual;
  const isTable = (pfn: number) => pfn >= tablesPfn && pfn < tablesPfn + tables;
  const topLevel = TABLE_RULES[plan.abi.tables].topLevel;
  const set: SetEntry = (table, index, target, level) => {
    const leaf = isTable(target) && !plan.isTranslated ? LEAF & ~Pte.writable : LEAF;
    // The processor reserves the other flags in the top table of PAE.
    const upper = level === topLevel && plan.abi.tables === 'pae' ? Pte.present : TABLE;
    image.entry(table, index, target, level === 1 ? leaf : upper);
  };
  plan.mapping.write(tablesPfn, tablesPfn + 1, 0, set);
  if (plan.requiredTable !== undefined) set(tablesPfn, plan.requiredTable, tablesPfn + tables - 1, topLevel);
  listTables?.write(tablesPfn, listPfn + listPages, listPfn, set);
  const { longSize, structures } = plan.abi;
  const listed = listPages === 0 ? 0 : pages;
  for (let pfn = 0; pfn < listed; pfn++) image.long(listPfn * PAGE_SIZE + pfn * longSize, p2m[pfn] as number);

  const info = startInfoPfn * PAGE_SIZE;
  const { startInfo } = structures;
  image.write(info, new TextEncoder().encode(plan.abi.magic));
  image.long(info + startInfo.pages, pages);
  image.long(info + startInfo.sharedInfo, options.sharedInfo * PAGE_SIZE);
  image.word(
    info + startInfo.flags,
    (plan.isInitrdMapped ? 0 : StartInfoFlag.moduleStartPfn) | (listTables ? StartInfoFlag.virtualP2m : 0),
  );
  image.long(info + startInfo.storeMfn, p2m[storePfn] as number);
  image.word(info + startInfo.storePort, options.storePort);
  image.long(info + startInfo.consoleMfn, p2m[consolePfn] as number);
  image.word(info + startInfo.consolePort, options.consolePort);
  image.long(info + startInfo.tableBase, addressOfPfn(tablesPfn));
  image.long(info + startInfo.tableFrames, tables);
  image.long(info + startInfo.frameList, listBase);
  if (initrd.length > 0) {
    image.long(info + startInfo.moduleStart, plan.isInitrdMapped ? addressOfPfn(initrdPfn) : initrdPfn);
    image.long(info + startInfo.moduleLength, initrd.length);
  }
  image.write(info + startInfo.commandLine, new TextEncoder().encode(commandLine));
  if (listTables) {
    image.long(info + startInfo.firstP2mPfn, listPfn);
    image.long(info + startInfo.p2mFrames, listPages + listTables.total);
  }

  return {
    entry: entry as GuestVirtual,
    startInfo: addressOfPfn(startInfoPfn),
    stack: addressOfPfn(stackPfn + 1),
    root: image.mfn(tablesPfn),
    store: image.mfn(storePfn),
    console: image.mfn(consolePfn),
    hypercallPage: hypercallPfn === undefined ? undefined : image.mfn(hypercallPfn),
  };
}

/** Pseudo-physical memory of a guest that does not run yet. */
class GuestImage {
  readonly #space: MachineSpace;
  readonly #memory: HostMemory;
  readonly #p2m: Uint32Array;
  readonly #abi: GuestAbi;

  constructor(space: MachineSpace, p2m: Uint32Array, abi: GuestAbi) {
    this.#abi = abi;
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
    if (this.#abi.longSize === 8) this.#quad(physical, value);
    else this.word(physical, lowWord(value));
  }

  #quad(physical: number, value: number): void {
    const address = this.#address(physical);
    this.#memory.view.setUint32(address, lowWord(value), true);
    this.#memory.view.setUint32(address + 4, highWord(value), true);
  }

  /** Sets a page-table entry: table and target are pseudo-physical frames. */
  entry(table: Pfn | number, position: number, target: number, flags: number): void {
    this.#quad(table * PAGE_SIZE + position * 8, this.mfn(target) * PAGE_SIZE + flags);
  }
}
