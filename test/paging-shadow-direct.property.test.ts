import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import type { Processor } from '../src/cpu/processor.ts';
import { emptyResult } from '../src/cpu/walk.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { DirectPaging } from '../src/paging/direct/direct-paging.ts';
import { PagingError } from '../src/paging/direct/errors.ts';
import { FrameOwner } from '../src/paging/direct/frame-types.ts';
import { type DirectFormat, TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import { NumberRuns } from '../src/paging/page-numbers.ts';
import { Pager } from '../src/paging/pager.ts';
import { followWithShadows } from '../src/paging/shadow/shadow-follower.ts';
import type { ShadowTables } from '../src/paging/shadow/shadow-tables.ts';
import { type Frame, type GuestVirtual, lowWord, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Cr4, Efer, PTE_NO_EXECUTE_HIGH, Pte } from '../src/x86/registers.ts';
import { page } from './mm-world.ts';
import { group, memory, pool, SmallMemory } from './small-host.ts';

const RUNS = 400;

/**
 * Numbers of a domain's pages: a table of each level, a second one of level 1, then data. With PAE the first is a table of
 * level 2, where the host's addresses are.
 */
const LEVEL_4 = 0x10;
const LEVEL_3 = 0x11;
const LEVEL_2 = 0x12;
const LEVEL_1 = 0x13;
const SECOND = 0x14;
const DATA = 0x15;
const END = 0x1c;
const PAGES = END - LEVEL_4;
const LIMIT = 0x40;
/** Entries of each table that are in use. */
const ENTRIES = 3;
const TABLE = Pte.present | Pte.writable | Pte.user;
const ACCESSES = [Access.read, Access.write, Access.fetch] as const;

const addresses = Array.from({ length: ENTRIES * ENTRIES }, (_, index) => {
  return (Math.floor(index / ENTRIES) * 2 ** 21 + (index % ENTRIES) * 2 ** 12) as GuestVirtual;
});

/** A domain of Xen whose tables are shadowed, with one processor. */
class ShadowedDomain {
  readonly shadow: ShadowTables;
  readonly paging: DirectPaging;
  readonly processor: Processor = group.create();
  readonly memory: SmallMemory;
  readonly #pager: Pager;

  private constructor(paging: DirectPaging, shadow: ShadowTables, small: SmallMemory, pager: Pager) {
    this.paging = paging;
    this.shadow = shadow;
    this.memory = small;
    this.#pager = pager;
  }

  static async create(format: DirectFormat): Promise<ShadowedDomain> {
    const small = await SmallMemory.create(PAGES);
    const space = new MachineSpace(pool, LIMIT + 1);
    const numbers = new NumberRuns([{ firstNumber: LEVEL_4, pages: PAGES }]);
    const { marks } = group.parts;
    const pager = new Pager({
      machine: space,
      memory: small.space,
      invalidator: group,
      marks,
      numbers,
      populated: PAGES,
      order: 0,
    });
    await pager.start();
    const shadow = await followWithShadows({ space, frames: group, pager, order: 1, mayUnsync: false, capacity: 8 });
    const paging = new DirectPaging({
      space,
      invalidator: group,
      format,
      virtualProcessors: 1,
      limit: LIMIT as Mfn,
      shadow,
    });
    const domain = new ShadowedDomain(paging, shadow, small, pager);
    await domain.#begin();
    return domain;
  }

  async #begin(): Promise<void> {
    const { paging, processor } = this;
    const { format } = paging;
    for (let mfn = LEVEL_4; mfn < END; mfn++) {
      paging.types.adopt(mfn, FrameOwner.domain);
      await this.#bringIn(mfn as Mfn, true);
    }
    const top = format === 'pae' ? LEVEL_3 : LEVEL_4;
    if (format === 'pae') {
      this.#poke(LEVEL_3, 0, LEVEL_2, Pte.present);
      this.#poke(LEVEL_3, 3, LEVEL_4, Pte.present);
    } else {
      this.#poke(LEVEL_4, 0, LEVEL_3, TABLE);
      this.#poke(LEVEL_3, 0, LEVEL_2, TABLE);
    }
    this.#poke(LEVEL_2, 0, LEVEL_1, TABLE);
    this.#poke(LEVEL_2, 1, SECOND, TABLE);
    this.#poke(LEVEL_1, 0, DATA, TABLE);
    expect(paging.pin(TABLE_RULES[format].topLevel, top as Mfn)).toBe(0);
    expect(paging.newBasePointer(0, top as Mfn)).toBe(0);
    processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect;
    processor.cr4 = Cr4.physicalAddressExtension;
    processor.efer = Efer.noExecute;
    processor.translation = paging;
    processor.setRoots(this.root, this.root);
  }

  /** As walks count it. */
  get root(): number {
    return this.paging.walkedRoot(this.paging.root(0));
  }

  /** Of an entry of a table, which the host always has. */
  #word(mfn: number, index: number): number {
    const frame = this.#hostFrame(mfn, false);
    if (frame === undefined) throw new Error(`table ${mfn} is absent`);
    return (pool.addressOf(frame) >>> 2) + index * 2;
  }

  /** What the host's own table has at this moment. */
  #hostFrame(mfn: number, write: boolean): Frame | undefined {
    return this.memory.space.lookup(page(mfn - LEVEL_4), write);
  }

  #poke(mfn: number, index: number, target: number, flags: number): void {
    memory.u32[this.#word(mfn, index)] = (target << 12) | flags;
  }

  async #bringIn(mfn: Mfn, write: boolean): Promise<void> {
    const failed = await this.#pager.bringIn(mfn, write);
    if (failed) throw new Error(failed.message);
  }

  /** Makes a call until it is answered; pages that are absent are brought in. */
  async complete(call: () => number): Promise<number> {
    for (;;) {
      try {
        const result = call();
        if (result !== PagingError.preempted) return result;
      } catch (absent) {
        if (!(absent instanceof PageAbsent)) throw absent;
        await this.#bringIn(absent.page as Mfn, absent.write);
      }
    }
  }

  /** A fill of the TLB, or nothing. */
  access(address: GuestVirtual, access: Access, user: boolean): number {
    return this.processor.memory.translate(address, access, user);
  }

  /** The frame to which the guest's tables and the host's lead at this moment, −1 for a fault. */
  guestFrame(address: GuestVirtual, access: Access, user: boolean): number {
    const { format } = this.paging;
    let table: number = this.paging.root(0);
    for (let shift = format === 'pae' ? 30 : 39; ; shift -= 9) {
      const word = this.#word(table, Math.floor(address / 2 ** shift) % 512);
      const low = memory.u32[word] as number;
      const high = memory.u32[word + 1] as number;
      if ((low & Pte.present) === 0) return -1;
      table = low >>> 12;
      // The top table of PAE gives no rights and takes none.
      if (format === 'pae' && shift === 30) continue;
      if (user && (low & Pte.user) === 0) return -1;
      if (access === Access.write && (low & Pte.writable) === 0) return -1;
      if (access === Access.fetch && high >>> 31 !== 0) return -1;
      if (shift === 12) return this.#hostFrame(table, access === Access.write) ?? -1;
    }
  }

  /** As domains end: the pages go when all numbers have been given back. */
  async end(): Promise<void> {
    group.release(this.processor);
    await this.memory.endClone();
    const ended = this.#pager.end();
    this.paging.destroy();
    await ended;
  }
}

const anyPage = fc.integer({ min: LEVEL_4, max: END - 1 });
const data = fc.integer({ min: DATA, max: END - 1 });
const update = fc.record({
  kind: fc.constant('update' as const),
  table: fc.constantFrom(LEVEL_1, LEVEL_1, SECOND, LEVEL_2, DATA),
  index: fc.nat(ENTRIES - 1),
  target: fc.oneof(data, data, anyPage),
  flags: fc.constantFrom(TABLE, TABLE, Pte.present | Pte.user, Pte.present | Pte.writable, 0),
  high: fc.constantFrom(0, 0, PTE_NO_EXECUTE_HIGH),
});
const access = {
  address: fc.constantFrom(...addresses),
  access: fc.constantFrom(...ACCESSES),
  user: fc.boolean(),
};
const step = fc.oneof(
  { weight: 12, arbitrary: update },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('forbidFetches' as const),
      table: fc.constantFrom(LEVEL_1, SECOND, LEVEL_2),
      index: fc.nat(ENTRIES - 1),
    }),
  },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('access' as const), ...access }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pin' as const), page: data }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('unpin' as const), page: data }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reclaim' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clone' as const), ...access }) },
);

type Step = typeof step extends fc.Arbitrary<infer Made> ? Made : never;

/** Whether an entry was changed. */
async function perform(domain: ShadowedDomain, made: Step): Promise<boolean> {
  const { paging } = domain;
  switch (made.kind) {
    case 'access':
      await domain.complete(() => domain.access(made.address, made.access, made.user));
      return false;
    case 'pin':
      await domain.complete(() => paging.pin(1, made.page as Mfn));
      return false;
    case 'unpin':
      await domain.complete(() => paging.unpin(made.page as Mfn));
      return false;
    case 'reclaim':
      await domain.memory.reclaim();
      return false;
    case 'clone':
      await domain.memory.clone(() => void domain.access(made.address, made.access, made.user));
      return false;
    case 'forbidFetches': {
      // The lower half stays, with the bits that walks have set: no shadow's entry would outlast their loss.
      const pointer = made.table * PAGE_SIZE + made.index * 8;
      const changed = await domain.complete(() => {
        const low = memory.u32[paging.entries.wordOf(made.table as Mfn) + made.index * 2] as number;
        return paging.mmuUpdate(pointer, 0, low, PTE_NO_EXECUTE_HIGH);
      });
      return changed === 0;
    }
    case 'update': {
      const pointer = made.table * PAGE_SIZE + made.index * 8;
      const low = ((made.target << 12) | made.flags) >>> 0;
      return (await domain.complete(() => paging.mmuUpdate(pointer, 0, low, made.high))) === 0;
    }
  }
}

/** How many accesses the shadow permits; the guest's tables and the host's together permit all of them. */
function check(domain: ShadowedDomain): number {
  const { controls } = domain.processor.memory;
  const { format } = domain.paging;
  let permitted = 0;
  expect(domain.shadow.recount()).toEqual([]);
  for (const address of addresses) {
    for (const access of ACCESSES) {
      for (const user of [false, true]) {
        const found = { result: emptyResult(), tables: new Int32Array(3) };
        if (!domain.shadow.walk(format, domain.root, lowWord(address), 0, access, user, controls, found)) continue;
        permitted++;
        const { frame, writable } = found.result;
        expect(domain.guestFrame(address, access, user)).toBe(frame);
        if (writable) expect(domain.guestFrame(address, Access.write, user)).toBe(frame);
      }
    }
  }
  return permitted;
}

test.each(['four-level', 'pae'] as const)(
  'a shadow of validated %s tables permits nothing that they and the host do not permit at that moment, flush or no flush',
  async (format) => {
    const before = pool.available;
    let permitted = 0;
    let updated = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), async (steps) => {
        const domain = await ShadowedDomain.create(format);
        const { shadow } = domain;
        try {
          for (const made of steps) if (await perform(domain, made)) updated++;
          // Only here: walks of a shadow say that its table is in use.
          permitted += check(domain);
          await domain.memory.requireKept();
          expect(shadow.statistics().unsyncs).toBe(0);
        } finally {
          await domain.end();
        }
      }),
      { numRuns: RUNS },
    );
    expect(pool.available).toBe(before);
    // Much of what was made the host has taken back by the end.
    expect(permitted).toBeGreaterThan(RUNS / 4);
    expect(updated).toBeGreaterThan(RUNS);
  },
);
