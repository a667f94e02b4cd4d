import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { entryLow } from '../src/x86/page-table.ts';
import { LEVEL1, MmuWorld, PAGE_FLAGS, PRESENT_READ_ONLY, ROOT } from './inspect-mmu-world.ts';

const vcpu = fc.nat({ max: 1 });
const slot = fc.nat({ max: 2 });
const page = fc.nat({ max: 2 });

const step = fc.oneof(
  fc.record({ do: fc.constant('map' as const), vcpu, slot, page, writable: fc.boolean() }),
  fc.record({ do: fc.constant('clear' as const), vcpu, slot }),
  fc.record({ do: fc.constant('touch' as const), vcpu, slot }),
  fc.record({ do: fc.constant('flushPage' as const), vcpu, slot }),
  fc.record({ do: fc.constant('flush' as const), vcpu }),
  fc.record({ do: fc.constant('flushOther' as const), vcpu, slot, all: fc.boolean() }),
);

const addressOf = (index: number) => (index * 4096) as GuestVirtual;

test('a page is freed with a missing flush exactly when a TLB has a translation that the tables do not justify', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), page, (steps, freed) => {
      const world = new MmuWorld();
      world.roots[1] = ROOT;
      const { mmu } = world.operations;
      const entryOf = (index: number) => world.tables.get(LEVEL1)?.[index * 2] ?? 0;
      for (const action of steps) {
        switch (action.do) {
          case 'map': {
            const low = entryLow(0x200 + action.page, action.writable ? PAGE_FLAGS : PRESENT_READ_ONLY);
            mmu.setPteAt(action.vcpu, ROOT, addressOf(action.slot), LEVEL1, action.slot, low, 0);
            break;
          }
          case 'clear':
            mmu.pteClear(action.vcpu, ROOT, addressOf(action.slot), LEVEL1, action.slot);
            break;
          case 'touch': {
            const low = entryOf(action.slot);
            const cached = world.cached.some(
              (entry) => entry.vcpu === action.vcpu && entry.address === addressOf(action.slot),
            );
            if ((low & 1) !== 0 && !cached) {
              world.fill(action.vcpu, addressOf(action.slot), low >>> 12, (low & 2) !== 0);
            }
            break;
          }
          case 'flushPage':
            mmu.flushTlbSingle(action.vcpu, addressOf(action.slot));
            break;
          case 'flush':
            mmu.flushTlbUser(action.vcpu);
            break;
          case 'flushOther':
            mmu.flushTlbOthers(action.vcpu, 1 << (1 - action.vcpu), ROOT, addressOf(action.slot), action.all);
            break;
        }
      }
      const stale = world.cached.filter((entry) => {
        const low = entryOf(entry.address / 4096);
        const justified = (low & 1) !== 0 && low >>> 12 === entry.page && (!entry.writable || (low & 2) !== 0);
        return entry.page === 0x200 + freed && !justified;
      });
      world.checker.pageFreed(0, 0x200 + freed);
      const reported = world.violations.map(({ state }) => state as { cachedBy: number; address: number });
      expect(reported.map(({ cachedBy, address }) => `${cachedBy}:${address}`).sort()).toEqual(
        stale.map((entry) => `${entry.vcpu}:${entry.address}`).sort(),
      );
    }),
    { numRuns: 2000 },
  );
});
