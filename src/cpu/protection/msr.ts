import { type GuestVirtual, highWord, isCanonical, joinSigned, lowWord } from '../../x86/brand.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { writeEfer } from './control-registers.ts';
import type { SystemState } from './system-state.ts';

/** Model-specific registers of protection and memory types (SDM vol. 4, table 2-2). */
export const enum SystemMsr {
  sysenterSelector = 0x174,
  sysenterStack = 0x175,
  sysenterEntry = 0x176,
  pat = 0x277,
  efer = 0xc000_0080,
  star = 0xc000_0081,
  syscallEntry = 0xc000_0082,
  compatibilityEntry = 0xc000_0083,
  syscallMask = 0xc000_0084,
  fsBase = 0xc000_0100,
  gsBase = 0xc000_0101,
  inactiveGsBase = 0xc000_0102,
  timeStampAuxiliary = 0xc000_0103,
}

interface Access {
  read(state: SystemState, out: Uint32Array): void;
  /** False for a value that raises #GP. */
  write(state: SystemState, low: number, high: number): boolean;
}

/** A register that holds a canonical address. */
function address(
  read: (state: SystemState) => GuestVirtual,
  write: (state: SystemState, value: GuestVirtual) => void,
): Access {
  return {
    read(state, out) {
      const value = read(state);
      out[0] = lowWord(value);
      out[1] = highWord(value);
    },
    write(state, low, high) {
      if (!isCanonical(high)) return false;
      write(state, joinSigned(low, high) as GuestVirtual);
      return true;
    },
  };
}

/** A register of 32 bits. */
function word(
  read: (state: SystemState) => number,
  write: (state: SystemState, value: number) => void,
  limit = 0xffff_ffff,
): Access {
  return {
    read(state, out) {
      out[0] = read(state);
      out[1] = 0;
    },
    write(state, low, high) {
      if (high !== 0 || low > limit) return false;
      write(state, low);
      return true;
    },
  };
}

/** Memory types that a field of the PAT can name (SDM vol. 3A, table 12-10). */
const MEMORY_TYPES: ReadonlySet<number> = new Set([0, 1, 4, 5, 6, 7]);

function isPat(half: number): boolean {
  for (let shift = 0; shift < 32; shift += 8) if (!MEMORY_TYPES.has((half >>> shift) & 0xff)) return false;
  return true;
}

const REGISTERS: ReadonlyMap<number, Access> = new Map<SystemMsr, Access>([
  [
    SystemMsr.sysenterSelector,
    word(
      (state) => state.sysenterSelector,
      (state, value) => {
        state.sysenterSelector = value;
      },
    ),
  ],
  [
    SystemMsr.sysenterStack,
    address(
      (state) => state.sysenterStack,
      (state, value) => {
        state.sysenterStack = value;
      },
    ),
  ],
  [
    SystemMsr.sysenterEntry,
    address(
      (state) => state.sysenterEntry,
      (state, value) => {
        state.sysenterEntry = value;
      },
    ),
  ],
  [
    SystemMsr.pat,
    {
      read: (state, out) => out.set(state.pat),
      write(state, low, high) {
        if (!isPat(low) || !isPat(high)) return false;
        state.pat[0] = low;
        state.pat[1] = high;
        return true;
      },
    },
  ],
  [
    SystemMsr.efer,
    {
      read(state, out) {
        out[0] = state.processor.efer;
        out[1] = 0;
      },
      write: writeEfer,
    },
  ],
  [
    SystemMsr.star,
    {
      read: (state, out) => out.set(state.star),
      write(state, low, high) {
        state.star[0] = low;
        state.star[1] = high;
        return true;
      },
    },
  ],
  [
    SystemMsr.syscallEntry,
    address(
      (state) => state.syscallEntry,
      (state, value) => {
        state.syscallEntry = value;
      },
    ),
  ],
  [
    SystemMsr.compatibilityEntry,
    address(
      (state) => state.compatibilityEntry,
      (state, value) => {
        state.compatibilityEntry = value;
      },
    ),
  ],
  [
    SystemMsr.syscallMask,
    word(
      (state) => state.syscallMask,
      (state, value) => {
        state.syscallMask = value;
      },
    ),
  ],
  [
    SystemMsr.fsBase,
    address(
      ({ processor }) => processor.segmentBase(SegmentRegister.fs),
      ({ processor }, value) => processor.setSegmentBase(SegmentRegister.fs, value),
    ),
  ],
  [
    SystemMsr.gsBase,
    address(
      ({ processor }) => processor.segmentBase(SegmentRegister.gs),
      ({ processor }, value) => processor.setSegmentBase(SegmentRegister.gs, value),
    ),
  ],
  [
    SystemMsr.inactiveGsBase,
    address(
      ({ processor }) => processor.inactiveGsBase,
      ({ processor }, value) => {
        processor.inactiveGsBase = value;
      },
    ),
  ],
  [
    SystemMsr.timeStampAuxiliary,
    word(
      (state) => state.timeStampAuxiliary,
      (state, value) => {
        state.timeStampAuxiliary = value;
      },
    ),
  ],
]);

/** Those that SYSCALL and SYSRET depend on. */
const CALL_REGISTERS: ReadonlySet<number> = new Set<SystemMsr>([
  SystemMsr.efer,
  SystemMsr.star,
  SystemMsr.syscallEntry,
  SystemMsr.syscallMask,
]);

/** @returns false when the register is none of these */
export function readSystemMsr(state: SystemState, register: number, out: Uint32Array): boolean {
  const access = REGISTERS.get(register);
  access?.read(state, out);
  return access !== undefined;
}

/** @returns undefined when the register is none of these, false for a value that it cannot have */
export function writeSystemMsr(state: SystemState, register: number, low: number, high: number): boolean | undefined {
  const isWritten = REGISTERS.get(register)?.write(state, low, high);
  if (CALL_REGISTERS.has(register)) state.useCalls();
  return isWritten;
}
