import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import { type Processor, ProcessorGroup } from '../src/cpu/processor.ts';
import { emptyResult } from '../src/cpu/walk.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { DirectPaging } from '../src/paging/direct/direct-paging.ts';
import { PagingError } from '../src/paging/direct/errors.ts';
import { FrameOwner } from '../src/paging/direct/frame-types.ts';
import { type DirectFormat, TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import { ShadowTables } from '../src/paging/shadow/shadow-tables.ts';
import { type Frame, type GuestVirtual, lowWord, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Cr4, Efer, Pte } from '../src/x86/registers.ts';

const RUNS = 1000;

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
const LIMIT = 0x40;
/** Entries of each table that are in use. */
const ENTRIES = 3;
const TABLE = Pte.present | Pte.writable | Pte.user;
const ACCESSES = [Access.read, Access.write, Access.fetch] as const;

const addresses = Array.from({ length: ENTRIES * ENTRIES }, (_, index) => {
  return (Math.floor(index / ENTRIES) * 2 ** 21 + (index % ENTRIES) * 2 ** 12) as GuestVirtual;
});

const memory = new HostMemory(48 << 20);
const pool = new FramePool(memory, 512);
const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, codeBytes: 1 << 20 });

/** A domain of Xen whose tables are shadowed, with one processor. */
class ShadowedDomain {
  readonly space = new MachineSpace(pool, LIMIT + 1);
  readonly shadow: ShadowTables;
  readonly paging: DirectPaging;
  readonly processor: Processor = group.create();

  constructor(format: DirectFormat) {
    const { space } = this;
    const { topLevel } = TABLE_RULES[format];
    const top = format === 'pae' ? LEVEL_3 : LEVEL_4;
    this.shadow = new ShadowTables({ space, frames: group, mayUnsync: false, capacity: 8 });
    this.paging = new DirectPaging({
      space,
      invalidator: group,
      format,
      virtualProcessors: 1,
      limit: LIMIT as Mfn,
      shadow: this.shadow,
    });
    for (let mfn = LEVEL_4; mfn < END; mfn++) this.paging.addFrame(mfn as Mfn, pool.allocate(), FrameOwner.domain);
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
    expect(this.paging.pin(topLevel, top as Mfn)).toBe(0);
    expect(this.paging.newBasePointer(0, top as Mfn)).toBe(0);
    const { processor } = this;
    processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect;
    processor.cr4 = Cr4.physicalAddressExtension;
    processor.efer = Efer.noExecute;
    processor.translation = this.paging;
    processor.setRoots(this.root, this.root);
  }

  /** As walks count it. */
  get root(): number {
    return this.paging.walkedRoot(this.paging.root(0));
  }

  #word(mfn: number, index: number): number {
    return (this.space.addressOf(mfn as Mfn) >>> 2) + index * 2;
  }

  #poke(mfn: number, index: number, target: number, flags: number): void {
    memory.u32[this.#word(mfn, index)] = (target << 12) | flags;
  }

  complete(call: () => number): number {
    for (;;) {
      const result = call();
      if (result !== PagingError.preempted) return result;
    }
  }

  /** A fill of the TLB, or nothing. */
  access(address: GuestVirtual, access: Access, user: boolean): void {
    this.processor.memory.translate(address, access, user);
  }

  /** The frame to which the guest's tables lead at this moment, −1 for a fault. */
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
      if (shift === 12) return this.space.frames[table] as Frame;
    }
  }

  end(): void {
    group.release(this.processor);
    this.paging.destroy();
  }
}

const page = fc.integer({ min: LEVEL_4, max: END - 1 });
const data = fc.integer({ min: DATA, max: END - 1 });
const update = fc.record({
  kind: fc.constant('update' as const),
  table: fc.constantFrom(LEVEL_1, LEVEL_1, SECOND, LEVEL_2, DATA),
  index: fc.nat(ENTRIES - 1),
  target: fc.oneof(data, data, page),
  flags: fc.constantFrom(TABLE, TABLE, Pte.present | Pte.user, Pte.present | Pte.writable, 0),
  high: fc.constantFrom(0, 0, 0x8000_0000),
});
const step = fc.oneof(
  { weight: 6, arbitrary: update },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('access' as const),
      address: fc.constantFrom(...addresses),
      access: fc.constantFrom(...ACCESSES),
      user: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('pin' as const), page: data }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unpin' as const), page: data }) },
);

type Step = typeof step extends fc.Arbitrary<infer Made> ? Made : never;

/** Whether an entry was changed. */
function perform(domain: ShadowedDomain, made: Step): boolean {
  const { paging } = domain;
  switch (made.kind) {
    case 'access':
      domain.access(made.address, made.access, made.user);
      return false;
    case 'pin':
      domain.complete(() => paging.pin(1, made.page as Mfn));
      return false;
    case 'unpin':
      domain.complete(() => paging.unpin(made.page as Mfn));
      return false;
    case 'update': {
      const pointer = made.table * PAGE_SIZE + made.index * 8;
      const low = ((made.target << 12) | made.flags) >>> 0;
      return domain.complete(() => paging.mmuUpdate(pointer, 0, low, made.high)) === 0;
    }
  }
}

/** How many accesses the shadow permits; the guest's tables permit all of them. */
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
  'a shadow of validated %s tables permits nothing that they do not permit at that moment, flush or no flush',
  (format) => {
    const before = pool.available;
    let permitted = 0;
    let updated = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), (steps) => {
        const domain = new ShadowedDomain(format);
        const { shadow } = domain;
        try {
          for (const made of steps) if (perform(domain, made)) updated++;
          // Only here: walks of a shadow say that its table is in use.
          permitted += check(domain);
          expect(shadow.statistics().unsyncs).toBe(0);
        } finally {
          domain.end();
        }
      }),
      { numRuns: RUNS },
    );
    expect(pool.available).toBe(before);
    expect(permitted).toBeGreaterThan(RUNS);
    expect(updated).toBeGreaterThan(RUNS);
  },
);
