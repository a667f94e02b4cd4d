import type { Archive, Archived } from '../../archive/archive.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { isCode, isPresent, isSystem, isWritableData, privilegeOf } from '../../cpu/descriptor.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { writeCr0, writeCr3, writeCr4, writeEfer } from '../../cpu/protection/control-registers.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { MicrovmVcpu } from '../../microvm/vcpu.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { ARITHMETIC_FLAGS, Efer, Flag, Register } from '../../x86/registers.ts';
import { ApState } from './abi.ts';

/** Segment registers with the places of their selectors. CS and SS are code and a stack of ring 0. */
const SEGMENTS = [
  [SegmentRegister.cs, ApState.cs],
  [SegmentRegister.ss, ApState.ss],
  [SegmentRegister.ds, ApState.ds],
  [SegmentRegister.es, ApState.es],
  [SegmentRegister.fs, ApState.fs],
  [SegmentRegister.gs, ApState.gs],
] as const;

const REGISTERS = [
  [Register.rax, ApState.eax],
  [Register.rbx, ApState.ebx],
  [Register.rcx, ApState.ecx],
  [Register.rdx, ApState.edx],
  [Register.rsp, ApState.esp],
  [Register.rbp, ApState.ebp],
  [Register.rsi, ApState.esi],
  [Register.rdi, ApState.edi],
] as const;

const FLAGS = ARITHMETIC_FLAGS | Flag.interrupt | Flag.direction | Flag.iopl | Flag.identification;

interface LoadedSegment {
  readonly selector: number;
  /** Low and high word; null for the null selector. */
  readonly descriptor: readonly [low: number, high: number] | null;
}

/** Reads words of the caller's memory; undefined with an exception left for it. */
export type ReadWord = (address: GuestVirtual) => number | undefined;

/** What a processor begins with when it is started next: SetInitialAPState, with the descriptors that it names. */
export class StartState implements Archived {
  #bytes: Uint8Array | undefined;
  #segments: readonly LoadedSegment[] = [];

  archive(archive: Archive): void {
    this.#bytes = archive.value('bytes', this.#bytes);
    this.#segments = archive.value('segments', this.#segments as LoadedSegment[]);
  }

  forget(): void {
    this.#bytes = undefined;
    this.#segments = [];
  }

  /**
   * Takes the state at an address. One with segments that no kernel could begin with is not taken.
   * @returns false when it cannot be read, with the exception left. @throws PageAbsent
   */
  read(address: number, readWord: ReadWord): boolean {
    const words = new Uint32Array(Math.ceil(ApState.size / 4));
    for (let index = 0; index < words.length; index++) {
      const word = readWord(((address + index * 4) >>> 0) as GuestVirtual);
      if (word === undefined) return false;
      words[index] = word;
    }
    const bytes = new Uint8Array(words.buffer, 0, ApState.size);
    const view = new DataView(bytes.buffer);
    const segments: LoadedSegment[] = [];
    for (const [, offset] of SEGMENTS) {
      const selector = view.getUint16(offset, true);
      if ((selector & ~3) === 0) {
        segments.push({ selector, descriptor: null });
        continue;
      }
      // There is no local table.
      const isInTable = (selector & 4) === 0 && (selector | 7) <= view.getUint16(ApState.gdtLimit, true);
      if (!isInTable) return true;
      const place = (view.getUint32(ApState.gdtBase, true) + (selector & ~7)) >>> 0;
      const low = readWord(place as GuestVirtual);
      const high = low === undefined ? undefined : readWord(((place + 4) >>> 0) as GuestVirtual);
      if (low === undefined || high === undefined) return false;
      segments.push({ selector, descriptor: [low, high] });
    }
    if (!isSound(segments) || view.getUint16(ApState.ldtr, true) !== 0) return true;
    this.#bytes = bytes.slice();
    this.#segments = segments;
    return true;
  }

  /**
   * Lets a processor begin, whose registers are as after a reset. False when there is no state; it is used once.
   * @throws PageAbsent with the state kept, DomainCrash
   */
  enter({ processor, state }: MicrovmVcpu): boolean {
    const bytes = this.#bytes;
    if (!bytes) return false;
    const segments = this.#segments;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const word = (offset: ApState): number => view.getUint32(offset, true);
    const isAllowed =
      (word(ApState.efer) & (Efer.longModeEnable | Efer.longModeActive)) === 0 &&
      writeEfer(state, word(ApState.efer), word(ApState.efer + 4)) &&
      writeCr4(state, word(ApState.cr4), 0) &&
      writeCr3(state, word(ApState.cr3)) &&
      writeCr0(state, word(ApState.cr0), 0);
    if (!isAllowed) throw new DomainCrash('SetInitialAPState named values that control registers cannot have');
    this.forget();
    processor.cr2 = word(ApState.cr2) as GuestVirtual;
    Object.assign(state.gdt, { base: word(ApState.gdtBase), limit: view.getUint16(ApState.gdtLimit, true) });
    state.useCalls();
    Object.assign(state.idt, { base: word(ApState.idtBase), limit: view.getUint16(ApState.idtLimit, true) });
    for (const [index, [segment]] of SEGMENTS.entries()) {
      const { selector, descriptor } = segments[index] as LoadedSegment; // one for each
      const [low = 0, high = 0] = descriptor ?? [];
      processor.loadSegment(segment, selector, descriptor && { low, high });
    }
    for (const [register, offset] of REGISTERS) processor.set(register, word(offset), 0);
    processor.flags = (word(ApState.eflags) & FLAGS) | Flag.reserved;
    processor.rip = word(ApState.eip) as GuestVirtual;
    return true;
  }
}

function isSound([cs, ss, ...others]: readonly LoadedSegment[]): boolean {
  const code = descriptorOf(cs);
  const stack = descriptorOf(ss);
  if (!code || !isCode(code) || privilegeOf(code) !== 0 || !stack || !isWritableData(stack)) return false;
  if (((cs?.selector ?? 0) & 3) !== 0 || ((ss?.selector ?? 0) & 3) !== 0 || privilegeOf(stack) !== 0) return false;
  return [cs, ss, ...others].every((segment) => {
    const descriptor = descriptorOf(segment);
    return !descriptor || (isPresent(descriptor) && !isSystem(descriptor));
  });
}

function descriptorOf(segment: LoadedSegment | undefined): Descriptor | undefined {
  if (!segment?.descriptor) return undefined;
  const [low, high] = segment.descriptor;
  return { low, high };
}
