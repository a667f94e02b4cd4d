import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GrantUse } from '../src/devices/xen/frontend.ts';
import { type GrantedPages, GrantTable } from '../src/interfaces/xen/grant-table.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { TestMachine } from './xen-events-machine.ts';

const DOMAIN = 4;
const SELF = 0x7ff0;
const READING = 8;
const WRITING = 16;

let machine: TestMachine;
let table: GrantTable;
let readOnlyPages: Set<number>;
let holds: Map<string, number>;

beforeEach(() => {
  machine = new TestMachine();
  readOnlyPages = new Set();
  holds = new Map();
  const count = (mfn: Mfn, write: boolean, by: number) => {
    const key = `${mfn} ${write}`;
    holds.set(key, (holds.get(key) ?? 0) + by);
    if (holds.get(key) === 0) holds.delete(key);
  };
  const pages: GrantedPages = {
    hold: (mfn, write) => {
      if (write && readOnlyPages.has(mfn)) return false;
      count(mfn, write, 1);
      return true;
    },
    release: (mfn, write) => count(mfn, write, -1),
  };
  table = new GrantTable(DOMAIN, machine.shared, pages, (index) => (index < 3 ? machine.page() : (-1 as Mfn)), 4);
});

/** What the host stores to a page that may hold a table or code, somebody must be shown. */
afterEach(() => expect(machine.untold()).toEqual([]));

function grant(reference: number, mfn: number, flags = 1, domain = 0): void {
  const frame = table.frames[Math.floor(reference / 512)]!;
  machine.setU16(frame, (reference % 512) * 8, flags);
  machine.setU16(frame, (reference % 512) * 8 + 2, domain);
  machine.setU32(frame, (reference % 512) * 8 + 4, mfn);
}
const flagsOf = (reference: number) => machine.u16(table.frames[Math.floor(reference / 512)]!, (reference % 512) * 8);
const begun = (reference: number, write: boolean) => {
  const use = table.begin(reference, write);
  if (typeof use === 'number') throw new Error(`status ${use}`);
  return use;
};

describe('grant_table_op', () => {
  it('knows version 1 only', () => {
    expect(table.setVersion(1)).toBe(0);
    expect(table.setVersion(2)).toBe(-38);
    expect(table.setVersion(3)).toBe(-22);
    expect(table.getVersion(SELF)).toEqual({ status: 0, version: 1 });
  });

  it('grows the table up to its limit', () => {
    expect(table.querySize(SELF)).toEqual({ status: 0, frames: 1, maximumFrames: 4 });
    const two = table.setupTable(SELF, 2);
    expect(two.frames).toEqual(table.frames);
    expect(two.frames.length).toBe(2);
    expect(table.setupTable(DOMAIN, 1).frames).toEqual([two.frames[0]]);
    expect(table.setupTable(SELF, 5).status).toBe(-1);
    expect(table.setupTable(SELF, 0xffff_ffff).status).toBe(-1);
    expect(table.querySize(SELF).frames).toBe(2);
  });

  it('reports that the host has no more frames', () => {
    expect(table.setupTable(SELF, 4)).toEqual({ status: -1, frames: [] });
    expect(table.setupTable(SELF, 3).frames.length).toBe(3);
  });

  it('keeps other domains out', () => {
    expect(table.querySize(0).status).toBe(-8);
    expect(table.querySize(9).status).toBe(-2);
    expect(table.setupTable(9, 1)).toEqual({ status: -2, frames: [] });
    expect(table.getVersion(9).status).toBe(-2);
  });

  it('maps nothing into a guest', () => {
    expect(table.mapGrantReference(9, 0)).toBe(-2);
    expect(table.mapGrantReference(0, 0)).toBe(-2);
    expect(table.mapGrantReference(SELF, 512)).toBe(-3);
    expect(table.mapGrantReference(SELF, 8)).toBe(-1);
    expect(table.unmapGrantReference(0)).toBe(-4);
  });

  it('copies within the domain, by number and by reference', () => {
    const from = machine.page();
    const to = machine.page();
    machine.setBytes(from, 4090, new Uint8Array([1, 2, 3, 4, 5, 6]));
    grant(9, to, 1, SELF);
    const source = { domain: SELF, offset: 4090, isReference: false, reference: from };
    expect(table.copy(source, { domain: DOMAIN, offset: 10, isReference: true, reference: 9 }, 6)).toBe(0);
    expect(machine.bytes(to, 10, 6)).toEqual(new Uint8Array([1, 2, 3, 4, 5, 6]));
    expect(flagsOf(9)).toBe(1);
    expect(holds.size).toBe(0);
  });

  it('refuses copies that leave a page, a domain or a right behind', () => {
    const page = machine.page();
    const own = { domain: SELF, offset: 0, isReference: false, reference: page };
    readOnlyPages.add(page);
    expect(table.copy({ ...own, offset: 4095 }, own, 2)).toBe(-10);
    expect(table.copy(own, { ...own, offset: 65535 }, 1)).toBe(-10);
    expect(table.copy({ ...own, domain: 0 }, own, 1)).toBe(-8);
    expect(table.copy({ ...own, isReference: true, domain: 0 }, own, 1)).toBe(-2);
    expect(table.copy({ ...own, reference: 0xffff_ffff }, own, 1)).toBe(-9);
    expect(table.copy(own, own, 1)).toBe(-9);
    expect(holds.size).toBe(0);
  });
});

describe('a back end', () => {
  it('marks the entry while it uses the page', () => {
    const page = machine.page();
    grant(8, page);
    const use = begun(8, true);
    expect(use).toEqual({ reference: 8, mfn: page, write: true });
    expect(flagsOf(8)).toBe(1 | READING | WRITING);
    const second = begun(8, false);
    table.end(use);
    expect(flagsOf(8)).toBe(1 | READING);
    table.end(second);
    expect(flagsOf(8)).toBe(1);
    expect(holds.size).toBe(0);
    expect(table.active.size).toBe(0);
  });

  it('finds the rings that the builder granted', () => {
    const page = machine.page();
    table.prefill(1, page);
    expect(begun(1, true).mfn).toBe(page);
  });

  it('may only read what was granted for reading', () => {
    grant(8, machine.page(), 1 | 4);
    expect(table.begin(8, true)).toBe(-1);
    expect(flagsOf(8)).toBe(5);
    expect(begun(8, false).write).toBe(false);
  });

  it.each([
    ['a reference beyond the table', 512, 1, 0, -3],
    ['a huge reference', 0xffff_ffff, 1, 0, -3],
    ['an invalid entry', 8, 0, 0, -1],
    ['a transfer', 8, 2, 0, -1],
    ['a grant to another domain', 8, 1, 3, -1],
  ])('does not get %s', (_name, reference, flags, domain, status) => {
    grant(8, machine.page(), flags, domain);
    expect(table.begin(reference, false)).toBe(status);
    expect(flagsOf(8)).toBe(flags);
  });

  it('does not get a frame that is not there or that cannot be written', () => {
    grant(8, 0xffff_ffff);
    expect(table.begin(8, false)).toBe(-9);
    const page = machine.page();
    readOnlyPages.add(page);
    grant(8, page);
    expect(table.begin(8, true)).toBe(-9);
    expect(flagsOf(8)).toBe(1);
    expect(begun(8, false).mfn).toBe(page);
  });

  it('keeps the page of the first access when the guest rewrites the entry', () => {
    const page = machine.page();
    const other = machine.page();
    grant(8, page);
    const use = begun(8, true);
    grant(8, other);
    expect(begun(8, true).mfn).toBe(page);
    grant(8, other, 0, 9);
    table.end(use);
    expect(holds.get(`${page} true`)).toBe(1);
  });

  it('ends an access once', () => {
    const page = machine.page();
    grant(8, page);
    const use = begun(8, true);
    table.end(use);
    table.end(use);
    table.end({ reference: 4000, mfn: page, write: false });
    expect(holds.size).toBe(0);
  });
});

it('bits in the entry always say who uses it', () => {
  const step = fc.record({
    reference: fc.integer({ min: 8, max: 10 }),
    write: fc.boolean(),
    end: fc.boolean(),
    which: fc.nat(20),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const pages = [machine.page(), machine.page(), machine.page()];
      pages.forEach((page, index) => {
        grant(8 + index, page);
      });
      const uses: GrantUse[] = [];
      for (const { reference, write, end, which } of steps) {
        if (end && uses.length > 0) table.end(uses.splice(which % uses.length, 1)[0]!);
        else uses.push(begun(reference, write));
        for (const entry of [8, 9, 10]) {
          const own = uses.filter((use) => use.reference === entry);
          const bits = (own.length > 0 ? READING : 0) | (own.some((use) => use.write) ? WRITING : 0);
          expect(flagsOf(entry)).toBe(1 | bits);
        }
      }
      for (const use of uses) table.end(use);
      expect(holds.size).toBe(0);
    }),
    { numRuns: 30 },
  );
});
