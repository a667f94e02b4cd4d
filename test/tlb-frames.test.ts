import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import { type TablePath, Tlb } from '../src/cpu/tlb.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { GuestVirtual, HostAddress } from '../src/x86/brand.ts';

/** Few, so that pages and frames often meet in an entry or in a chain. */
const ENTRIES = 8;
const PAGES = 24;
const FRAMES = 20;
/** The host has no frame at address 0. */
const FIRST_FRAME = 0x1000;

const page = fc.nat({ max: PAGES - 1 });
const frame = fc.nat({ max: FRAMES - 1 }).map((number) => (FIRST_FRAME + number * 0x1000) as HostAddress);
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('fill' as const), page, frame, writable: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('invalidate' as const), frame, writableOnly: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'flush' as const }) },
);

/** Nothing here depends on tables. */
const NO_PATH: TablePath = {
  tables: new Int32Array(3),
  entryLow: 0,
  entryHigh: 0,
  lastGeneration: 0,
  upperGenerations: 0,
};

/** What a TLB must hold: by entry. */
type Model = Map<number, { page: number; frame: HostAddress; writable: boolean }>;

test('a frame loses all its translations and no other does, whatever was cached and flushed before', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const tlb = new Tlb(new HostMemory(1 << 20), ENTRIES);
      const model: Model = new Map();
      for (const step of steps) {
        if (step.kind === 'fill') {
          tlb.fill(step.page << 12, 0, step.frame, step.writable, false, NO_PATH, 0);
          model.set(step.page % ENTRIES, step);
        } else if (step.kind === 'flush') {
          tlb.flush();
          model.clear();
        } else {
          tlb.invalidateFrame(step.frame, step.writableOnly);
          for (const [entry, held] of [...model]) {
            if (held.frame !== step.frame) continue;
            if (step.writableOnly) model.set(entry, { ...held, writable: false });
            else model.delete(entry);
          }
        }
        expectEqual(tlb, model);
      }
    }),
  );
});

function expectEqual(tlb: Tlb, model: Model): void {
  const entries = [...model.values()];
  for (let number = 0; number < PAGES; number++) {
    const held = entries.find((entry) => entry.page === number);
    expect(tlb.find(number << 12, 0, Access.read)).toBe(held?.frame ?? -1);
    expect(tlb.find(number << 12, 0, Access.write)).toBe(held?.writable ? held.frame : -1);
  }
  for (let number = 0; number < FRAMES; number++) {
    const frame = (FIRST_FRAME + number * 0x1000) as HostAddress;
    const visited: [GuestVirtual, boolean][] = [];
    tlb.visitFrame(frame, (address, writable) => visited.push([address, writable]));
    const expected = entries.filter((entry) => entry.frame === frame);
    expect(visited.sort()).toEqual(
      expected.map(({ page, writable }): [number, boolean] => [page << 12, writable]).sort(),
    );
  }
}
