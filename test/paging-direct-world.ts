import { save } from '../src/archive/writer.ts';
import type { FrameInvalidator } from '../src/cpu/translation.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { DirectPaging } from '../src/paging/direct/direct-paging.ts';
import { PagingError } from '../src/paging/direct/errors.ts';
import { FrameOwner } from '../src/paging/direct/frame-types.ts';
import type { DirectFormat } from '../src/paging/direct/table-rules.ts';
import type { Frame, GuestVirtual, Mfn } from '../src/x86/brand.ts';

export const LIMIT = 0x140;
export const DOMAIN_FRAMES = 24;
export const PROCESSORS = 2;

export const P = 0x1;
export const RW = 0x2;
export const US = 0x4;
export const A = 0x20;
export const D = 0x40;
export const PSE = 0x80;
export const G = 0x100;
/** Flags of a table entry and of a page as Linux writes them. */
export const TABLE = P | RW | US | A | D;
export const PAGE = P | RW | A;
export const READ_ONLY = P | A;

/** A note for each thing the invalidator is told. */
export class RecordingInvalidator implements FrameInvalidator {
  readonly calls: string[] = [];
  invalidateFrame(frame: Frame): void {
    this.calls.push(`frame ${frame}`);
  }
  invalidateWritable(frame: Frame): void {
    this.calls.push(`writable ${frame}`);
  }
  frameWritten(frame: Frame, offset: number, length: number): void {
    this.calls.push(`written ${frame} ${offset} ${length}`);
  }
}

/**
 * A domain of a few frames whose numbers are permuted twice: machine frame numbers are neither frames of the pool nor
 * in the order of the pages.
 */
export class World {
  readonly paging: DirectPaging;
  readonly space: MachineSpace;
  readonly pool: FramePool;
  readonly invalidator = new RecordingInvalidator();
  /** Numbers of the domain's frames. */
  readonly own: Mfn[] = [];
  readonly shared = 0x120 as Mfn;
  readonly unowned = 0x122 as Mfn;

  constructor(workPerCall = 1_000_000, format: DirectFormat = 'four-level') {
    const memory = new HostMemory(2 << 20);
    this.pool = new FramePool(memory, 80);
    const scrambled = Array.from({ length: 64 }, () => this.pool.allocate());
    this.space = new MachineSpace(this.pool, LIMIT + 1);
    this.paging = new DirectPaging({
      space: this.space,
      invalidator: this.invalidator,
      virtualProcessors: PROCESSORS,
      limit: LIMIT as Mfn,
      format,
      workPerCall,
    });
    for (let i = 0; i < DOMAIN_FRAMES; i++) {
      const mfn = (0x40 + ((i * 11) % 64) * 3) as Mfn;
      this.own.push(mfn);
      this.paging.addFrame(mfn, scrambled[(i * 37 + 5) % 64]!, FrameOwner.domain);
    }
    this.paging.machineToPhysical.create();
    const taken = new Set(this.own.map((mfn) => this.space.frameOf(mfn)));
    const free = scrambled.filter((frame) => !taken.has(frame));
    this.paging.addFrame(this.shared, free[0]!, FrameOwner.shared);
    for (const frame of free.slice(1)) this.pool.release(frame);
  }

  page(index: number): Mfn {
    return this.own[index]!;
  }

  #word(mfn: Mfn, index: number): number {
    return (this.space.addressOf(mfn) >>> 2) + index * 2;
  }

  /** Writes an entry without anybody's leave, as a domain builder does before there are tables. */
  poke(mfn: Mfn, index: number, low: number, high = 0): void {
    this.pool.memory.u32[this.#word(mfn, index)] = low;
    this.pool.memory.u32[this.#word(mfn, index) + 1] = high;
  }

  low(mfn: Mfn, index: number): number {
    return this.pool.memory.u32[this.#word(mfn, index)]!;
  }

  high(mfn: Mfn, index: number): number {
    return this.pool.memory.u32[this.#word(mfn, index) + 1]!;
  }

  /** mmu_update of one entry. */
  update(table: Mfn, index: number, low: number, high = 0, command = 0): number {
    return this.paging.mmuUpdate((table * 4096 + index * 8 + command) >>> 0, 0, low, high);
  }

  /** Repeats a preempted call to its end. */
  run(call: () => number, each: () => void = () => {}): number {
    for (let turn = 0; turn < 100_000; turn++) {
      const result = call();
      if (result !== PagingError.preempted) return result;
      each();
    }
    throw new Error('a preempted call does not come to an end');
  }

  /** Everything that a refused call must leave as it is. */
  snapshot(): string {
    this.paging.finish();
    const { types } = this.paging;
    const roots = [0, 1].map((processor) => [this.paging.root(processor), this.paging.userRoot(processor)]);
    const contents = this.own.map((mfn) => Array.from({ length: 512 }, (_, i) => this.low(mfn, i)).join());
    return JSON.stringify([save(types), roots, contents]);
  }
}

export function entry(mfn: number, flags: number): number {
  return ((mfn << 12) | flags) >>> 0;
}

/** The address that a path of table indexes translates. */
export function addressOf(level4: number, level3: number, level2: number, level1: number): GuestVirtual {
  const low = level3 * 2 ** 30 + level2 * 2 ** 21 + level1 * 2 ** 12;
  return ((level4 >= 256 ? level4 - 512 : level4) * 2 ** 39 + low) as GuestVirtual;
}

/** The same of the three levels of PAE. */
export function paeAddressOf(level3: number, level2: number, level1: number): GuestVirtual {
  return ((level3 & 3) * 2 ** 30 + level2 * 2 ** 21 + level1 * 2 ** 12) as GuestVirtual;
}
