import { afterEach, describe, expect, test } from 'vitest';
import { save } from '../src/archive/writer.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { createPagedGuest, DATA, DONE, destroyGuests, Hypercall, SELF, SmallGuest } from './xen-guest.ts';

/**
 * A hypercall that meets absent pages is made again when they are there, one page after another. Whatever it is, the
 * guest must not notice: each scenario is played by a guest with all its pages and by one that loses all that are not
 * pinned before every hypercall, and both must end alike.
 */
const PRESENT = 0x63;
const READ_ONLY = 0x61;
const TABLE = 0x67;
const MULTICALL_ENTRY = 64;
/** More passes of reclaim than it takes to go through all pages of the guest. */
const PASSES = 40;

afterEach(destroyGuests);

/** What a scenario does with a guest. */
interface Player {
  readonly guest: SmallGuest;
  hypercall(number: number, ...values: readonly number[]): Promise<number>;
  /** Looks at the guest's memory or changes it, when the pages for that are there. */
  reach<Result>(action: () => Result): Promise<Result>;
}

type Scenario = (player: Player) => Promise<readonly unknown[]>;

function residentPlayer(): Player {
  const guest = new SmallGuest();
  return {
    guest,
    hypercall: async (number, ...values) => guest.hypercall(number, ...values),
    reach: async (action) => action(),
  };
}

async function pagedPlayer(): Promise<Player & { readonly evicted: () => number }> {
  const { guest, manager } = await createPagedGuest();
  const { domain } = guest;
  const evict = async () => {
    for (let pass = 0; pass < PASSES; pass++) await manager.relieve();
  };
  return {
    guest,
    evicted: () => manager.statistics().swap.swappedIn,
    hypercall: async (number, ...values) => {
      await evict();
      return guest.pagedHypercall(number, ...values);
    },
    reach: async (action) => {
      for (;;) {
        try {
          return action();
        } catch (absent) {
          if (!(absent instanceof PageAbsent)) throw absent;
          domain.bringIn(domain.running, absent.page, absent.write);
          while (domain.running.awaitsHost) await new Promise(setImmediate);
        }
      }
    },
  };
}

/** A page of the data behind those that hypercalls of `SmallGuest` use. */
const page = (index: number): number => DATA + index * PAGE_SIZE;
/** A little before the end of a page, so that what is stored there crosses into the next. */
const crossing = (index: number, before = 8): number => page(index + 1) - before;

const SCENARIOS: Record<string, Scenario> = {
  'a text across pages is printed once': async ({ guest, hypercall, reach }) => {
    await reach(() => guest.store(crossing(2, 16), 0x6c6c_6568, 0, 0x6f77_206f, 0));
    return [await hypercall(Hypercall.consoleIo, 0, 24, crossing(2, 16)), guest.console];
  },

  'a multicall whose entries and answers lie on many pages': async ({ guest, hypercall, reach }) => {
    const list = crossing(1, MULTICALL_ENTRY + 8);
    // On the page of the second entry's answer: that page is there to be read, but not yet to be written.
    const text = page(2) + 1024;
    await reach(() => {
      guest.store(text, 0x6968, 0);
      guest.store(list, Hypercall.xenVersion, 0, 1, page(5));
      guest.store(list + MULTICALL_ENTRY, Hypercall.consoleIo, 0, 0, 2, text);
      guest.store(list + 2 * MULTICALL_ENTRY, Hypercall.xenVersion, 0, 5, page(6));
    });
    const result = await hypercall(Hypercall.multicall, list, 3);
    const answers = [0, 1, 2].map((entry) => list + entry * MULTICALL_ENTRY + 8);
    return [
      result,
      guest.console,
      ...(await reach(() => [...answers, page(5), page(6), page(6) + 4].map((address) => guest.load(address)))),
    ];
  },

  'a batch of updates, some of them to plain pages': async ({ guest, hypercall, reach }) => {
    const plain = await reach(() => guest.mfnAt(page(8)));
    const other = await reach(() => guest.mfnAt(page(9)));
    const [, , , entry] = await reach(() => guest.path(page(7)));
    const requests = [
      guest.request(entry, other, READ_ONLY),
      guest.request({ table: plain, index: 3 }, 0x1234, 1),
      guest.request(entry, plain, READ_ONLY),
      guest.request({ table: other, index: 4 }, 0x4321, 1),
    ];
    const list = crossing(2, 24);
    await reach(() => guest.store(list, ...requests.flat()));
    const result = await hypercall(Hypercall.mmuUpdate, list, requests.length, page(11), SELF);
    const looks = [page(11), page(8) + 24, page(9) + 32, page(7) + 24];
    return [result, ...(await reach(() => looks.map((address) => guest.load(address))))];
  },

  'tables are made of pages that are absent, and made plain again': async ({ guest, hypercall, reach }) => {
    const table = await reach(() => guest.mfnAt(page(10)));
    const upper = await reach(() => guest.mfnAt(page(11)));
    const target = await reach(() => guest.mfnAt(page(12)));
    await reach(() => {
      guest.store(page(10) + 8, [((target << 12) | READ_ONLY) >>> 0, 0]);
      guest.store(page(11), [((table << 12) | TABLE) >>> 0, 0]);
    });
    const results: unknown[] = [];
    for (const index of [10, 11]) {
      const [, , , entry] = await reach(() => guest.path(page(index)));
      await reach(() => guest.store(DATA, ...guest.request(entry, index === 10 ? table : upper, READ_ONLY)));
      results.push(await hypercall(Hypercall.mmuUpdate, DATA, 1, DONE, SELF));
    }
    const extended = async (command: number, first: number, second = 0) => {
      await reach(() => guest.store(DATA, command, first, second));
      results.push(await hypercall(Hypercall.mmuExtended, DATA, 1, DONE, SELF));
      results.push(guest.domain.paging.types.type.get(table), guest.domain.paging.types.type.get(upper));
    };
    await extended(1, upper);
    await extended(4, upper);
    await extended(16, target);
    await extended(17, target, table);
    return results;
  },

  'an update of a mapping with a list of processors to flush': async ({ guest, hypercall, reach }) => {
    const mfn = await reach(() => guest.mfnAt(page(9)));
    await reach(() => guest.store(page(13), 1));
    const result = await hypercall(Hypercall.updateVaMapping, page(7), mfn * PAGE_SIZE + PRESENT, page(13) + 2);
    return [result, await reach(() => guest.mfnAt(page(7)))];
  },

  'a GDT is made of a page that is absent': async ({ guest, hypercall, reach }) => {
    const mfn = await reach(() => guest.mfnAt(page(14)));
    const [, , , entry] = await reach(() => guest.path(page(14)));
    await reach(() => guest.store(DATA, ...guest.request(entry, mfn, READ_ONLY)));
    const first = await hypercall(Hypercall.mmuUpdate, DATA, 1, DONE, SELF);
    await reach(() => guest.store(page(3), mfn));
    return [first, await hypercall(2, page(3), 16), guest.domain.paging.types.type.get(mfn)];
  },

  'pages are given back and taken again': async ({ guest, hypercall, reach }) => {
    const pages = guest.domain.pages;
    const mfn = (0x1000 + pages - 5) as Mfn;
    await reach(() => {
      guest.store(page(3), page(5), 1, [0, 0], [SELF, 0]);
      guest.store(page(5), mfn);
    });
    const decreased = await hypercall(12, 1, page(3));
    await reach(() => guest.store(page(5), pages - 5));
    const populated = await hypercall(12, 6, page(3));
    return [decreased, populated, await reach(() => guest.load(page(5)))];
  },

  'an event channel is opened once': async ({ guest, hypercall, reach }) => {
    const structure = crossing(3, 4);
    await reach(() => guest.store(page(3) + PAGE_SIZE - 8, [SELF, SELF << 16], 0));
    const results = [await hypercall(32, 7, structure + 4), await hypercall(32, 6, page(6))];
    return [...results, await reach(() => guest.load(structure + 8)), await reach(() => guest.load(page(6) + 4))];
  },

  'a grant copies between pages that are absent': async ({ guest, hypercall, reach }) => {
    const source = await reach(() => guest.mfnAt(page(15)));
    const target = await reach(() => guest.mfnAt(page(16)));
    await reach(() => {
      guest.store(page(15), 77);
      guest.store(crossing(4, 16), source, [SELF, 0], target, [SELF, 0], [8, 0]);
    });
    const result = await hypercall(20, 5, crossing(4, 16), 1);
    return [result, ...(await reach(() => [crossing(4, 16) + 36, page(16)].map((address) => guest.load(address))))];
  },
};

/** All that the paging keeps of the domain. */
function counts({ guest }: Player): unknown {
  const { types } = guest.domain.paging;
  return save(types);
}

describe('a guest whose pages are absent', () => {
  test.each(Object.entries(SCENARIOS))('does not notice: %s', async (_name, scenario) => {
    const resident = residentPlayer();
    const expected = await scenario(resident);
    const paged = await pagedPlayer();
    expect(await scenario(paged)).toEqual(expected);
    expect(counts(paged)).toEqual(counts(resident));
    expect(paged.guest.domain.paging.recount()).toEqual([]);
    expect(paged.guest.domain.state).toEqual({ kind: 'running' });
    // Otherwise nothing was tested.
    expect(paged.evicted()).toBeGreaterThan(0);
  });
});
