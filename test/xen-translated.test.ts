import { afterEach, describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import type { Descriptor } from '../src/cpu/processor-api.ts';
import type { XenDomain } from '../src/interfaces/xen/domain.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import {
  BASE,
  createPagedGuest,
  DATA,
  DONE,
  destroyGuests,
  Hypercall,
  SELF,
  type SmallGuest,
  smallPlan,
} from './xen-guest.ts';

/** A Xen guest whose frames are translated for it: its tables hold pseudo-physical numbers, and nobody examines them. */
const plan = smallPlan(undefined, { features: 'auto_translated_physmap', isTranslated: true });
const MEMORY_OP = 12;
const SET_GDT = 2;
const UPDATE_DESCRIPTOR = 10;
const PRESENT = 0x63;
const INVALID = -22;
const SEARCH = -3;
const NOT_IMPLEMENTED = -38;

const enum Memory {
  decrease = 1,
  populate = 6,
  addToPhysmap = 7,
  machineToPhysical = 12,
}

afterEach(destroyGuests);

/** A guest, and its hypercalls with the data that they need. */
class TranslatedGuest {
  readonly guest: SmallGuest;

  private constructor(guest: SmallGuest) {
    this.guest = guest;
  }

  static async create(): Promise<TranslatedGuest> {
    const { guest } = await createPagedGuest(plan);
    return new TranslatedGuest(guest);
  }

  /** Does what reaches for the guest's pages when these are there. */
  async reach<Result>(action: () => Result): Promise<Result> {
    const { domain } = this.guest;
    for (;;) {
      try {
        return action();
      } catch (absent) {
        if (!(absent instanceof PageAbsent)) throw absent;
        domain.bringIn(domain.running, absent.page, absent.write);
        while (domain.running.awaitsHost) await new Promise(setImmediate);
      }
    }
  }

  /** Makes a hypercall with numbers at DATA. */
  async call(values: readonly (number | readonly [number, number])[], number: number, ...words: readonly number[]) {
    await this.reach(() => this.guest.store(DATA, ...values));
    return this.guest.pagedHypercall(number, ...words);
  }

  reservation(command: Memory, ...pages: readonly number[]): Promise<number> {
    return this.call([DATA + 64, pages.length, 0, SELF, 0, 0, 0, 0, ...pages], MEMORY_OP, command, DATA);
  }

  place(space: number, index: number, page: number): Promise<number> {
    return this.call([[SELF, space], index, page], MEMORY_OP, Memory.addToPhysmap, DATA);
  }

  /** Maps a page at an address of the guest's. */
  map(address: number, page: number): Promise<number> {
    return this.guest.pagedHypercall(Hypercall.updateVaMapping, address, page * PAGE_SIZE + PRESENT, 2);
  }

  load(address: number): Promise<number> {
    return this.reach(() => this.guest.load(address));
  }
}

/** Pages of the data that hypercalls here do not use. */
const page = (index: number): number => DATA + index * PAGE_SIZE;
/** Pseudo-physical number of an address of the kernel's. */
const numberOf = (address: number): number => (address - BASE) / PAGE_SIZE;

describe('a Xen guest whose frames are translated', () => {
  it('is told so, and gets no frame list and no machine-to-physical table', async () => {
    const translated = await TranslatedGuest.create();
    expect(await translated.call([0], Hypercall.xenVersion, 6, DATA)).toBe(0);
    expect((await translated.load(DATA + 4)) & 5).toBe(5);
    expect(await translated.load(BASE + plan.startInfoPfn * PAGE_SIZE + 0x68)).toBe(0);
    expect(await translated.guest.pagedHypercall(MEMORY_OP, Memory.machineToPhysical, DATA)).toBe(NOT_IMPLEMENTED);
  });

  it('finds pseudo-physical numbers in its tables', async () => {
    const { guest, reach } = await TranslatedGuest.create();
    expect(await reach.call({ guest }, () => guest.mfnAt(page(5)))).toBe(numberOf(page(5)));
    expect(guest.domain.paging.root(0)).toBe(plan.tablesPfn);
  });

  it('changes its tables by stores of its own', async () => {
    const translated = await TranslatedGuest.create();
    const { guest } = translated;
    const [, , , entry] = await translated.reach(() => guest.path(page(5)));
    await translated.reach(() => guest.store(page(6), 0x1234));
    expect(await translated.load(page(5))).toBe(0);
    const place = BASE + entry.table * PAGE_SIZE + entry.index * 8;
    await translated.reach(() => guest.store(place, numberOf(page(6)) * PAGE_SIZE + PRESENT));
    await translated.call([7, page(5), 0], Hypercall.mmuExtended, DATA, 1, DONE, SELF);
    expect(await translated.load(page(5))).toBe(0x1234);
  });

  it('changes them by mmu_update too, and keeps what the processor marked when it asks for that', async () => {
    const translated = await TranslatedGuest.create();
    const { guest } = translated;
    const [, , , entry] = await translated.reach(() => guest.path(page(5)));
    await translated.load(page(5));
    const pointer = entry.table * PAGE_SIZE + entry.index * 8;
    const unmarked = numberOf(page(5)) * PAGE_SIZE + 3;
    expect(await translated.call([pointer + 2, unmarked], Hypercall.mmuUpdate, DATA, 1, DONE, SELF)).toBe(0);
    expect((await translated.load(BASE + pointer)) & 0x23).toBe(0x23);
    expect(await translated.call([pointer + 1, 0], Hypercall.mmuUpdate, DATA, 1, DONE, SELF)).toBe(INVALID);
    const beyond = guest.domain.space.limit * PAGE_SIZE;
    expect(await translated.call([beyond, 0], Hypercall.mmuUpdate, DATA, 1, DONE, SELF)).toBe(INVALID);
  });

  it('may pin any page of its own, which says nothing', async () => {
    const translated = await TranslatedGuest.create();
    for (const command of [3, 3, 4, 4]) {
      const pinned = [command, numberOf(page(7)), 0];
      expect(await translated.call(pinned, Hypercall.mmuExtended, DATA, 1, DONE, SELF)).toBe(0);
    }
    expect(await translated.call([3, plan.pages, 0], Hypercall.mmuExtended, DATA, 1, DONE, SELF)).toBe(INVALID);
  });

  it('gives pages back and gets empty ones under the same numbers', async () => {
    const translated = await TranslatedGuest.create();
    const number = plan.mappedPages + 3;
    await translated.map(page(5), number);
    await translated.reach(() => translated.guest.store(page(5), 0x77));
    expect(await translated.reservation(Memory.populate, number)).toBe(0);
    expect(await translated.reservation(Memory.decrease, number, number)).toBe(1);
    expect(await translated.load(page(5))).toBe(-1);
    expect(await translated.reservation(Memory.populate, number, plan.pages)).toBe(1);
    expect(await translated.load(page(5))).toBe(0);
    expect(translated.guest.domain.paging.recount()).toEqual([]);
  });

  it('does nothing more when a call says that more of its list is done than there is', async () => {
    const translated = await TranslatedGuest.create();
    const reservation = [DATA + 64, 1, 0, SELF, 0, 0, 0, 0, plan.mappedPages + 3];
    const done = 2 ** 58 - 2 ** 34;
    expect(await translated.call(reservation, MEMORY_OP, Memory.decrease - 2 ** 40, DATA)).toBe(done);
    expect(translated.guest.domain.paging.recount()).toEqual([]);
  });

  it('does not get rid of a page that the host has something in', async () => {
    const translated = await TranslatedGuest.create();
    expect(await translated.reservation(Memory.decrease, plan.consolePfn)).toBe(0);
  });

  it('moves shared_info to a number behind its memory, once a number is free', async () => {
    const translated = await TranslatedGuest.create();
    const { domain } = translated.guest;
    const first = domain.shared.mfn;
    const behind = plan.pages + 200;
    await translated.map(page(5), first);
    expect(await translated.place(0, 0, plan.pages - 1)).toBe(INVALID);
    expect(await translated.place(0, 0, behind)).toBe(0);
    expect(await translated.load(page(5))).toBe(-1);
    await translated.map(page(5), behind);
    // Without a place of its own, a processor's upcall mask is the second byte of the page.
    expect(((await translated.load(page(5))) >> 8) & 0xff).toBe(1);
    expect(await translated.place(1, 0, behind)).toBe(INVALID);
    expect(await translated.place(1, 0, behind + 1)).toBe(0);
    expect(domain.grants.frames[0]).toBe(behind + 1);
    expect(await translated.place(1, 64, behind + 2)).toBe(INVALID);
    expect(await translated.place(2, 0, behind + 2)).toBe(INVALID);
    expect(await translated.call([[5, 0], 0, behind + 2], MEMORY_OP, Memory.addToPhysmap, DATA)).toBe(SEARCH);
    expect(domain.paging.recount()).toEqual([]);
  });

  it('finds what it has moved where it was when it is saved and goes on', async () => {
    const source = await TranslatedGuest.create();
    await source.place(0, 0, plan.pages + 200);
    await source.place(1, 2, plan.pages + 201);
    const saved = save(source.guest.domain);
    const { guest } = await TranslatedGuest.create();
    restore(guest.domain, saved);
    expect(guest.domain.shared.mfn).toBe(plan.pages + 200);
    expect(guest.domain.space.frameOf(guest.domain.grants.frames[2] as Mfn)).toBeGreaterThanOrEqual(0);
    expect(save(guest.domain)).toEqual(saved);
  });

  it('has its descriptors judged when they are loaded', async () => {
    const translated = await TranslatedGuest.create();
    const { guest } = translated;
    const [vcpu] = guest.domain.vcpus;
    if (!vcpu) throw new Error('no vCPU');
    const code: readonly [number, number] = [0xffff, 0x00af_9b00];
    const taskState: readonly [number, number] = [0x67, 0x0000_8900];
    await translated.reach(() => guest.store(page(8), 0, code, taskState));
    expect(await translated.call([numberOf(page(8))], SET_GDT, DATA, 3)).toBe(0);
    const read: Descriptor = { low: 0, high: 0 };
    expect(await translated.reach(() => vcpu.read(8, read))).toBe(true);
    expect(read).toEqual({ low: 0xffff, high: 0x00af_fb00 });
    expect(await translated.reach(() => vcpu.read(16, read))).toBe(false);
    const pointer = numberOf(page(8)) * PAGE_SIZE + 8;
    expect(await guest.pagedHypercall(UPDATE_DESCRIPTOR, pointer, 0)).toBe(0);
    expect(await translated.load(page(8) + 12)).toBe(0);
    expect(await translated.reservation(Memory.decrease, numberOf(page(8)))).toBe(1);
    expect(vcpu.read(8, read)).toBe(false);
  });
});

/** The first address that no table maps, below a table of level 2 that is there. */
const UNMAPPED = BASE + 0x40_0000;
const INVALIDATE_PAGE = 7;
const VCPU_OP = 24;
const REGISTER_VCPU_INFO = 10;
const MARK = 0x5a5a;

/** A store of the host's to a page that it shares with its guest. */
interface HostStore {
  readonly what: string;
  readonly pageIn: (domain: XenDomain) => number;
  /** What the guest asks for before it has a table there. */
  readonly prepare?: (translated: TranslatedGuest) => Promise<unknown>;
  /** Of the entry that it changes, in the page as a table. */
  readonly offset: number;
  readonly make: (domain: XenDomain, translated: TranslatedGuest) => unknown;
}

/** Where the vcpu_info is that a guest registers. */
const INFO = { number: numberOf(page(8)), offset: 0x100 } as const;
const IN_INFO = { pageIn: () => INFO.number, prepare: registerInfo } as const;

function registerInfo(translated: TranslatedGuest): Promise<number> {
  return translated.call([INFO.number, INFO.offset], VCPU_OP, REGISTER_VCPU_INFO, 0, DATA);
}

/** Raises an event on a port that is bound for it, with all ports below. */
function raise({ events }: XenDomain, port: number): void {
  while (events.bindIpi(0) < port);
  events.raise(port);
}

const HOST_STORES: readonly HostStore[] = [
  {
    what: 'a vcpu_info that is registered',
    pageIn: () => INFO.number,
    offset: INFO.offset + 0x10,
    make: (_domain, translated) => registerInfo(translated),
  },
  {
    what: 'the mask of upcalls',
    ...IN_INFO,
    offset: INFO.offset,
    make: ({ running }) => {
      running.eventsMasked = false;
    },
  },
  // The bit of ports from 768 on is the lowest of an entry's page number.
  { what: 'the selector of events', ...IN_INFO, offset: INFO.offset + 8, make: (domain) => raise(domain, 768) },
  {
    what: 'the address of a page fault',
    ...IN_INFO,
    offset: INFO.offset + 0x10,
    make: ({ running }) => running.publishCr2(),
  },
  {
    what: 'the time',
    ...IN_INFO,
    offset: INFO.offset + 0x20,
    make: (domain) => {
      domain.running.down = true;
      domain.bringUp(domain.running);
    },
  },
  { what: 'an event', pageIn: ({ shared }) => shared.mfn, offset: 0x800, make: (domain) => raise(domain, 12) },
  {
    what: 'input of the console',
    pageIn: () => plan.consolePfn,
    offset: 0,
    make: ({ rings }) => {
      rings.type(new Uint8Array(8));
      rings.serve();
    },
  },
  {
    what: 'an error of the ring of XenStore',
    pageIn: () => plan.storePfn,
    offset: 0x818,
    make: async ({ rings }, { guest, reach }) => {
      await reach.call({ guest }, () => guest.store(page(6) + 0x800, [0, 5000]));
      rings.storeChanged();
      rings.serve();
    },
  },
];

describe('a table of a guest whose frames are translated', () => {
  it.each(HOST_STORES.map((store) => [store.what, store] as const))(
    'changes by %s that the host stores in its page',
    async (_what, store) => {
      const translated = await TranslatedGuest.create();
      const { guest } = translated;
      const table = store.pageIn(guest.domain);
      await store.prepare?.(translated);
      await translated.map(page(6), table);
      const [, , above] = await translated.reach(() => guest.path(UNMAPPED));
      await translated.reach(() => {
        guest.store(page(9), MARK);
        guest.store(page(6) + store.offset, numberOf(page(9)) * PAGE_SIZE + PRESENT);
        guest.store(BASE + above.table * PAGE_SIZE + above.index * 8, table * PAGE_SIZE + PRESENT);
      });
      const address = UNMAPPED + (store.offset / 8) * PAGE_SIZE;
      expect(await translated.load(address)).toBe(MARK);

      await store.make(guest.domain, translated);

      expect(guest.domain.paging.recount()).toEqual([]);
      await translated.call([INVALIDATE_PAGE, address, 0], Hypercall.mmuExtended, DATA, 1, DONE, SELF);
      expect(await translated.load(address)).not.toBe(MARK);
    },
  );
});

describe('a kernel that is to have its frames translated', () => {
  it('must say that it can do with that', () => {
    expect(() => smallPlan(undefined, { isTranslated: true })).toThrow(
      'the kernel does not say that it can do with auto_translated_physmap (FEATURES, in its Xen notes); give --paging direct or shadow',
    );
  });

  it('gets it when it cannot do without', () => {
    const features = '!auto_translated_physmap|writable_page_tables';
    expect(smallPlan(undefined, { features, isTranslated: true }).isTranslated).toBe(true);
    expect(() => smallPlan(undefined, { features })).toThrow('cannot do without auto_translated_physmap');
  });
});
