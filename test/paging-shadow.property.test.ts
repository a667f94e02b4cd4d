import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import type { Processor } from '../src/cpu/processor.ts';
import type { ShadowedFormat } from '../src/paging/shadow/shadow-page.ts';
import { type GuestVirtual, highWord, lowWord } from '../src/x86/brand.ts';
import { tableIndex } from '../src/x86/page-table.ts';
import { Cr0, PTE_NO_EXECUTE_HIGH, Pte } from '../src/x86/registers.ts';
import { PAGES, ROOTS, ShadowWorld, TABLES } from './shadow-world.ts';

const RUNS = 120;
/** Entries of each table that are in use. */
const ENTRIES = 2;
const ACCESSES = [Access.read, Access.write, Access.fetch] as const;
/** Fewer shadow pages than the tables have roles, and enough. */
const CAPACITIES = [6, 32];

/** What an entry leads to: mostly what stands below the table; but all pages can be tables of all levels, or data. */
type Target = { readonly below: number } | { readonly page: number };

type Step =
  | {
      readonly kind: 'store';
      readonly processor: number;
      readonly table: number;
      readonly stores: readonly { readonly index: number; readonly target: Target; readonly present: boolean }[];
      readonly flags: number;
      readonly noExecute: boolean;
    }
  | {
      readonly kind: 'storeUpperHalf';
      readonly processor: number;
      readonly table: number;
      readonly index: number;
      readonly noExecute: boolean;
    }
  | {
      readonly kind: 'access';
      readonly processor: number;
      readonly address: GuestVirtual;
      readonly access: Access;
      readonly user: boolean;
    }
  | { readonly kind: 'flushPage'; readonly processor: number; readonly address: GuestVirtual }
  | { readonly kind: 'flush'; readonly processor: number }
  | { readonly kind: 'switchRoot'; readonly processor: number; readonly root: number }
  | { readonly kind: 'switchWriteProtection'; readonly processor: number }
  | { readonly kind: 'announce' | 'retract'; readonly page: number }
  | {
      readonly kind: 'clone';
      readonly processor: number;
      readonly address: GuestVirtual;
      readonly access: Access;
    }
  | { readonly kind: 'reclaim' | 'dropAll' | 'check' };

/** Once in so many times. */
function rarely(times: number): fc.Arbitrary<boolean> {
  return fc.nat(times - 1).map((number) => number === 0);
}

function stepsOf(addresses: readonly GuestVirtual[]): fc.Arbitrary<Step> {
  const processor = fc.nat(1);
  const address = fc.constantFrom(...addresses);
  const all = Pte.present | Pte.writable | Pte.user;
  const target = fc.oneof(
    { weight: 6, arbitrary: fc.record({ below: fc.nat(1) }) },
    { weight: 1, arbitrary: fc.record({ page: fc.nat(PAGES - 1) }) },
  );
  const flag = fc.constantFrom(Pte.writable, Pte.user, Pte.accessed, Pte.dirty, Pte.global, Pte.large);
  const flags = fc.oneof(
    fc.constantFrom<number>(all, all, all | Pte.accessed | Pte.dirty, Pte.present | Pte.user),
    fc.array(flag).map((chosen) => chosen.reduce<number>((sum, bit) => sum | bit, Pte.present)),
  );
  return fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constant('store' as const),
        processor,
        table: fc.nat(TABLES - 1),
        stores: fc.array(
          fc.record({ index: fc.nat(ENTRIES - 1), target, present: rarely(6).map((absent) => !absent) }),
          { minLength: 1, maxLength: 4 },
        ),
        flags,
        noExecute: rarely(6),
      }),
    },
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constant('access' as const),
        processor,
        address,
        access: fc.constantFrom(...ACCESSES),
        user: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('flushPage' as const), processor, address }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('flush' as const), processor }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('clone' as const),
        processor,
        address,
        access: fc.constantFrom(...ACCESSES),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('switchRoot' as const), processor, root: fc.nat(ROOTS - 1) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('switchWriteProtection' as const), processor }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constantFrom('reclaim' as const, 'dropAll' as const) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('announce' as const, 'announce' as const, 'retract' as const),
        page: fc.nat(TABLES - 1),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('check' as const) }) },
  );
}

/**
 * Somebody uses an address, then an entry on the way changes, as it stands or in its upper half alone, and the address
 * is flushed by itself. Stores to the entry beside it may have brought the table out of step before.
 */
function changeAndFlush({ geometry }: ShadowWorld, addresses: readonly GuestVirtual[]): fc.Arbitrary<Step[]> {
  const { levels } = geometry;
  return fc
    .record({
      processor: fc.nat(1),
      address: fc.constantFrom(...addresses),
      level: fc.integer({ min: 1, max: levels - 1 }),
      isOutOfStep: fc.boolean(),
      isUpperHalf: fc.boolean(),
      noExecute: fc.boolean(),
      below: fc.nat(1),
      present: fc.boolean(),
    })
    .map(({ processor, address, level, isOutOfStep, isUpperHalf, noExecute, below, present }): Step[] => {
      const index = tableIndex(geometry, level, lowWord(address), highWord(address));
      const table = (levels - level) * 2 + tableIndex(geometry, level + 1, lowWord(address), highWord(address));
      const flags = Pte.present | Pte.writable | Pte.user;
      const beside = { index: 1 - index, target: { below: 1 - index }, present: true };
      const store = { kind: 'store' as const, processor, table, flags, noExecute: false };
      return [
        { kind: 'access', processor, address, access: Access.write, user: false },
        ...(isOutOfStep ? [{ ...store, stores: [beside, beside, beside] }] : []),
        isUpperHalf
          ? { kind: 'storeUpperHalf', processor, table, index, noExecute }
          : { ...store, stores: [{ index, target: { below }, present }], noExecute },
        { kind: 'flushPage', processor, address },
      ];
    });
}

/** Addresses that the entries in use translate. */
function addressesOf({ geometry }: ShadowWorld): GuestVirtual[] {
  const shifts = geometry.shift.slice(1);
  return shifts.reduce<number[]>(
    (sums, shift) => Array.from({ length: ENTRIES }, (_, index) => sums.map((sum) => sum + index * 2 ** shift)).flat(),
    [0],
  ) as GuestVirtual[];
}

async function perform(world: ShadowWorld, step: Step): Promise<void> {
  const processor = world.processors['processor' in step ? step.processor : 0] as Processor;
  switch (step.kind) {
    case 'store':
      return storeEntries(world, processor, step);
    case 'storeUpperHalf':
      await storeUpperHalf(world, processor, step.table, step.index, step.noExecute);
      return tell(world, step.table, step.index);
    case 'access':
      await world.access(processor, step.address, step.access, step.user);
      return;
    case 'flushPage':
      return flushPage(world, step.processor, step.address);
    case 'flush':
      return processor.flushTlb();
    case 'switchRoot':
      return world.switchRoot(step.processor, step.root);
    case 'switchWriteProtection':
      processor.cr0 ^= Cr0.writeProtect;
      return processor.flushTlb();
    case 'announce':
      world.announced.add(step.page);
      return world.paging.shadow.announce(step.page);
    case 'retract':
      world.announced.delete(step.page);
      return world.paging.shadow.retract(step.page);
    case 'reclaim':
      return world.reclaim();
    case 'clone':
      return world.clone(() => void processor.memory.translate(step.address, step.access, false));
    case 'dropAll':
      return world.paging.shadow.dropAll();
    case 'check':
      return check(world);
  }
}

async function storeEntries(
  world: ShadowWorld,
  processor: Processor,
  { table, stores, flags, noExecute }: Step & { kind: 'store' },
): Promise<void> {
  const { entryBytes } = world.geometry;
  for (const { index, target, present } of stores) {
    const page = 'page' in target ? target.page : world.below(table) + target.below;
    const low = present ? (page << 12) | (hasRights(world, table) ? flags : Pte.present) : 0;
    const offset = world.topOffset(table) + index * entryBytes;
    await world.store(processor, table, offset, low);
    await storeUpperHalf(world, processor, table, index, noExecute);
    tell(world, table, index);
  }
}

/** The low half, and with it the accessed and dirty bits, stays as it is. */
async function storeUpperHalf(
  world: ShadowWorld,
  processor: Processor,
  table: number,
  index: number,
  noExecute: boolean,
): Promise<void> {
  const { entryBytes } = world.geometry;
  if (entryBytes !== 8) return;
  const offset = world.topOffset(table) + index * entryBytes + 4;
  await world.store(processor, table, offset, noExecute && hasRights(world, table) ? PTE_NO_EXECUTE_HIGH : 0);
}

/** Of entries of tables that are announced the shadows know no more than this. */
function tell(world: ShadowWorld, table: number, index: number): void {
  const { entryBytes } = world.geometry;
  if (!world.announced.has(table)) return;
  world.paging.shadow.told(table, world.topOffset(table) + index * entryBytes, entryBytes);
}

/** The four entries at the top of PAE have none, and those bits are reserved there. */
function hasRights({ format }: ShadowWorld, table: number): boolean {
  return format !== 'pae' || table >= ROOTS;
}

/** What one access may do, as a shadow has it, is no more than both tables together permit. */
function requireJustified(
  world: ShadowWorld,
  index: number,
  address: GuestVirtual,
  access: Access,
  user: boolean,
  where: string,
): void {
  const root = world.roots[index] as number;
  const shadowed = world.shadowed(world.processors[index] as Processor, root, address, access, user);
  if (!shadowed) return;
  const permitted = world.compose(root, address, access, user, true);
  const { frame, executable } = shadowed;
  expect(permitted, where).toMatchObject({ frame, executable, isMarked: true });
  if (shadowed.writable || access === Access.write) expect(permitted?.writable, where).toBe(true);
}

/** The one address is in step from then on, whatever became of the others. */
async function flushPage(world: ShadowWorld, index: number, address: GuestVirtual): Promise<void> {
  for (let number = 0; number < PAGES; number++) await world.present(number, true);
  world.processors[index]?.invalidatePage(address);
  for (const access of ACCESSES) {
    for (const user of [false, true])
      requireJustified(world, index, address, access, user, 'after a flush of the page');
  }
}

/** After a flush, shadows permit nothing that both tables together do not; and processors reach all that these permit. */
async function check(world: ShadowWorld): Promise<void> {
  await world.requireKept();
  for (let number = 0; number < PAGES; number++) await world.present(number, true);
  expect(world.paging.shadow.recount()).toEqual([]);
  world.requireWatched();
  for (const processor of world.processors) processor.flushTlb();
  for (const [index, processor] of world.processors.entries()) {
    const root = world.roots[index] as number;
    const writeProtect = (processor.cr0 & Cr0.writeProtect) !== 0;
    for (const address of addressesOf(world)) {
      for (const access of ACCESSES) {
        for (const user of [false, true]) {
          const where = `0x${address.toString(16)}, access ${access}, user ${user}, CR0.WP ${writeProtect}`;
          requireJustified(world, index, address, access, user, where);
          const wanted = world.compose(root, address, access, user, writeProtect)?.frame ?? -1;
          expect(await world.access(processor, address, access, user), where).toBe(wanted);
        }
      }
    }
  }
}

describe('shadow paging permits what the tables of guest and host permit together', () => {
  it.each<ShadowedFormat>(['four-level', 'pae', 'two-level'])(
    'after any sequence of stores to %s tables, accesses, flushes, reclaim and clones',
    async (format) => {
      const before = ShadowWorld.available;
      const first = await ShadowWorld.create(format, 32);
      const addresses = addressesOf(first);
      const steps = fc.oneof(
        { weight: 8, arbitrary: stepsOf(addresses).map((step) => [step]) },
        { weight: 1, arbitrary: changeAndFlush(first, addresses) },
      );
      await first.end();
      const sums = { unsyncs: 0, syncs: 0, floods: 0, storesSeen: 0, faultsPassedOn: 0 };
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...CAPACITIES),
          fc.constantFrom('shadows' as const, 'memory' as const),
          fc.array(steps, { minLength: 10, maxLength: 80, size: 'max' }),
          async (capacity, endsFirst, sequence) => {
            const world = await ShadowWorld.create(format, capacity);
            try {
              for (const step of sequence.flat()) {
                await perform(world, step);
                world.requireJustifiedTranslations(addressesOf(world));
              }
              await check(world);
              const statistics = world.paging.shadow.statistics();
              expect(statistics.pages).toBeLessThanOrEqual(capacity);
              for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += statistics[name];
            } finally {
              await world.end(endsFirst);
            }
          },
        ),
        { numRuns: RUNS },
      );
      expect(ShadowWorld.available).toBe(before);
      // All of it happened.
      expect(Math.min(...Object.values(sums))).toBeGreaterThan(0);
    },
  );
});
