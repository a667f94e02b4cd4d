import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FrameWatcher } from '../src/cpu/frame-watchers.ts';
import { PAE_TOPS } from '../src/cpu/walk.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { LiveTables } from '../src/paging/live-tables.ts';
import { type Frame, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { TABLE_GEOMETRY } from '../src/x86/page-table.ts';
import { Pte } from '../src/x86/registers.ts';

type Format = keyof typeof TABLE_GEOMETRY;

const RUNS = 80;
const FRAMES = 32;
const PAGES = 10;
const PROCESSORS = 2;
/** Pages that processors take for roots, and entries that are in use; entry 0 of a root is the kernel's. */
const ROOTS = 3;
const ENTRIES = 3;
/** Of the small tables that fit into a page, which PAE's highest can be; no entry behind the last one's is in use. */
const SLOTS = 2;
const ENTRIES_SEEN = 8;

type Step =
  | { readonly kind: 'load'; readonly processor: number; readonly page: number; readonly slot: number }
  | {
      readonly kind: 'store';
      readonly processor: number;
      readonly page: number;
      readonly slot: number;
      readonly index: number;
      readonly target: number;
      readonly flags: number;
    }
  | { readonly kind: 'move'; readonly page: number };

const number = (limit: number) => fc.integer({ min: 0, max: limit - 1 });
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('load'),
      processor: number(PROCESSORS),
      page: number(ROOTS),
      slot: number(SLOTS),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('store'),
      processor: number(PROCESSORS),
      page: number(PAGES),
      slot: number(SLOTS),
      index: number(ENTRIES),
      target: number(PAGES),
      flags: fc.constantFrom(Pte.present, Pte.present | Pte.accessed, 0, Pte.present | Pte.large),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('move'), page: number(PAGES) }) },
);

interface Root {
  readonly page: number;
  readonly slot: number;
}

/** Pages of a guest with tables in one format, and which of them its roots lead to, worked out anew each time. */
class World {
  readonly tables: LiveTables;
  readonly #format: Format;
  readonly #pool: FramePool;
  readonly #space: MachineSpace;
  readonly #watchers = new Map<Frame, { readonly watcher: FrameWatcher; readonly page: number }[]>();
  readonly #roots = new Map<string, Root>();
  readonly #loaded: (Root | undefined)[] = [];
  #running = 0;

  constructor(format: Format) {
    this.#format = format;
    this.#pool = new FramePool(new HostMemory((FRAMES + 1) * PAGE_SIZE), FRAMES);
    this.#space = new MachineSpace(this.#pool, PAGES);
    for (let page = 0; page < PAGES; page++) this.#space.attach(page as Mfn, this.#pool.allocate());
    this.tables = new LiveTables({
      space: this.#space,
      frames: {
        watch: (frame, watcher, page) => {
          this.#watchers.set(frame, [...(this.#watchers.get(frame) ?? []), { watcher, page }]);
        },
        unwatch: (frame, watcher, page) => {
          const left = this.#watchers.get(frame)?.filter((one) => one.watcher !== watcher || one.page !== page) ?? [];
          this.#watchers.set(frame, left);
        },
        invalidateFrame: () => {},
        invalidateWritable: () => {},
        frameWritten: () => {},
      },
      running: () => ({ walker: this.#running, low: 0, high: 0 }),
      onWritten: () => {},
      onLoaded: () => {},
      onDoubt: () => {},
    });
  }

  get #geometry() {
    return TABLE_GEOMETRY[this.#format];
  }

  #slotOf(slot: number): number {
    return this.#format === 'pae' ? slot : 0;
  }

  #address(page: number, slot: number, index: number): number {
    const { entryBytes, levels } = this.#geometry;
    const tableBytes = (this.#geometry.entries as readonly number[])[levels]! * entryBytes; // a root has a level
    const offset = this.#slotOf(slot) * tableBytes + index * entryBytes;
    return this.#pool.addressOf(this.#space.frames[page] as Frame) + offset;
  }

  #entry(page: number, slot: number, index: number): number {
    return this.#pool.memory.view.getUint32(this.#address(page, slot, index), true);
  }

  take(step: Step): void {
    switch (step.kind) {
      case 'load':
        this.#load(step.processor, { page: step.page, slot: this.#slotOf(step.slot) });
        break;
      case 'store':
        this.#store(step);
        break;
      case 'move':
        this.#move(step.page);
        break;
    }
  }

  #load(processor: number, root: Root): void {
    this.#running = processor;
    this.#loaded[processor] = root;
    this.#roots.set(`${root.page} ${root.slot}`, root);
    this.tables.load(processor, this.#format, this.#format === 'pae' ? root.page * PAE_TOPS + root.slot : root.page);
  }

  /** As a processor does: it asks whether the page is observed, stores, and who watches the frame is told. */
  #store({ processor, page, slot, index, target, flags }: Extract<Step, { kind: 'store' }>): void {
    this.#running = processor;
    this.tables.has(page);
    const address = this.#address(page, slot, index);
    this.#pool.memory.view.setUint32(address, (target * PAGE_SIZE) | flags, true);
    const offset = address % PAGE_SIZE;
    const frame = this.#space.frames[page] as Frame;
    for (const { watcher, page: named } of this.#watchers.get(frame) ?? []) {
      watcher.written(named, offset, this.#geometry.entryBytes);
    }
    this.#doubt(page, offset);
  }

  /** A root that nobody uses, and that is stored to, must have the kernel's entry as the one in use has it. */
  #doubt(page: number, offset: number): void {
    const current = this.#loaded[this.#running];
    const kernelOf = (root: Root) => this.#entry(root.page, root.slot, 0) & ~Pte.accessed;
    const bytes = this.#format === 'pae' ? 32 : PAGE_SIZE;
    for (const [key, root] of this.#roots) {
      const isUsed = this.#loaded.some((loaded) => loaded?.page === root.page && loaded.slot === root.slot);
      const isHit = root.page === page && Math.floor(offset / bytes) === root.slot;
      if (isHit && !isUsed && current && kernelOf(root) !== kernelOf(current)) this.#roots.delete(key);
    }
  }

  /** The host gives a page another frame; walks find it there, and stores to the old one are somebody else's. */
  #move(page: number): void {
    const old = this.#space.frames[page] as Frame;
    const frame = this.#pool.allocate();
    const { u8 } = this.#pool.memory;
    u8.copyWithin(this.#pool.addressOf(frame), this.#pool.addressOf(old), this.#pool.addressOf(old) + PAGE_SIZE);
    this.#space.frames[page] = frame;
    this.#pool.release(old);
  }

  get found(): readonly number[] {
    return Array.from({ length: PAGES }, (_none, page) => page).filter((page) => this.tables.has(page));
  }

  get expected(): readonly number[] {
    const { levels } = this.#geometry;
    const live = new Set<number>();
    const visit = (page: number, slot: number, level: number): void => {
      live.add(page);
      const isTopOfPae = this.#format === 'pae' && level === levels;
      for (let index = 0; level > 1 && index < (isTopOfPae ? ENTRIES : ENTRIES_SEEN); index++) {
        const entry = this.#below(page, slot, level, index);
        const isTable = (entry & Pte.present) !== 0 && (isTopOfPae || (entry & Pte.large) === 0);
        if (isTable) visit(entry >>> 12, 0, level - 1);
      }
    };
    for (const { page, slot } of this.#roots.values()) visit(page, slot, levels);
    return [...live].sort((a, b) => a - b);
  }

  #below(page: number, slot: number, level: number, index: number): number {
    if (level === this.#geometry.levels) return this.#entry(page, slot, index);
    const frame = this.#space.frames[page] as Frame;
    return this.#pool.memory.view.getUint32(this.#pool.addressOf(frame) + index * this.#geometry.entryBytes, true);
  }
}

describe.each(['two-level', 'pae', 'four-level'] as const)('live tables of %s', (format) => {
  it('are those that roots lead to, after any stores, changes of roots and moves of pages', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 160, size: 'max' }), (taken) => {
        const world = new World(format);
        for (const step of taken) {
          world.take(step);
          expect(world.found).toEqual(world.expected);
        }
      }),
      { numRuns: RUNS },
    );
  });
});
