import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { clearWords } from '../memory/words.ts';
import { type Frame, type GuestVirtual, type HostAddress, PAGE_SIZE } from '../x86/brand.ts';
import type { CodeMode } from './code-mode.ts';
import { MAXIMUM_LENGTH } from './decode/decoder.ts';
import { FrameMark, type FrameMarks } from './frame-marks.ts';
import { PseudoHandler, RecordField, RegionWord } from './interpreter/record.ts';
import { PlaceMap } from './place-map.ts';
import { overlaps } from './ranges.ts';
import { RecordPlaces } from './record-places.ts';
import { CODE_HASH_SHIFT, CODE_SLOTS_SHIFT, CODE_UNIT_SHIFT, CodeSlot } from './tlb-layout.ts';

/** A run of decoded instructions that begins at one place. */
export interface Block {
  /** Host address of the first byte. */
  readonly place: HostAddress;
  readonly mode: CodeMode;
  readonly record: HostAddress;
  readonly records: number;
  /** Bytes covered in the frame of `place`, from its first byte. */
  readonly bytes: number;
  /** Frame of the next page, when the block's one instruction crosses into it; else −1. */
  readonly crossing: Frame;
  /** Bytes covered at the start of the crossing frame. */
  readonly crossingBytes: number;
}

/** Generated code that begins at one place; all its bytes are in the frame of that place. */
export interface Region {
  readonly place: HostAddress;
  readonly mode: CodeMode;
  /** Linear address of the place when the region was made. */
  readonly linear: GuestVirtual;
  /** Index in the table of regions. */
  readonly slot: number;
  /** Instructions that it may execute between two looks at the budget. */
  readonly slack: number;
  /** Offsets in the frame, start and end in turn, of the bytes that it was made from. */
  readonly ranges: readonly number[];
}

/** Stores into a frame that holds code, without a new block decoded from it, until all its code is dropped. */
const PATIENCE = 16;

/** Executions of a block that are as good as unlimited. */
export const UNLIMITED = 0x7fff_ffff;

interface FrameCode {
  readonly blocks: Block[];
  readonly regions: Region[];
  /** Stores that came since a block was last decoded. */
  stores: number;
}

/**
 * Decoded code, keyed by the place of its bytes and the code mode: shared by all addresses and all processors that see
 * the frame. Records live in a bounded arena; when it is full everything is dropped at once.
 */
export class CodeCache {
  readonly #memory: HostMemory;
  readonly #pool: FramePool;
  readonly #marks: FrameMarks;
  readonly slots: HostAddress;
  readonly #arena: HostAddress;
  readonly #arenaEnd: number;
  #next: number;
  readonly #blocks = new PlaceMap<Block>();
  readonly #regions = new PlaceMap<Region>();
  readonly #recordPlaces = new RecordPlaces();
  readonly #frames = new Map<Frame, FrameCode>();
  /** Told of a frame that gets its first code: from here on no TLB may let stores to it pass unseen. */
  onFirstCode: (frame: Frame) => void = () => {};
  /** Told of a region that is no longer valid. */
  onRegionDropped: (region: Region) => void = () => {};
  /** Counts the times everything was dropped: records known from before are gone. */
  generation = 0;
  decodedInstructions = 0;
  droppedBlocks = 0;

  /** @param arenaBytes room for records, 32 bytes each */
  constructor(memory: HostMemory, pool: FramePool, marks: FrameMarks, arenaBytes: number) {
    this.#memory = memory;
    this.#pool = pool;
    this.#marks = marks;
    this.slots = memory.reserve(CodeSlot.size << CODE_SLOTS_SHIFT, 64);
    this.#arena = memory.reserve(arenaBytes, 64);
    this.#arenaEnd = this.#arena + arenaBytes;
    this.#next = this.#arena;
  }

  get blocks(): number {
    return this.#blocks.size;
  }

  find(place: HostAddress, mode: CodeMode): Block | undefined {
    return this.#blocks.get(place, mode);
  }

  /** Where in a page control has been, as offsets, as far as blocks begin there. */
  offsetsOf(page: HostAddress, mode: CodeMode): Uint16Array {
    const blocks = this.#frames.get(this.#pool.frameAt(page))?.blocks ?? [];
    const here = blocks.filter((block) => block.mode === mode && block.place >= page && block.place < page + PAGE_SIZE);
    return Uint16Array.from(here, ({ place }) => place - page);
  }

  /** 14 bytes from the start of a page that an instruction at the end of this one went on in, or none. */
  bytesBehind(page: HostAddress, mode: CodeMode): Uint8Array {
    const blocks = this.#frames.get(this.#pool.frameAt(page))?.blocks ?? [];
    const isCrossing = (block: Block) =>
      block.mode === mode && block.crossing >= 0 && block.place >= page && block.place < page + PAGE_SIZE;
    const found = blocks.find(isCrossing);
    if (!found) return new Uint8Array(0);
    const behind = this.#pool.addressOf(found.crossing);
    return this.#memory.u8.slice(behind, behind + MAXIMUM_LENGTH - 1);
  }

  /** Room for the records of one block; may drop everything that was decoded before. */
  reserve(records: number): HostAddress {
    const bytes = records * RecordField.size;
    if (this.#next + bytes > this.#arenaEnd) this.dropAll();
    return this.#next as HostAddress;
  }

  /** Takes a block whose records were written where `reserve` said. */
  add(block: Block): void {
    this.#next = block.record + block.records * RecordField.size;
    this.decodedInstructions += block.records;
    this.#blocks.set(block.place, block.mode, block);
    this.#recordPlaces.add(block.record, block.place);
    const home = this.#pool.frameAt(block.place);
    this.#codeOf(home).blocks.push(block);
    if (block.crossing >= 0 && block.crossing !== home) this.#codeOf(block.crossing).blocks.push(block);
  }

  /** Whether what a record was decoded from stands in the page of a place. */
  isInPage(record: HostAddress, place: HostAddress): boolean {
    return this.#pool.frameAt(this.#recordPlaces.of(record)) === this.#pool.frameAt(place);
  }

  /** The region that begins at a place. */
  regionAt(place: HostAddress, mode: CodeMode): Region | undefined {
    return this.#regions.get(place, mode);
  }

  /** From here on `onRegionDropped` tells when a region is no longer valid; nothing leads there before `addRegion`. */
  watchRegion(region: Region): void {
    this.#codeOf(this.#pool.frameAt(region.place)).regions.push(region);
  }

  /** Takes a region that is watched; the block that begins at its place is to be decoded again, so that it leads there. */
  addRegion(region: Region): void {
    this.#regions.set(region.place, region.mode, region);
    this.#dropAt(region.place, region.mode);
  }

  /** What is executed as part of a region becomes one of its own only if it is often entered in another way. */
  startCountingAgain(place: HostAddress, mode: CodeMode, executions: number): void {
    const record = this.find(place, mode)?.record;
    if (record === undefined || this.#memory.u16[record >> 1] !== PseudoHandler.warming) return;
    this.#memory.u32[(record + RecordField.displacement) >> 2] = executions;
  }

  /** The same code stands elsewhere from here on. */
  replaceRegion(old: Region, next: Region): void {
    const { place, mode } = next;
    this.#regions.set(place, mode, next);
    const regions = this.#frames.get(this.#pool.frameAt(place))?.regions ?? [];
    regions.splice(regions.indexOf(old), 1, next);
    const block = this.find(place, mode);
    if (block) {
      this.#writeHead(block);
      if (this.#slotWith(block) >= 0) this.publish(block);
    }
    this.onRegionDropped(old);
  }

  /** The record in front of a block whose code is a region. */
  #writeHead({ record, place, mode }: Block): void {
    const word = this.regionWordAt(place, mode);
    this.#memory.u32[(record + RecordField.displacement) >> 2] = word;
    this.#memory.u32[(record + RecordField.link) >> 2] = word >>> RegionWord.budgetShift;
  }

  dropRegion(region: Region): void {
    this.#regions.delete(region.place, region.mode);
    const frame = this.#pool.frameAt(region.place);
    const code = this.#frames.get(frame);
    const position = code?.regions.indexOf(region) ?? -1;
    if (position >= 0) code?.regions.splice(position, 1);
    this.#dropAt(region.place, region.mode);
    this.#forget(frame);
    this.onRegionDropped(region);
  }

  #dropAt(place: HostAddress, mode: CodeMode): void {
    const block = this.find(place, mode);
    if (block) this.drop(block);
  }

  /** Makes the block findable by generated code. */
  publish(block: Block): void {
    const held = this.#slotWith(block);
    const word = (held >= 0 ? held : this.#freeSlot(block.place)) >> 2;
    this.#memory.u32[word] = block.place;
    this.#memory.u32[word + 1] = block.mode;
    this.#memory.u32[word + CodeSlot.record / 4] = block.record;
    this.#memory.u32[word + CodeSlot.region / 4] = this.regionWordAt(block.place, block.mode);
  }

  /** The record that generated code finds for a place; 0 when it finds none. */
  publishedAt(place: HostAddress, mode: CodeMode): number {
    const slot = this.#slotOf(place);
    return this.#recordIn(slot, place, mode) || this.#recordIn(slot ^ CodeSlot.size, place, mode);
  }

  #recordIn(slot: number, place: HostAddress, mode: CodeMode): number {
    const word = slot >> 2;
    const { u32 } = this.#memory;
    return u32[word] === place && u32[word + 1] === mode ? (u32[word + CodeSlot.record / 4] as number) : 0;
  }

  /** The RegionWord of the region that begins at a place; 0 when there is none. */
  regionWordAt(place: HostAddress, mode: CodeMode): number {
    const region = this.#regions.get(place, mode);
    return region ? (region.slot + 1) | (region.slack << RegionWord.budgetShift) : 0;
  }

  /** The slot that a block has; −1 when it has none. */
  #slotWith({ place, record }: Block): number {
    const { u32 } = this.#memory;
    const slot = this.#slotOf(place);
    if (u32[(slot + CodeSlot.record) >> 2] === record) return slot;
    const neighbour = slot ^ CodeSlot.size;
    return u32[(neighbour + CodeSlot.record) >> 2] === record ? neighbour : -1;
  }

  /** A slot for a place that has none. What stands in the first one goes to its neighbour, and what stood there goes. */
  #freeSlot(place: HostAddress): number {
    const slot = this.#slotOf(place);
    if (this.#memory.u32[slot >> 2] !== 0) this.#memory.copyFew(slot ^ CodeSlot.size, slot, CodeSlot.size);
    return slot;
  }

  #slotOf(place: HostAddress): number {
    const hash = ((place >>> CODE_UNIT_SHIFT) ^ (place >>> CODE_HASH_SHIFT)) & ((1 << CODE_SLOTS_SHIFT) - 1);
    return this.slots + hash * CodeSlot.size;
  }

  #codeOf(frame: Frame): FrameCode {
    const known = this.#frames.get(frame);
    if (known) {
      known.stores = 0;
      return known;
    }
    const code: FrameCode = { blocks: [], regions: [], stores: 0 };
    this.#frames.set(frame, code);
    this.#marks.set(frame, FrameMark.code);
    this.onFirstCode(frame);
    return code;
  }

  /** Whether a frame holds decoded code. */
  holds(frame: Frame): boolean {
    return this.#frames.has(frame);
  }

  /** Bytes of a frame changed: blocks that cover any of them are dropped. */
  written(frame: Frame, offset: number, length: number): void {
    const code = this.#frames.get(frame);
    if (!code) return;
    const start = this.#pool.addressOf(frame) + offset;
    const everything = ++code.stores > PATIENCE;
    const isCovered = (from: number, bytes: number) => start < from + bytes && from < start + length;
    for (const block of code.blocks.slice()) {
      // An instruction may cross from a frame into the same one.
      const isBehind = block.crossing === frame && isCovered(this.#pool.addressOf(frame), block.crossingBytes);
      if (everything || isBehind || isCovered(block.place, block.bytes)) this.drop(block);
    }
    for (const region of code.regions.slice()) {
      if (everything || overlaps(region.ranges, offset, offset + length)) this.dropRegion(region);
    }
  }

  /** Every record of the block sends its reader back to look up the code again; links to it stay harmless. */
  drop(block: Block): void {
    for (let index = 0; index < block.records; index++) {
      this.#memory.u16[(block.record + index * RecordField.size) >> 1] = PseudoHandler.stale;
    }
    this.#blocks.delete(block.place, block.mode);
    const slot = this.#slotWith(block);
    if (slot >= 0) clearWords(this.#memory.u32, slot, CodeSlot.size);
    this.#uncover(this.#pool.frameAt(block.place), block);
    if (block.crossing >= 0) this.#uncover(block.crossing, block);
    this.droppedBlocks++;
  }

  #uncover(frame: Frame, block: Block): void {
    const code = this.#frames.get(frame);
    if (!code) return;
    const position = code.blocks.indexOf(block);
    if (position >= 0) code.blocks.splice(position, 1);
    this.#forget(frame);
  }

  /** A frame without code needs no mark. */
  #forget(frame: Frame): void {
    const code = this.#frames.get(frame);
    if (!code || code.blocks.length > 0 || code.regions.length > 0) return;
    this.#frames.delete(frame);
    this.#marks.clear(frame, FrameMark.code);
  }

  /**
   * Nothing that was decoded is left; regions stay, the blocks in front of them are decoded again. No record may be in
   * use: only called while a new block is looked up.
   */
  dropAll(): void {
    for (const [frame, code] of this.#frames) {
      code.blocks.length = 0;
      this.#forget(frame);
    }
    this.#blocks.clear();
    this.#recordPlaces.clear();
    this.#memory.u32.fill(0, this.slots >> 2, (this.slots + (CodeSlot.size << CODE_SLOTS_SHIFT)) >> 2);
    this.#next = this.#arena;
    this.generation++;
  }
}
