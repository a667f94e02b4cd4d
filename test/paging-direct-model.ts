import type { DirectFormat } from '../src/paging/direct/table-rules.ts';
import { DOMAIN_FRAMES, LIMIT } from './paging-direct-world.ts';

/** A refusal, with the ABI's error number. */
class Refused extends Error {
  readonly result: number;
  constructor(result: number) {
    super(`refused with ${result}`);
    this.result = result;
  }
}

function refuse(result: number): never {
  throw new Refused(result);
}

type Use = 1 | 2 | 3 | 4 | 'descriptors';
export interface Entry {
  readonly low: number;
  readonly high: number;
}
export interface Expected {
  type: Use | 'writable' | 'none';
  typeCount: number;
  references: number;
}

/** What the formats differ in. */
const FORMATS = {
  'four-level': {
    top: 4,
    topEntries: 512,
    isHostSlot: (level: number, index: number) => level === 4 && index >= 256 && index <= 271,
    mayChange: (level: number, index: number) => level < 4 || index < 256 || index > 271,
    isHostPath: ([top = 0]: readonly number[]) => top >= 256 && top <= 271,
    topHighRefused: 0,
    privilege: 3,
  },
  pae: {
    top: 3,
    topEntries: 4,
    isHostSlot: () => false,
    mayChange: (level: number, index: number) => level < 3 || index < 3,
    // 0xf5800000 and above.
    isHostPath: ([top = 0, middle = 0]: readonly number[]) => (top & 3) === 3 && middle >= 428,
    topHighRefused: 0xfff0_0000,
    privilege: 1,
  },
} as const;

const target = (entry: Entry) => (entry.high & 0xfffff) * 2 ** 20 + Math.floor(entry.low / 4096);

interface State {
  /** Entries that are not zero. */
  contents: Map<number, Map<number, Entry>>;
  owner: Map<number, 'domain' | 'shared'>;
  /** Tables and descriptor pages. */
  use: Map<number, Use>;
  pins: Map<number, 1 | 2 | 3 | 4>;
  /** By processor and mode. */
  roots: number[];
  gdt: number[][];
  ldt: Set<number>;
  held: number[];
  unused: number[];
}

function copy(state: State): State {
  return {
    contents: new Map([...state.contents].map(([mfn, entries]) => [mfn, new Map(entries)])),
    owner: new Map(state.owner),
    use: new Map(state.use),
    pins: new Map(state.pins),
    roots: [...state.roots],
    gdt: state.gdt.map((frames) => [...frames]),
    ldt: new Set(state.ldt),
    held: [...state.held],
    unused: [...state.unused],
  };
}

/**
 * Frame types without counts: who uses a frame is always found by looking at everything, a refused operation is undone
 * by throwing its copy away, and what nobody holds any more is found by walking from the holds.
 */
export class Model {
  state: State;
  readonly #format: (typeof FORMATS)[DirectFormat];

  constructor(own: readonly number[], shared: number, format: DirectFormat = 'four-level') {
    this.#format = FORMATS[format];
    if (own.length !== DOMAIN_FRAMES) throw new Error('unexpected world');
    this.state = {
      contents: new Map(),
      owner: new Map([...own.map((mfn) => [mfn, 'domain'] as const), [shared, 'shared']]),
      use: new Map(),
      pins: new Map(),
      roots: [-1, -1, -1, -1],
      gdt: [[], []],
      ldt: new Set(),
      held: [],
      unused: [],
    };
  }

  entriesOf(mfn: number): Map<number, Entry> {
    const entries = this.state.contents.get(mfn) ?? new Map<number, Entry>();
    this.state.contents.set(mfn, entries);
    return entries;
  }

  poke(mfn: number, index: number, low: number, high: number): void {
    if (low === 0 && high === 0) this.entriesOf(mfn).delete(index);
    else this.entriesOf(mfn).set(index, { low: low >>> 0, high: high >>> 0 });
  }

  peek(mfn: number, index: number): Entry {
    return this.entriesOf(mfn).get(index) ?? { low: 0, high: 0 };
  }

  /** Present entries of a table that mean something, in order. */
  present(mfn: number, level: number): [number, Entry][] {
    return [...this.entriesOf(mfn)]
      .filter(([index, entry]) => (entry.low & 1) !== 0 && this.#isEntry(level, index))
      .sort(([a], [b]) => a - b);
  }

  #isEntry(level: number, index: number): boolean {
    const { top, topEntries, isHostSlot } = this.#format;
    return !isHostSlot(level, index) && (level < top || index < topEntries);
  }

  *tables(level: number): Iterable<number> {
    for (const [mfn, use] of this.state.use) if (use === level) yield mfn;
  }

  writableUses(mfn: number): number {
    let uses = this.state.held.filter((held) => held === mfn).length;
    for (const table of this.tables(1)) {
      for (const [, entry] of this.present(table, 1)) if ((entry.low & 2) !== 0 && target(entry) === mfn) uses++;
    }
    return uses;
  }

  attempt(operation: () => unknown): number {
    const before = copy(this.state);
    try {
      const result = operation();
      this.sweep();
      return typeof result === 'number' ? result : 0;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.state = before;
      return error.result;
    }
  }

  /** Linear entries between two different tables of a level. */
  *links(level: number): Iterable<[number, number]> {
    for (const table of this.tables(level)) {
      for (const [, entry] of this.present(table, level)) {
        if (level > 1 && this.state.use.get(target(entry)) === level && target(entry) !== table) {
          yield [table, target(entry)];
        }
      }
    }
  }

  demandTable(mfn: number, level: 1 | 2 | 3 | 4): void {
    if (this.state.owner.get(mfn) !== 'domain') refuse(-22);
    const use = this.state.use.get(mfn);
    if (use === level) return;
    if (use !== undefined || this.writableUses(mfn) > 0) refuse(-22);
    if (level > this.#format.top) refuse(-22);
    this.state.use.set(mfn, level);
    for (const [, entry] of this.present(mfn, level)) this.demandEntry(mfn, level, entry);
    const lacksHost = level === 3 && this.#format.top === 3 && (this.peek(mfn, 3).low & 1) === 0;
    if (lacksHost) refuse(-22);
  }

  demandEntry(table: number, level: 1 | 2 | 3 | 4, entry: Entry): void {
    const mfn = target(entry);
    if (level === 1) {
      if ((entry.low & 0x98) !== 0) refuse(-22);
      if (mfn >= LIMIT) refuse(-1);
      const owner = this.state.owner.get(mfn);
      if (owner === undefined) refuse(-16);
      if ((entry.low & 2) !== 0 && this.state.use.has(mfn)) refuse(-16);
      return;
    }
    if ((entry.low & 0x198) !== 0) refuse(-22);
    const isTop = level === this.#format.top;
    if (isTop && (entry.high & this.#format.topHighRefused) !== 0) refuse(-22);
    if (this.state.owner.get(mfn) !== 'domain') refuse(-22);
    if (this.state.use.get(mfn) !== level) {
      this.demandTable(mfn, (level - 1) as 1 | 2 | 3);
      return;
    }
    if ((entry.low & 2) !== 0 || (isTop && level === 3)) refuse(-22);
    if (mfn === table) return;
    for (const [from, to] of this.links(level)) if (to === table || from === mfn) refuse(-22);
  }

  demandDescriptors(mfn: number): void {
    if (this.state.owner.get(mfn) !== 'domain') refuse(-22);
    const use = this.state.use.get(mfn);
    if (use === 'descriptors') return;
    if (use !== undefined || this.writableUses(mfn) > 0) refuse(-22);
    const judged = [...this.entriesOf(mfn)].map(
      ([index, entry]) => [index, entry.low, judge(entry.high, this.#format.privilege)] as const,
    );
    for (const [, , high] of judged) if (high < 0) refuse(-22);
    for (const [index, low, high] of judged) this.poke(mfn, index, low, high);
    this.state.use.set(mfn, 'descriptors');
  }

  /** Takes the type from whatever cannot be reached from a hold. */
  sweep(): void {
    const { state } = this;
    for (;;) {
      const reached = new Set<number>();
      const visit = (mfn: number) => {
        if (reached.has(mfn)) return;
        reached.add(mfn);
        const level = state.use.get(mfn);
        if (typeof level !== 'number' || level === 1) return;
        for (const [, entry] of this.present(mfn, level)) visit(target(entry));
      };
      for (const mfn of [...state.pins.keys(), ...state.roots, ...state.gdt.flat(), ...state.ldt]) visit(mfn);
      const lost = [...state.use].filter(([mfn]) => !reached.has(mfn));
      if (lost.length === 0) return;
      for (const [mfn, use] of lost) {
        state.use.delete(mfn);
        if (use === 1) for (const [, entry] of this.present(mfn, 1)) state.ldt.delete(target(entry));
      }
    }
  }

  pin(level: 1 | 2 | 3 | 4, mfn: number): number {
    return this.attempt(() => {
      if (this.state.pins.has(mfn)) refuse(-22);
      this.demandTable(mfn, level);
      this.state.pins.set(mfn, level);
    });
  }

  unpin(mfn: number): number {
    return this.attempt(() => {
      if (!this.state.pins.delete(mfn)) refuse(-22);
    });
  }

  setRoot(slot: number, mfn: number): number {
    return this.attempt(() => {
      const none = mfn === 0 && slot % 2 === 1;
      if (!none) this.demandTable(mfn, this.#format.top);
      this.state.roots[slot] = none ? -1 : mfn;
    });
  }

  mmuUpdate(mfn: number, index: number, command: number, value: Entry): number {
    return this.attempt(() => {
      if (command > 3) refuse(-38);
      const owner = this.state.owner.get(mfn);
      if (owner === undefined) refuse(-22);
      if (command === 1) {
        if (owner !== 'domain') refuse(-22);
        return;
      }
      const use = this.state.use.get(mfn);
      if (use === 'descriptors') refuse(-22);
      if (typeof use !== 'number') this.poke(mfn, index, value.low, value.high);
      else this.write(mfn, use, index, value, command === 2);
    });
  }

  write(table: number, level: 1 | 2 | 3 | 4, index: number, value: Entry, preserve: boolean): void {
    if (!this.#format.mayChange(level, index)) refuse(-22);
    const old = this.peek(table, index);
    const low = preserve ? value.low | (old.low & 0x60) : value.low;
    const relevant = ~(0x200 | 0x400 | 0x800 | 0x60 | 4); // software bits, accessed, dirty, user
    const flagsOnly = level > 1 && ((old.low ^ low) & relevant) === 0 && ((old.high ^ value.high) & 0xfffff) === 0;
    const refusedHigh = level === this.#format.top ? this.#format.topHighRefused : 0;
    if ((low & 1) !== 0 && (value.high & refusedHigh) !== 0) refuse(-22);
    if ((low & 1) !== 0 && !flagsOnly) this.demandEntry(table, level, { low: low >>> 0, high: value.high });
    if (level === 1 && (old.low & 1) !== 0) this.state.ldt.delete(target(old));
    this.poke(table, index, low, value.high);
  }

  findLevel1(root: number, indexes: readonly number[]): number {
    if (this.state.use.get(root) !== this.#format.top || this.#format.isHostPath(indexes)) refuse(-22);
    let table = root;
    for (const index of indexes.slice(0, -1)) {
      const entry = this.peek(table, index);
      if ((entry.low & 1) === 0) refuse(-22);
      table = target(entry);
    }
    return this.state.use.get(table) === 1 ? table : refuse(-22);
  }

  updateVaMapping(root: number, indexes: readonly number[], value: Entry): number {
    return this.attempt(() => {
      const table = this.findLevel1(root, indexes);
      this.write(table, 1, indexes.at(-1) ?? 0, value, false);
    });
  }

  emulateStore(mfn: number, offset: number, bytes: readonly number[]): boolean {
    const result = this.attempt(() => {
      if (![1, 2, 4, 8].includes(bytes.length) || offset % bytes.length !== 0) refuse(-1);
      if (this.state.use.get(mfn) !== 1) refuse(-1);
      const index = Math.floor(offset / 8);
      const old = this.peek(mfn, index);
      const image = new DataView(new ArrayBuffer(8));
      image.setUint32(0, old.low, true);
      image.setUint32(4, old.high, true);
      for (const [i, byte] of bytes.entries()) image.setUint8((offset % 8) + i, byte);
      const value = { low: image.getUint32(0, true), high: image.getUint32(4, true) };
      const isUpperHalf = this.#format.top === 3 && bytes.length === 4 && offset % 8 === 4;
      const refused = this.attempt(() => this.write(mfn, 1, index, value, false));
      if (refused === 0) return;
      if (!isUpperHalf) refuse(refused);
      this.write(mfn, 1, index, { low: (value.low & ~1) >>> 0, high: value.high }, false);
    });
    return result === 0;
  }

  setGdt(processor: number, frames: readonly number[], entries: number): number {
    return this.attempt(() => {
      if (entries > 7168 || frames.length !== Math.ceil(entries / 512)) refuse(-22);
      for (const mfn of frames) this.demandDescriptors(mfn);
      this.state.gdt[processor] = [...frames];
    });
  }

  holdLdtFrame(mfn: number): number {
    return this.attempt(() => {
      this.demandDescriptors(mfn);
      this.state.ldt.add(mfn);
    });
  }

  releaseLdt(): void {
    this.attempt(() => this.state.ldt.clear());
  }

  isPlain(mfn: number): boolean {
    const owner = this.state.owner.get(mfn);
    return (owner === 'domain' || owner === 'shared') && !this.state.use.has(mfn);
  }

  updateDescriptor(mfn: number, index: number, descriptor: Entry): number {
    return this.attempt(() => {
      if (!this.isPlain(mfn) && this.state.use.get(mfn) !== 'descriptors') refuse(-22);
      const high = judge(descriptor.high, this.#format.privilege);
      if (high < 0) refuse(-22);
      this.poke(mfn, index, descriptor.low, high);
    });
  }

  holdWritable(mfn: number): number {
    return this.attempt(() => {
      if (!this.isPlain(mfn)) refuse(-22);
      this.state.held.push(mfn);
    });
  }

  dropWritable(mfn: number): void {
    this.state.held.splice(this.state.held.indexOf(mfn), 1);
  }

  clearPage(mfn: number): number {
    return this.attempt(() => {
      if (!this.isPlain(mfn)) refuse(-22);
      this.entriesOf(mfn).clear();
    });
  }

  copyPage(to: number, from: number): number {
    return this.attempt(() => {
      if (this.state.owner.get(from) !== 'domain' || !this.isPlain(to)) refuse(-22);
      this.state.contents.set(to, new Map(this.entriesOf(from)));
    });
  }

  decreaseReservation(mfn: number): number {
    return this.attempt(() => {
      if (this.state.owner.get(mfn) !== 'domain' || this.expected()(mfn).references > 0) refuse(-22);
      this.state.owner.delete(mfn);
      this.state.contents.delete(mfn);
      this.state.unused.push(mfn);
    });
  }

  populatePhysmap(): number {
    return this.attempt(() => {
      const mfn = this.state.unused.pop();
      if (mfn === undefined) return refuse(-12);
      this.state.owner.set(mfn, 'domain');
      return mfn;
    });
  }

  /** What the counts of each frame must be, added up from every use there is. */
  expected(): (mfn: number) => Expected {
    const { state } = this;
    const typeCounts = new Map<number, number>();
    const references = new Map<number, number>();
    const writable = new Set(state.held);
    const add = (counts: Map<number, number>, mfn: number) => counts.set(mfn, (counts.get(mfn) ?? 0) + 1);
    const hold = (mfn: number) => {
      add(typeCounts, mfn);
      add(references, mfn);
    };
    for (const mfn of [...state.pins.keys(), ...state.roots, ...state.gdt.flat(), ...state.ldt, ...state.held])
      hold(mfn);
    for (const [table, level] of state.use) {
      if (typeof level !== 'number') continue;
      for (const [, entry] of this.present(table, level)) {
        const mfn = target(entry);
        if (level === 1 && (entry.low & 2) === 0) add(references, mfn);
        else if (level === 1 || mfn !== table) hold(mfn);
        if (level === 1 && (entry.low & 2) !== 0) writable.add(mfn);
      }
    }
    return (mfn) => ({
      type: state.use.get(mfn) ?? (writable.has(mfn) ? 'writable' : 'none'),
      typeCount: typeCounts.get(mfn) ?? 0,
      references: references.get(mfn) ?? 0,
    });
  }
}

/** A descriptor as a guest with its kernel in a ring may have it: the high word to store, or −1. */
function judge(high: number, ring: 1 | 3): number {
  const bit = (number: number) => Math.floor(high / 2 ** number) % 2 === 1;
  const type = Math.floor(high / 256) % 16;
  if (!bit(15)) return high;
  if (bit(12)) {
    if (ring === 3) return (high | 0x6000) >>> 0;
    if (bit(21)) return -1;
    return bit(13) || bit(14) ? high : (high | 0x2000) >>> 0;
  }
  if (type === 0) return high;
  return type === 12 && !bit(5) && !bit(6) && !bit(7) ? high : -1;
}
