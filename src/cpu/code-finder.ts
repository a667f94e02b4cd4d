import type { HostMemory } from '../memory/host-memory.ts';
import { type Frame, type GuestVirtual, type HostAddress, joinSigned, PAGE_SIZE } from '../x86/brand.ts';
import { Vector } from '../x86/registers.ts';
import type { Block } from './code-cache.ts';
import { createInstruction, DecodeResult, decode } from './decode/decoder.ts';
import type { Instruction } from './decode/instruction.ts';
import { Access, Exit } from './exits.ts';
import type { Interpreter } from './interpreter/interpreter.ts';
import { BLOCK_LIMIT, Link, PseudoHandler, RecordField, RegionWord } from './interpreter/record.ts';
import {
  endsBlock,
  fuseRecord,
  mayFuse,
  writePseudo,
  writeRecord,
  writeSegment,
} from './interpreter/record-builder.ts';
import { fusedShape, isConditionalJump, shapeOf } from './interpreter/shape-of.ts';
import type { Jit } from './jit/jit.ts';
import type { HostParts } from './memory-unit.ts';
import type { ProcessorState } from './processor-state.ts';
import type { Shape } from './semantics/context.ts';
import { SYSTEM_OPERATIONS } from './semantics/control.ts';
import { State } from './state.ts';

const SYSTEM: ReadonlySet<string> = new Set(SYSTEM_OPERATIONS);

const UD2 = Uint8Array.of(0x0f, 0x0b);

/** What finding code needs of a host. */
export interface CodeSupport {
  readonly parts: HostParts;
  readonly interpreter: Pick<Interpreter, 'handlerFor'>;
  readonly jit: Jit | undefined;
}

/** Finds the decoded code that one processor is about to execute, and makes it where there is none. */
export class CodeFinder {
  /** Each look gives a single instruction and a stop, outside the shared cache. */
  isStepping = false;
  readonly #support: CodeSupport;
  readonly #processor: ProcessorState;
  readonly #host: HostMemory;
  readonly #word: number;
  /** What was decoded last. */
  readonly instruction = createInstruction();
  readonly #jump = createInstruction();
  /** The bytes of an instruction that crosses into another page. */
  readonly #crossing = new Uint8Array(16);
  /** Records of a block that holds a single instruction, for exact stops. */
  readonly #single: HostAddress;

  constructor(support: CodeSupport, processor: ProcessorState) {
    this.#support = support;
    this.#processor = processor;
    this.#host = support.parts.memory;
    this.#word = processor.state >> 2;
    this.#single = this.#host.reserve(4 * RecordField.size, 64);
  }

  #get(field: State): number {
    return this.#host.u32[this.#word + field / 4] as number;
  }

  /** Decodes the instruction at State.rip again; UD2 when its page is no longer mapped. @throws PageAbsent */
  decodeCurrent(): Instruction {
    const instruction = this.instruction;
    const low = this.#get(State.rip);
    const high = this.#host.u32[this.#word + State.rip / 4 + 1] as number;
    const place = this.#fetchedAgain(low, high);
    if (place < 0) {
      decode(UD2, 0, UD2.length, this.#processor.codeSize, instruction);
      return instruction;
    }
    const { result, second } = this.#decodeAt(place, low, high);
    if (result === DecodeResult.truncated && second < 0) {
      const [nextLow, nextHigh] = nextPage(low, high);
      this.#fetchedAgain(nextLow, nextHigh);
    }
    return instruction;
  }

  /**
   * Where code stands that was executed a moment ago. Its translation may still be cached while the tables that it came
   * through have left the host's memory. @throws PageAbsent
   */
  #fetchedAgain(low: number, high: number): HostAddress {
    return this.#processor.memory.translate(
      joinSigned(low, high) as GuestVirtual,
      Access.fetch,
      this.#processor.userMode,
    );
  }

  /**
   * Finds or makes the decoded code at State.rip. `from` is the record of a direct branch that leads there, or 0.
   * Returns the record, or 0 with the exit in the state block.
   */
  lookup(from: number): number {
    const { code, pool } = this.#support.parts;
    if (this.#processor.codeSize !== 64) this.#host.u32[this.#word + State.rip / 4 + 1] = 0;
    const low = this.#get(State.rip);
    const high = this.#host.u32[this.#word + State.rip / 4 + 1] as number;
    const place = this.#processor.memory.fetch(low, high);
    if (place < 0) return this.#failLookup();
    if (this.isStepping) return this.#decodeSingle(place, low, high);
    // Mostly it was the translation of the page that was not cached.
    const published = from === 0 ? code.publishedAt(place, this.#processor.codeMode) : 0;
    if (published !== 0 && this.#handlerOf(published) !== PseudoHandler.guard) {
      this.#enterPage(low, high);
      return published;
    }
    const { generation } = code;
    let block = code.find(place, this.#processor.codeMode);
    if (block && block.crossing >= 0) {
      const second = this.#nextPage(low, high);
      if (second < 0) return this.#failLookup();
      if (pool.frameAt(second) !== block.crossing) {
        code.drop(block);
        block = undefined;
      }
    }
    block ??= this.#decodeBlock(place, low, high);
    if (!block) return this.#failLookup();
    code.publish(block);
    const same = this.#enterPage(low, high);
    // A way forward does not make code hot: loops, calls and jumps to addresses do.
    const cold = this.#isWarming(block) && from !== 0 && same && this.#leadsForward(from, place & 0xfff);
    const record = cold ? block.record + RecordField.size : block.record;
    if (from !== 0 && code.generation === generation) this.#link(from as HostAddress, place, same ? record : 0);
    // The page that the guard record would ask for was walked just above.
    return block.crossing >= 0 ? block.record + RecordField.size : record;
  }

  /** What is executed from here on is in that page. @returns whether it was before */
  #enterPage(low: number, high: number): boolean {
    const { u32 } = this.#host;
    const base = this.#word + State.pageBase / 4;
    const page = (low & ~0xfff) >>> 0;
    const same = u32[base] === page && u32[base + 1] === high;
    u32[base] = page;
    u32[base + 1] = high;
    return same;
  }

  /** Remembers in the record of a direct branch where it leads. @param record 0 when that is another linear page */
  #link(from: HostAddress, place: HostAddress, record: number): void {
    const word = (from + RecordField.link) >> 2;
    if (record === 0) this.#host.u32[word] = Link.otherPage;
    // The tables may lead elsewhere by now, though no flush has said so; others execute the record where they do not.
    else if (this.#support.parts.code.isInPage(from, place)) this.#host.u32[word] = record;
  }

  #isWarming(block: Block): boolean {
    return this.#handlerOf(block.record) === PseudoHandler.warming;
  }

  #handlerOf(record: number): number {
    return this.#host.u16[(record + RecordField.handler) >> 1] as number;
  }

  #leadsForward(from: number, offset: number): boolean {
    const isCall = this.#host.u32[(from + RecordField.link) >> 2] === Link.unknownCall;
    return !isCall && offset >= (this.#host.u16[(from + RecordField.next) >> 1] as number);
  }

  /** The block whose first record this is was executed often. 1 when its code is to be looked up again. */
  hot(record: number): number {
    const jit = this.#support.jit as Jit; // there are no warming records without it
    const { u32 } = this.#host;
    const place = u32[(record + RecordField.immediate) >> 2] as HostAddress;
    const base = this.#word + State.pageBase / 4;
    const linear = joinSigned(u32[base] as number, u32[base + 1] as number) + (place % PAGE_SIZE);
    // Unless the request changes it.
    u32[(record + RecordField.displacement) >> 2] = jit.options.threshold;
    return jit.request({ place, mode: this.#processor.codeMode, linear: linear as GuestVirtual }) ? 1 : 0;
  }

  #failLookup(): number {
    this.#host.u32[this.#word + State.exitKind / 4] = this.#processor.memory.fetchMetHostFault
      ? Exit.hostFault
      : Exit.exception;
    return 0;
  }

  #nextPage(low: number, high: number): HostAddress {
    const [nextLow, nextHigh] = nextPage(low, high);
    return this.#processor.memory.fetch(nextLow, nextHigh);
  }

  /**
   * Decodes the instruction at a place. Bytes beyond the page are fetched only when they are needed, and not for
   * `ahead`: a walk sets accessed bits, which instructions that are not executed must not do.
   */
  #decodeAt(place: number, low: number, high: number, ahead = false): { result: DecodeResult; second: HostAddress } {
    const available = PAGE_SIZE - (place & 0xfff);
    const instruction = this.instruction;
    let result = decode(this.#host.u8, place, available, this.#processor.codeSize, instruction);
    let second = -1 as HostAddress;
    if (result === DecodeResult.truncated && !ahead) {
      second = this.#nextPage(low, high);
      if (second < 0) return { result, second };
      const bytes = this.#crossing;
      bytes.set(this.#host.u8.subarray(place, place + available));
      bytes.set(this.#host.u8.subarray(second, second + 16 - available), available);
      result = decode(bytes, 0, 16, this.#processor.codeSize, instruction);
    }
    return { result, second };
  }

  #decodeBlock(place: HostAddress, low: number, high: number): Block | undefined {
    const { code, pool } = this.#support.parts;
    const memory = this.#host;
    const mode = this.#processor.codeMode;
    const record = code.reserve(BLOCK_LIMIT + 3);
    const startOffset = place & 0xfff;
    let cursor = this.#writeHead(record, place);
    let offset = startOffset;
    let count = 0;
    let crossing = -1 as Frame;
    let crossingBytes = 0;
    for (;;) {
      if (count === BLOCK_LIMIT || offset >= PAGE_SIZE) {
        writePseudo(memory, cursor, PseudoHandler.fallThrough, offset, count);
        cursor += RecordField.size;
        break;
      }
      const at = place - startOffset + offset;
      const { result, second } = this.#decodeAt(at, low + offset - startOffset, high, count > 0);
      if (result !== DecodeResult.ok) {
        if (count > 0) {
          // An instruction that crosses a page stands in a block of its own, behind a guard; and a fault belongs to
          // the instruction, it is found when control gets there.
          writePseudo(memory, cursor, PseudoHandler.fallThrough, offset, count);
          cursor += RecordField.size;
          break;
        }
        if (result !== DecodeResult.truncated) {
          this.#processor.raise(result === DecodeResult.tooLong ? Vector.generalProtection : Vector.invalidOpcode);
        }
        return undefined;
      }
      const instruction = this.instruction;
      const plain = shapeOf(instruction, mode);
      // What follows a crossing instruction is on the second page, which lies anywhere in the host's memory.
      const mayShare = second < 0 && count + 1 < BLOCK_LIMIT;
      const jump = mayShare ? this.#fusedJump(plain, at + instruction.length) : undefined;
      const shape = jump ? fusedShape(plain, jump) : plain;
      const handler = this.#support.interpreter.handlerFor(shape);
      if (second >= 0) {
        // No region begins with an instruction that crosses a page.
        cursor = record;
        crossing = pool.frameAt(second);
        crossingBytes = offset + instruction.length - PAGE_SIZE;
        writePseudo(memory, cursor, PseudoHandler.guard, offset, 0);
        memory.u32[(cursor + RecordField.displacement) >> 2] = pool.addressOf(crossing);
        cursor += RecordField.size;
      }
      writeRecord(memory, cursor, handler, instruction, shape.memory, offset, count);
      writeSegment(memory, cursor, instruction, mode);
      offset += instruction.length;
      count++;
      if (jump) {
        fuseRecord(memory, cursor, jump);
        offset += jump.length;
        count++;
      }
      cursor += RecordField.size;
      if (endsBlock(shape.operation, SYSTEM)) break;
    }
    const block: Block = {
      place,
      mode,
      record,
      records: (cursor - record) / RecordField.size,
      bytes: Math.min(offset, PAGE_SIZE) - startOffset,
      crossing,
      crossingBytes,
    };
    code.add(block);
    return block;
  }

  /** The record in front of a block that leads to its region, or counts until it is worth one; where to go on writing. */
  #writeHead(record: HostAddress, place: HostAddress): number {
    const { jit, parts } = this.#support;
    if (!jit) return record;
    const region = parts.code.regionWordAt(place, this.#processor.codeMode);
    const { u32 } = this.#host;
    writePseudo(this.#host, record, region ? PseudoHandler.region : PseudoHandler.warming, place & 0xfff, 0);
    u32[(record + RecordField.displacement) >> 2] = region || jit.options.threshold;
    u32[(record + RecordField.link) >> 2] = region >>> RegionWord.budgetShift;
    u32[(record + RecordField.immediate) >> 2] = place;
    return record + RecordField.size;
  }

  /** The conditional jump at `place` that can share the record of the instruction in front of it. */
  #fusedJump(shape: Shape, place: number): Instruction | undefined {
    const available = PAGE_SIZE - (place & 0xfff);
    // On the next page when the instruction in front ends the page.
    if (!mayFuse(shape) || (place & 0xfff) === 0) return undefined;
    const jump = this.#jump;
    const result = decode(this.#host.u8, place, available, this.#processor.codeSize, jump);
    if (result !== DecodeResult.ok || !isConditionalJump(jump)) return undefined;
    // Behind a jump of 16 bits IP wraps, which no record that two instructions share knows of.
    return jump.operandSize === 2 ? undefined : jump;
  }

  /** One instruction and a stop, outside the shared cache. */
  #decodeSingle(place: HostAddress, low: number, high: number): number {
    const { result } = this.#decodeAt(place, low, high);
    if (result !== DecodeResult.ok) {
      if (result !== DecodeResult.truncated) {
        this.#processor.raise(result === DecodeResult.tooLong ? Vector.generalProtection : Vector.invalidOpcode);
      }
      return this.#failLookup();
    }
    const mode = this.#processor.codeMode;
    const shape = shapeOf(this.instruction, mode);
    const handler = this.#support.interpreter.handlerFor(shape);
    const offset = place & 0xfff;
    writeRecord(this.#host, this.#single, handler, this.instruction, shape.memory, offset, 0);
    writeSegment(this.#host, this.#single, this.instruction, mode);
    const stop = this.#single + RecordField.size;
    writePseudo(this.#host, stop, PseudoHandler.stop, offset + this.instruction.length, 1);
    const { u32 } = this.#host;
    u32[this.#word + State.pageBase / 4] = (low & ~0xfff) >>> 0;
    u32[this.#word + State.pageBase / 4 + 1] = high;
    return this.#single;
  }
}

/** The halves of the address at which the page behind that of another address begins. */
function nextPage(low: number, high: number): readonly [low: number, high: number] {
  const nextLow = ((low | 0xfff) + 1) >>> 0;
  return [nextLow, nextLow === 0 ? (high + 1) >>> 0 : high];
}
