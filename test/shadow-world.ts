import { Access } from '../src/cpu/exits.ts';
import { FrameMark } from '../src/cpu/frame-marks.ts';
import type { Processor } from '../src/cpu/processor.ts';
import type { FoundPage, ShadowWalks } from '../src/cpu/translation.ts';
import { emptyResult, PAE_TOPS } from '../src/cpu/walk.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import type { AddressSpace } from '../src/mm/address-space.ts';
import { NumberRuns } from '../src/paging/page-numbers.ts';
import { Pager } from '../src/paging/pager.ts';
import type { ShadowedFormat } from '../src/paging/shadow/shadow-page.ts';
import { ShadowPaging } from '../src/paging/shadow/shadow-paging.ts';
import {
  type Frame,
  type GuestVirtual,
  type HostVirtual,
  highWord,
  lowWord,
  type Mfn,
  PAGE_SIZE,
} from '../src/x86/brand.ts';
import { TABLE_GEOMETRY, type TableGeometry } from '../src/x86/page-table.ts';
import { Cr0, Cr4, Efer, Pte } from '../src/x86/registers.ts';
import { page } from './mm-world.ts';
import { FRAMES, group, memory, pool, SmallMemory } from './small-host.ts';

/** Pages of a guest: its roots, other tables, pages of data, and tables that map all pages in a row. */
export const ROOTS = 2;
export const TABLES = 8;
export const PAGES = 24;
const FIXED = 20;
/** Which of the small tables that fit into a page is PAE's top one. */
const PAE_TOP = 5;

/** Where the guest's kernel sees its pages in a row. */
const ROW: Readonly<Record<ShadowedFormat, { readonly address: number; readonly slot: number }>> = {
  'two-level': { address: 0xffc0_0000, slot: 1023 },
  pae: { address: 0xc000_0000, slot: 3 },
  'four-level': { address: -(2 ** 47), slot: 256 },
};

const CR4: Readonly<Record<ShadowedFormat, number>> = {
  'two-level': Cr4.pageSizeExtensions,
  pae: Cr4.physicalAddressExtension,
  'four-level': Cr4.physicalAddressExtension,
};

const ACCESSES = [Access.read, Access.write, Access.fetch] as const;

const NO_DEVICES = { load: () => 0, store: () => {} };

/** What the tables of the guest and of the host say together of an access. */
export interface Composed {
  readonly frame: Frame;
  /** The guest's tables permit writing, and the dirty bit is set. */
  readonly writable: boolean;
  readonly executable: boolean;
  /** All accessed bits on the way are set. */
  readonly isMarked: boolean;
}

/** A guest with two processors whose tables are shadowed, on a host that has little memory and checks its own rules. */
export class ShadowWorld {
  readonly format: ShadowedFormat;
  readonly geometry: TableGeometry;
  readonly paging: ShadowPaging;
  readonly space: AddressSpace;
  readonly processors: readonly Processor[];
  readonly roots: number[] = [0, 0];
  /** Tables whose changes the guest tells of. */
  readonly announced = new Set<number>();
  readonly #pager: Pager;
  readonly #memory: SmallMemory;

  private constructor(format: ShadowedFormat, paging: ShadowPaging, pager: Pager, small: SmallMemory) {
    this.format = format;
    this.geometry = TABLE_GEOMETRY[format];
    this.paging = paging;
    this.space = small.space;
    this.#memory = small;
    this.#pager = pager;
    this.processors = [group.create(), group.create()];
  }

  static async create(format: ShadowedFormat, capacity: number): Promise<ShadowWorld> {
    const small = await SmallMemory.create(PAGES);
    const { space } = small;
    const machine = new MachineSpace(pool, PAGES);
    const numbers = new NumberRuns([{ firstNumber: 0, pages: PAGES }]);
    const { marks } = group.parts;
    const pager = new Pager({ machine, memory: space, invalidator: group, marks, numbers, populated: PAGES, order: 0 });
    await pager.start();
    const paging = await ShadowPaging.create(machine, group, pager, 1, capacity);
    const world = new ShadowWorld(format, paging, pager, small);
    await world.#begin();
    return world;
  }

  /** Two tables a level that lead to each other's, the last ones to pages of data; and those of the row. */
  async #begin(): Promise<void> {
    const { levels, entryBytes } = this.geometry;
    for (let root = 0; root < ROOTS; root++) {
      const offset = this.topOffset(root) + ROW[this.format].slot * entryBytes;
      await this.#poke(root, offset, FIXED, this.format === 'pae' ? Pte.present : RIGHTS);
    }
    for (let table = FIXED; table < FIXED + levels - 2; table++) await this.#poke(table, 0, table + 1, RIGHTS);
    const last = FIXED + levels - 2;
    for (let number = 0; number < PAGES; number++) await this.#poke(last, number * entryBytes, number, RIGHTS);
    for (let table = 0; table < this.tables; table++) {
      for (let index = 0; index < 2; index++) {
        const flags = this.format === 'pae' && table < ROOTS ? Pte.present : RIGHTS | Pte.user;
        await this.#poke(table, this.topOffset(table) + index * entryBytes, this.below(table) + index, flags);
      }
    }
    for (const processor of this.processors) {
      processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect;
      processor.cr4 = Cr4.fxsave | Cr4.globalPages | CR4[this.format];
      processor.efer = Efer.noExecute;
      processor.translation = this.paging.translations(NO_DEVICES)[this.format];
      processor.userMode = false;
      processor.setRoots(this.#rootNumber(0), this.#rootNumber(0));
    }
  }

  /** Pages that are tables at first. */
  get tables(): number {
    return this.geometry.levels * 2;
  }

  /** The first of the pages that a table leads to at first. */
  below(table: number): number {
    return table - (table % 2) + 2;
  }

  async #poke(table: number, offset: number, number: number, flags: number): Promise<void> {
    await this.present(table, true);
    const frame = this.paging.space.frameOf(table as Mfn);
    memory.u32[(pool.addressOf(frame) + offset) >>> 2] = (number << 12) | flags;
  }

  get shadow(): ShadowWalks {
    return this.paging.shadow;
  }

  /** Brings a page in. */
  async present(number: number, write: boolean): Promise<void> {
    const failed = await this.#pager.bringIn(number as Mfn, write);
    if (failed) throw new Error(failed.message);
  }

  /** Does something of a processor's; pages that are absent are brought in. */
  async attempt<Result>(action: () => Result): Promise<Result> {
    for (;;) {
      try {
        return action();
      } catch (absent) {
        if (!(absent instanceof PageAbsent)) throw absent;
        await this.present(absent.page, absent.write);
      }
    }
  }

  /** The kernel writes a word of a page where it sees the pages in a row. */
  async store(processor: Processor, number: number, offset: number, value: number): Promise<void> {
    const address = (ROW[this.format].address + number * PAGE_SIZE + offset) as GuestVirtual;
    processor.setStoredValue(value, 0);
    const stored = await this.attempt(() => processor.memory.storeAt(address, 4));
    if (!stored) throw new Error('a page of the row cannot be written');
  }

  /** Frame that an access of a processor reaches, −1 for a fault. */
  async access(processor: Processor, address: GuestVirtual, access: Access, user: boolean): Promise<number> {
    const host = await this.attempt(() => processor.memory.translate(address, access, user));
    return host < 0 ? -1 : pool.frameAt(host);
  }

  switchRoot(index: number, root: number): void {
    this.roots[index] = root;
    const number = this.#rootNumber(root);
    this.processors[index]?.setRoots(number, number);
  }

  /** Where in its page a table begins: PAE's top ones are small. */
  topOffset(table: number): number {
    return this.format === 'pae' && table < ROOTS ? (PAE_TOP * PAGE_SIZE) / PAE_TOPS : 0;
  }

  /** What processors know a top table by. */
  #rootNumber(root: number): number {
    return this.format === 'pae' ? root * PAE_TOPS + PAE_TOP : root;
  }

  /** Makes the host short of memory. */
  async reclaim(): Promise<void> {
    await this.#memory.reclaim();
  }

  /** Makes the host take a page. */
  async takeAway(number: number): Promise<void> {
    await this.space.discard(page(number), page(number + 1));
  }

  /**
   * Another guest begins to share all pages, or ends.
   * @param work of processors while the pages are being shared; what meets an absent page is left out
   */
  async clone(work: () => void): Promise<void> {
    await this.#memory.clone(work);
  }

  /** @throws Error when the clone, which does nothing, has a page that is not as it was */
  async requireKept(): Promise<void> {
    await this.#memory.requireKept();
  }

  /** @throws Error when a processor has a translation that the host's own table does not justify, or stores unseen to a table */
  requireJustifiedTranslations(addresses: readonly number[]): void {
    const readable = new Set(this.#framesOf(false));
    const writable = new Set(this.#framesOf(true));
    const row = Array.from({ length: PAGES }, (_, number) => ROW[this.format].address + number * PAGE_SIZE);
    for (const { memory: unit } of this.processors) {
      for (const address of [...row, ...addresses]) {
        for (const tlb of [unit.kernelTlb, unit.userTlb]) {
          for (const access of ACCESSES) {
            const host = tlb.find(lowWord(address), highWord(address), access);
            if (host < 0) continue;
            const frame = pool.frameAt(host);
            const isUnseen = access === Access.write && group.parts.marks.has(frame, FrameMark.watched);
            if ((access === Access.write ? writable : readable).has(frame) && !isUnseen) continue;
            throw new Error(`a translation of 0x${address.toString(16)} for access ${access} is not the host's`);
          }
        }
      }
    }
  }

  /** @throws Error when stores are watched to a frame that is no shadowed table's any more, or not to one that is */
  requireWatched(): void {
    const { shadow } = this.paging;
    const tables = Array.from({ length: PAGES }, (_, number) => number).filter((number) => shadow.isWatched(number));
    const expected = new Set(tables.map((number) => this.paging.space.frameOf(number as Mfn)));
    for (let frame = 0 as Frame; frame < FRAMES; frame++) {
      const isWatched = group.parts.marks.has(frame, FrameMark.watched);
      if (isWatched !== expected.has(frame)) throw new Error(`frame ${frame} is ${isWatched ? '' : 'not '}watched`);
    }
  }

  /** Frames that the host's table leads to at present. */
  #framesOf(write: boolean): (Frame | undefined)[] {
    return Array.from({ length: PAGES }, (_, number) => this.space.lookup(page(number), write));
  }

  /** What a shadow permits, asked as a walk asks it. */
  shadowed(processor: Processor, root: number, address: GuestVirtual, access: Access, user: boolean) {
    const found: FoundPage = {
      result: emptyResult(),
      tables: new Int32Array(3),
    };
    const { controls } = processor.memory;
    const low = lowWord(address);
    const permitted = this.shadow.walk(
      this.format,
      this.#rootNumber(root),
      low,
      highWord(address),
      access,
      user,
      controls,
      found,
    );
    return permitted ? found.result : undefined;
  }

  /** The architecture's walk of the guest's tables, then the host's own table: written without any of what is tested. */
  compose(root: number, address: number, access: Access, user: boolean, wp: boolean): Composed | undefined {
    const { levels, entryBytes } = this.geometry;
    let table = root;
    let mayWrite = true;
    let mayUser = true;
    let mayExecute = true;
    let isMarked = true;
    for (let level = levels; ; level--) {
      const shift = this.geometry.shift[level] as number;
      const index =
        Math.floor((address < 0 ? address + 2 ** 48 : address) / 2 ** shift) % this.geometry.entries[level]!;
      const isTopOfPae = this.format === 'pae' && level === 3;
      const offset = (isTopOfPae ? this.topOffset(table) : 0) + index * entryBytes;
      const entry = this.#peek(table, offset);
      const upper = entryBytes === 8 ? this.#peek(table, offset + 4) : 0;
      if ((entry & 1) === 0) return undefined;
      if (!isTopOfPae) {
        mayWrite &&= (entry & 2) !== 0;
        mayUser &&= (entry & 4) !== 0;
        mayExecute &&= upper >>> 31 === 0;
        isMarked &&= (entry & 0x20) !== 0;
      }
      const isLarge = level === 2 && (entry & 0x80) !== 0;
      // Reserved bits: those below a large page's number, and the size bit above level 2.
      if (isLarge && (entry & (entryBytes === 8 ? 0x1f_e000 : 0x3f_e000)) !== 0) return undefined;
      if (level > 2 && !isTopOfPae && (entry & 0x80) !== 0) return undefined;
      table = entry >>> 12;
      if (level > 1 && !isLarge) continue;
      const pages = 2 ** (shift - 12);
      const number = table - (table % pages) + (Math.floor(address / PAGE_SIZE) & (pages - 1));
      if (number >= PAGES || (user && !mayUser)) return undefined;
      if (access === Access.write && !mayWrite && (user || wp)) return undefined;
      if (access === Access.fetch && !mayExecute) return undefined;
      const frame = this.space.lookup((number * PAGE_SIZE) as HostVirtual, access === Access.write);
      if (frame === undefined) throw new Error(`page ${number} is absent`);
      return { frame, writable: mayWrite && (entry & 0x40) !== 0, executable: mayExecute, isMarked };
    }
  }

  #peek(number: number, offset: number): number {
    const frame = this.space.lookup((number * PAGE_SIZE) as HostVirtual, false);
    if (frame === undefined) throw new Error(`page ${number} is absent`);
    return memory.u32[(pool.addressOf(frame) + offset) >>> 2] as number;
  }

  /** @param order which goes first: shadows, or the memory that they were made of */
  async end(order: 'shadows' | 'memory' = 'shadows'): Promise<void> {
    for (const processor of this.processors) group.release(processor);
    await this.#memory.endClone();
    if (order === 'memory') {
      await this.space.exit();
      this.paging.shadow.end();
    } else await this.paging.destroy();
  }

  /** Frames that are nobody's. */
  static get available(): number {
    return pool.available;
  }
}

const RIGHTS = Pte.present | Pte.writable;
