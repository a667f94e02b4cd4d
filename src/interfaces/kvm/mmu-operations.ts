import { PageAbsent } from '../../memory/page-absent.ts';
import type { MicrovmOperations } from '../../microvm/operations.ts';
import { type GuestPhysical, type HostAddress, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Cr4 } from '../../x86/registers.ts';
import { HypercallError } from './abi.ts';
import type { AreaOwner } from './guest-area.ts';

/**
 * KVM_HC_MMU_OP: changes of page tables as records in the guest's memory (Linux 2.6.25 to 2.6.32, asm-x86/kvm_para.h).
 * Hosts offered it where they keep shadows: one call tells of many stores, none of which has to be trapped.
 *
 *   write an entry    u32 1, u32 0, u64 where it is, u64 its value
 *   flush the TLB     u32 2, u32 0
 *   release a table   u32 3, u32 0, u64 where it is
 *
 * A call carries out records until one is left that it cannot, at most 32, and answers how many bytes it has consumed; or
 * an error when it is already the first one. All addresses are guest-physical.
 */
const enum RecordType {
  write = 1,
  flush = 2,
  release = 3,
}

const RECORD_BYTES: Readonly<Record<number, number>> = {
  [RecordType.write]: 24,
  [RecordType.flush]: 8,
  [RecordType.release]: 16,
};

/** Records of one call (KVM_MAX_MMU_OP_BATCH). */
const MOST_RECORDS = 32;
/** Of the type and what pads it. */
const HEAD_BYTES = 8;

/** What a call needs of its domain. */
export interface TableOwner extends AreaOwner {
  readonly operations: {
    readonly mmu: Pick<MicrovmOperations['mmu'], 'setPte' | 'flushTlbUser' | 'releasePt'>;
  };
}

/** The processor that calls. */
export interface Caller {
  readonly index: number;
  readonly processor: { readonly cr4: number };
}

/** @param address of the first record, @param bytes of all of them. @throws PageAbsent before anything was done */
export function carryOutRecords(domain: TableOwner, vcpu: Caller, address: number, bytes: number): number {
  let done = 0;
  for (let record = 0; record < MOST_RECORDS && done < bytes; record++) {
    let result: number;
    try {
      result = carryOut(domain, vcpu, address + done, bytes - done);
    } catch (absent) {
      // What was done is done; the guest goes on with the rest, and meets the page again.
      if (absent instanceof PageAbsent && done > 0) return done;
      throw absent;
    }
    if (result < 0) return done > 0 ? done : result;
    done += result;
  }
  return done;
}

/** Bytes of the record, or an error. */
function carryOut(domain: TableOwner, vcpu: Caller, address: number, left: number): number {
  const word = (offset: number): number => readWord(domain, address + offset);
  const type = left < HEAD_BYTES ? -1 : word(0);
  if (type < 0) return HypercallError.fault;
  const size = RECORD_BYTES[type];
  if (size === undefined || size > left) return HypercallError.invalid;
  const { mmu } = domain.operations;
  const { index } = vcpu;
  if (type === RecordType.flush) {
    mmu.flushTlbUser(index);
    return size;
  }
  const [low, high] = [word(8), word(12)];
  const target = low + high * 0x1_0000_0000;
  if (low < 0 || high < 0 || target >= domain.paging.pages * PAGE_SIZE) return HypercallError.fault;
  const table = Math.floor(target / PAGE_SIZE) as Pfn;
  if (type === RecordType.release) {
    mmu.releasePt(index, table);
    return size;
  }
  const [valueLow, valueHigh] = [word(16), word(20)];
  const entryBytes = (vcpu.processor.cr4 & Cr4.physicalAddressExtension) === 0 ? 4 : 8;
  if (valueLow < 0 || valueHigh < 0 || target % entryBytes !== 0) return HypercallError.invalid;
  const slot = (target % PAGE_SIZE) / entryBytes;
  return mmu.setPte(index, table, slot, valueLow, valueHigh) === 0 ? size : HypercallError.fault;
}

/** An aligned word of guest-physical memory, or −1. @throws PageAbsent */
function readWord({ paging, group }: TableOwner, physical: number): number {
  if (physical % 4 !== 0 || physical >= paging.pages * PAGE_SIZE) return -1;
  const address: HostAddress = paging.addressOf(physical as GuestPhysical);
  return address < 0 ? -1 : group.parts.memory.view.getUint32(address, true);
}
