import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { Frame, HostAddress } from '../x86/brand.ts';
import { FrameMark, type FrameMarks } from './frame-marks.ts';
import { PseudoHandler, RecordField } from './interpreter/record.ts';
import { CODE_HASH_SHIFT, CODE_SLOTS_SHIFT, CodeSlot } from './tlb-layout.ts';

/** A run of decoded instructions that begins at one place. */
export interface Block {
  /** Host address of the first byte. */
  readonly place: HostAddress;
  readonly mode: number;
  readonly record: HostAddress;
  readonly records: number;
  /** Bytes covered in the frame of `place`, from its first byte. */
  readonly bytes: number;
  /** Frame of the next page, when the block's one instruction crosses into it; else −1. */
  readonly crossing: Frame;
  /** Bytes covered at the start of the crossing frame. */
  readonly crossingBytes: number;
}

/** Stores into a frame that holds code, without a new block decoded from it, until all its code is dropped. */
const PATIENCE = 16;

interface FrameCode {
  blocks: Block[];
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
  readonly #blocks = new Map<number, Block>();
  readonly #frames = new Map<Frame, FrameCode>();
  /** Told of a frame that gets its first code: from here on no TLB may let stores to it pass unseen. */
  onFirstCode: (frame: Frame) => void = () => {};
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

  #key(place: HostAddress, mode: number): number {
    return place * 128 + mode;
  }

  find(place: HostAddress, mode: number): Block | undefined {
    return this.#blocks.get(this.#key(place, mode));
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
    this.#blocks.set(this.#key(block.place, block.mode), block);
    this.#cover(this.#pool.frameAt(block.place), block);
    if (block.crossing >= 0) this.#cover(block.crossing, block);
  }

  /** Makes the block findable by generated code. */
  publish(block: Block): void {
    const slot = this.#slotOf(block.place);
    const word = slot >> 2;
    this.#memory.u32[word] = block.place;
    this.#memory.u32[word + 1] = block.mode;
    this.#memory.u32[word + CodeSlot.record / 4] = block.record;
  }

  #slotOf(place: HostAddress): number {
    const hash = (place ^ (place >>> CODE_HASH_SHIFT)) & ((1 << CODE_SLOTS_SHIFT) - 1);
    return this.slots + hash * CodeSlot.size;
  }

  #cover(frame: Frame, block: Block): void {
    const code = this.#frames.get(frame);
    if (code) {
      code.blocks.push(block);
      code.stores = 0;
    } else {
      this.#frames.set(frame, { blocks: [block], stores: 0 });
      this.#marks.set(frame, FrameMark.code);
      this.onFirstCode(frame);
    }
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
    for (const block of code.blocks.slice()) {
      const home = this.#pool.frameAt(block.place) === frame;
      const from = home ? block.place : this.#pool.addressOf(frame);
      const bytes = home ? block.bytes : block.crossingBytes;
      if (everything || (start < from + bytes && from < start + length)) this.drop(block);
    }
  }

  /** All decoded code of a frame goes. */
  dropFrame(frame: Frame): void {
    for (const block of this.#frames.get(frame)?.blocks.slice() ?? []) this.drop(block);
  }

  /** Every record of the block sends its reader back to look up the code again; links to it stay harmless. */
  drop(block: Block): void {
    for (let index = 0; index < block.records; index++) {
      this.#memory.u16[(block.record + index * RecordField.size) >> 1] = PseudoHandler.stale;
    }
    this.#blocks.delete(this.#key(block.place, block.mode));
    const word = this.#slotOf(block.place) >> 2;
    if (this.#memory.u32[word + CodeSlot.record / 4] === block.record) this.#memory.u32.fill(0, word, word + 4);
    this.#uncover(this.#pool.frameAt(block.place), block);
    if (block.crossing >= 0) this.#uncover(block.crossing, block);
    this.droppedBlocks++;
  }

  #uncover(frame: Frame, block: Block): void {
    const code = this.#frames.get(frame);
    if (!code) return;
    const position = code.blocks.indexOf(block);
    if (position >= 0) code.blocks.splice(position, 1);
    if (code.blocks.length === 0) {
      this.#frames.delete(frame);
      this.#marks.clear(frame, FrameMark.code);
    }
  }

  /** Nothing that was decoded is left. No record may be in use: only called while a new block is looked up. */
  dropAll(): void {
    for (const frame of this.#frames.keys()) this.#marks.clear(frame, FrameMark.code);
    this.#frames.clear();
    this.#blocks.clear();
    this.#memory.u32.fill(0, this.slots >> 2, (this.slots + (CodeSlot.size << CODE_SLOTS_SHIFT)) >> 2);
    this.#next = this.#arena;
    this.generation++;
  }
}
