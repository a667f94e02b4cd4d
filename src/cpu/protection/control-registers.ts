import { PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Efer } from '../../x86/registers.ts';
import type { SystemState } from './system-state.ts';

/** What may be written to control and debug registers, and what comes of it (SDM vol. 3A, 2.5 and 10.8.5). */

const CR0_BITS =
  (Cr0.protection |
    Cr0.monitorCoprocessor |
    Cr0.emulation |
    Cr0.taskSwitched |
    Cr0.extensionType |
    Cr0.numericError |
    Cr0.writeProtect |
    Cr0.alignmentMask |
    Cr0.notWriteThrough |
    Cr0.cacheDisable |
    Cr0.paging) >>>
  0;

/** The features that CPUID reports. */
const CR4_BITS =
  Cr4.timeStampDisable |
  Cr4.debuggingExtensions |
  Cr4.pageSizeExtensions |
  Cr4.physicalAddressExtension |
  Cr4.globalPages |
  Cr4.performanceCounters |
  Cr4.fxsave |
  Cr4.simdExceptions |
  Cr4.fsgsbase |
  Cr4.processContexts;

const EFER_BITS = Efer.syscall | Efer.longModeEnable | Efer.noExecute;

/** Bits of CR3 above the physical addresses that CPUID reports. */
const CR3_LIMIT = 2 ** 40;

/**
 * Walks what the registers say. Where that must wait, they are put back: the instruction is executed again, and is to find
 * the change still to be made. @throws PageAbsent, DomainCrash
 */
function useTables(state: SystemState, putBack: () => void, keep = false): void {
  try {
    state.usePaging(keep);
  } catch (error) {
    putBack();
    throw error;
  }
}

/** @returns false for a value that raises #GP; nothing has changed then. @throws PageAbsent as before, DomainCrash */
export function writeCr0(state: SystemState, low: number, high: number): boolean {
  const { processor } = state;
  const value = ((low & CR0_BITS) | Cr0.extensionType) >>> 0;
  const paging = (value & Cr0.paging) !== 0;
  if (high !== 0 || (paging && (value & Cr0.protection) === 0)) return false;
  if ((value & Cr0.notWriteThrough) !== 0 && (value & Cr0.cacheDisable) === 0) return false;
  const { cr0, efer } = processor;
  const changed = value ^ cr0;
  if ((changed & Cr0.paging) !== 0) {
    const enabled = (efer & Efer.longModeEnable) !== 0;
    if (enabled && paging && (processor.cr4 & Cr4.physicalAddressExtension) === 0) return false;
    if (!paging && (processor.codeSize === 64 || (processor.cr4 & Cr4.processContexts) !== 0)) return false;
    const active = enabled && paging ? Efer.longModeActive : 0;
    processor.efer = (efer & ~Efer.longModeActive) | active;
  }
  processor.cr0 = value;
  if ((changed & Cr0.paging) !== 0) useTables(state, () => void Object.assign(processor, { cr0, efer }));
  else if ((changed & Cr0.writeProtect) !== 0) processor.flushTlb();
  return true;
}

/** The low four bits of the machine status word; protection stays on. */
export function loadMachineStatus(state: SystemState, word: number): boolean {
  const { cr0 } = state.processor;
  const bits = Cr0.monitorCoprocessor | Cr0.emulation | Cr0.taskSwitched;
  return writeCr0(state, ((cr0 & ~bits) | (word & (bits | Cr0.protection))) >>> 0, 0);
}

/** @param keep whether what the TLB holds of the root's process context still is good, and stays */
export function writeCr3(state: SystemState, value: number, keep = false): boolean {
  if (value < 0 || value >= CR3_LIMIT) return false;
  const { cr3 } = state;
  state.cr3 = value;
  useTables(
    state,
    () => {
      state.cr3 = cr3;
    },
    keep,
  );
  return true;
}

export function writeCr4(state: SystemState, low: number, high: number): boolean {
  const { processor } = state;
  if (high !== 0 || (low & ~CR4_BITS) !== 0) return false;
  if (state.longMode && (low & Cr4.physicalAddressExtension) === 0) return false;
  const { cr4 } = processor;
  const changed = low ^ cr4;
  const usesContexts = (low & Cr4.processContexts) !== 0;
  const beginsContexts = usesContexts && (changed & Cr4.processContexts) !== 0;
  const endsContexts = !usesContexts && (changed & Cr4.processContexts) !== 0;
  if (usesContexts && !state.longMode) return false;
  if (beginsContexts && state.cr3 % PAGE_SIZE !== 0) return false;
  processor.cr4 = low;
  if (endsContexts || (changed & Cr4.physicalAddressExtension) !== 0) {
    useTables(state, () => {
      processor.cr4 = cr4;
    });
  }
  if (endsContexts || (changed & (Cr4.globalPages | Cr4.pageSizeExtensions)) !== 0) processor.flushTlb();
  return true;
}

export function writeEfer(state: SystemState, low: number, high: number): boolean {
  const { processor } = state;
  if (high !== 0 || (low & ~(EFER_BITS | Efer.longModeActive)) !== 0) return false;
  const changed = low ^ processor.efer;
  if ((changed & Efer.longModeEnable) !== 0 && (processor.cr0 & Cr0.paging) !== 0) return false;
  // Whether long mode is active is the processor's to say.
  processor.efer = (low & EFER_BITS) | (processor.efer & Efer.longModeActive);
  if ((changed & Efer.noExecute) !== 0) processor.flushTlb();
  return true;
}

/** DR4 and DR5 are other names of DR6 and DR7 unless debugging extensions are on; then they do not exist. */
export function hasDebugRegister(state: SystemState, register: number): boolean {
  if (register === 4 || register === 5) return (state.processor.cr4 & Cr4.debuggingExtensions) === 0;
  return register <= 7;
}

/** Where a register that exists stands. */
function debugSlot(register: number): number {
  return register === 4 || register === 5 ? register + 2 : register;
}

export function readDebugRegister(state: SystemState, register: number, out: Uint32Array): void {
  const slot = debugSlot(register);
  out[0] = state.debug[slot * 2] as number;
  out[1] = state.debug[slot * 2 + 1] as number;
}

const DR6_FIXED = 0xffff_0ff0;
const DR6_BITS = 0xe00f;
const DR7_FIXED = 0x400;
const DR7_BITS = 0xffff_2bff;

/** @returns false for a value that raises #GP */
export function writeDebugRegister(state: SystemState, register: number, low: number, high: number): boolean {
  const slot = debugSlot(register);
  if (slot >= 6 && high !== 0) return false;
  const value = slot === 6 ? (low & DR6_BITS) | DR6_FIXED : slot === 7 ? (low & DR7_BITS) | DR7_FIXED : low;
  state.debug[slot * 2] = value >>> 0;
  state.debug[slot * 2 + 1] = high;
  return true;
}
