import { UNKNOWN_TABLE } from '../../../ops/schema.ts';
import { UPDATE_COMMAND_MASK, UpdateCommand } from '../../../paging/direct/direct-paging.ts';
import { PagingError } from '../../../paging/direct/errors.ts';
import { FrameType } from '../../../paging/direct/frame-types.ts';
import { type GuestVirtual, highWord, joinSigned, type Mfn } from '../../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, frameOfEntry } from '../../../x86/page-table.ts';
import { Pte } from '../../../x86/registers.ts';
import { domainMeant } from '../domain-id.ts';
import { Errno } from '../errno.ts';
import { STRUCTURES_64 } from '../structures.ts';
import { type Call, FAULT, type Handler, INVALID, NOT_IMPLEMENTED, preemption, Special } from './call.ts';

const NO_ADDRESS = 0 as GuestVirtual;

/** Set in a count by a preempted batch: the number that is already done stands at the caller's `done`. */
const CONTINUED = 0x8000_0000;
const REQUEST_BYTES = 16;

/** Requests in one batch before the vCPU may do something else; each is bounded by the paging itself. */
const BATCH_LIMIT = 1024;

const self = (call: Call, id: number): boolean => domainMeant(id, call.domain.id) === 'self';

interface Batch {
  readonly address: number;
  readonly count: number;
  readonly doneAddress: number;
  /** Requests done by earlier parts of a preempted batch. */
  readonly before: number;
}

/** Arguments (list, count, done) that mmu_update and mmuext_op share; null when `done` cannot be read. */
function batchOf(call: Call): Batch | null {
  const count = call.low[1] as number;
  const doneAddress = call.value(2);
  if (doneAddress !== 0) call.prepareWrite(doneAddress, 4);
  let before = 0;
  if ((count & CONTINUED) !== 0 && doneAddress !== 0) {
    const word = call.vcpu.processor.memory.readWord(doneAddress as GuestVirtual);
    if (word < 0) return null;
    before = word;
  }
  return { address: call.value(0), count: (count & ~CONTINUED) >>> 0, doneAddress, before };
}

/** Carries out requests until one ends the batch: `perform` answers 0 to go on. */
function runBatch(call: Call, bytes: number, perform: (address: GuestVirtual) => number): number {
  const foreign = call.low[3] as number;
  if (!self(call, foreign & 0xffff)) return -Errno.ESRCH;
  const batch = batchOf(call);
  if (!batch) return FAULT;
  let result = 0;
  let done = 0;
  try {
    for (; done < batch.count && result === 0; done += result === 0 ? 1 : 0) {
      result = done === BATCH_LIMIT ? Special.preempted : perform((batch.address + done * bytes) as GuestVirtual);
    }
  } catch (absent) {
    endBatch(call, batch, done, bytes, Special.preempted);
    throw absent;
  }
  return endBatch(call, batch, done, bytes, result);
}

/** Ends a batch or one part of it. */
function endBatch(call: Call, batch: Batch, done: number, bytes: number, result: number): number {
  call.domain.flushIfAsked();
  if (batch.doneAddress !== 0 && !call.writeWord(batch.doneAddress, batch.before + done)) return FAULT;
  if (result !== Special.preempted) return result;
  call.setValue(0, batch.address + done * bytes);
  call.setValue(1, ((batch.count - done) | CONTINUED) >>> 0);
  return Special.preempted;
}

const requestScratch = new Uint32Array(REQUEST_BYTES / 4);
const entryScratch = new Uint32Array(2);

const mmuUpdate: Handler = (call) => {
  if ((call.low[3] as number) >>> 16 !== 0) return -Errno.ESRCH;
  const request = requestScratch;
  return runBatch(call, REQUEST_BYTES, (address) => {
    if (!call.vcpu.readWords(address, request)) return FAULT;
    // four words
    return preemption(update(call, request[0]!, request[1]!, request[2]!, request[3]!));
  });
};

/** One request: the operation that sets an entry of the table's level; what is no table's entry is the paging's to judge. */
function update(call: Call, pointerLow: number, pointerHigh: number, low: number, high: number): number {
  const { paging, operations } = call.domain;
  const { mmu } = operations;
  const { index: vcpu } = call.vcpu;
  const table = frameOfEntry(pointerLow, pointerHigh) as Mfn;
  const command = pointerLow & UPDATE_COMMAND_MASK;
  const setsEntry =
    command !== UpdateCommand.machineToPhysical &&
    command <= UpdateCommand.noTranslate &&
    pointerHigh <= ENTRY_FRAME_HIGH;
  if (!setsEntry) return paging.mmuUpdate(pointerLow, pointerHigh, low, high);
  const index = (pointerLow & 0xfff) >>> 3;
  const level = paging.typeOf(table);
  const preserves = command === UpdateCommand.preserveAccessedDirty;
  if (level === FrameType.level1) {
    return preserves
      ? mmu.ptepModifyProtCommit(vcpu, UNKNOWN_TABLE, NO_ADDRESS, table, index, low, high)
      : mmu.setPte(vcpu, table, index, low, high);
  }
  if (level < FrameType.level1 || level > FrameType.level4) {
    return paging.mmuUpdate(pointerLow, pointerHigh, low, high);
  }
  let kept = low;
  if (preserves) {
    // Above level 1 no operation keeps these bits, so the value is made to hold them.
    paging.entries.read(table, index, entryScratch);
    kept = (low | (entryScratch[0]! & (Pte.accessed | Pte.dirty))) >>> 0; // two words
  }
  switch (level) {
    case FrameType.level2:
      return mmu.setPmd(vcpu, table, index, kept, high);
    case FrameType.level3:
      return mmu.setPud(vcpu, table, index, kept, high);
    default:
      return mmu.setPgd(vcpu, table, index, kept, high);
  }
}

const enum VaFlush {
  none = 0,
  all = 1,
  page = 2,
  mask = 3,
  everyVcpu = 4,
}

const updateVaMapping: Handler = (call) => {
  const { domain, vcpu } = call;
  const { paging } = domain;
  const address = call.address(0);
  const root = paging.root(vcpu.index);
  const table = paging.entries.level1TableOf(root, address);
  if (table < 0) return INVALID;
  const index = paging.entries.level1Index(address);
  const low = call.low[1] as number;
  const high = call.high[1] as number;
  const flags = call.value(2);
  const kind = (flags & VaFlush.mask) as VaFlush;
  const vcpus = kind === VaFlush.none ? 0 : vcpusOfFlush(call, flags - kind);
  const result = domain.operations.mmu.setPteAt(vcpu.index, root, address, table, index, low, high);
  if (result === PagingError.preempted) return Special.preempted;
  domain.flushIfAsked();
  if (result !== 0) return result;
  if (vcpus === null) return FAULT;
  if (vcpus !== 0) flush(call, vcpus, address, kind === VaFlush.all);
  return 0;
};

/** The vCPUs whose translations a flush is about; null when the guest's bitmap cannot be read. */
function vcpusOfFlush(call: Call, scope: number): number | null {
  if (scope === 0) return 1 << call.vcpu.index;
  return scope === VaFlush.everyVcpu ? everyVcpu(call) : vcpusIn(call, scope);
}

/** A flush is the caller's own, that of the others, or both. */
function flush(call: Call, vcpus: number, address: GuestVirtual, all: boolean): void {
  const { mmu } = call.domain.operations;
  const { index } = call.vcpu;
  const own = 1 << index;
  if ((vcpus & own) !== 0) {
    if (all) mmu.flushTlbUser(index);
    else mmu.flushTlbSingle(index, address);
  }
  const others = (vcpus & ~own) >>> 0;
  if (others !== 0) mmu.flushTlbOthers(index, others, UNKNOWN_TABLE, address, all);
}

function everyVcpu(call: Call): number {
  return 2 ** call.domain.vcpus.length - 1;
}

/** The vCPUs in a guest's bitmap of longs; null when it cannot be read. */
function vcpusIn(call: Call, address: number): number | null {
  const bytes = call.read(address, Math.ceil(call.domain.vcpus.length / 8));
  if (!bytes) return null;
  const set = bytes.reduceRight((high, byte) => high * 256 + byte, 0);
  return (set & everyVcpu(call)) >>> 0;
}

const enum Extended {
  pinLevel1 = 0,
  pinLevel2 = 1,
  pinLevel3 = 2,
  pinLevel4 = 3,
  unpin = 4,
  newBasePointer = 5,
  flushLocal = 6,
  invalidateLocal = 7,
  flushMulti = 8,
  invalidateMulti = 9,
  flushAll = 10,
  invalidateAll = 11,
  flushCache = 12,
  setLdt = 13,
  newUserBasePointer = 15,
  clearPage = 16,
  copyPage = 17,
  flushCacheGlobal = 18,
  markSuper = 19,
  unmarkSuper = 20,
}

const LDT_LIMIT = 8192;

function extendedOperation(call: Call, command: number, first: number, second: number, mfn: Mfn): number {
  const { domain } = call;
  const { paging } = domain;
  const { mmu, cpu } = domain.operations;
  const { index: vcpu } = call.vcpu;
  switch (command) {
    case Extended.pinLevel1:
    case Extended.pinLevel2:
    case Extended.pinLevel3:
    case Extended.pinLevel4:
      return pin(call, command + 1, mfn);
    case Extended.unpin:
      return unpin(call, mfn);
    case Extended.newBasePointer:
      return mmu.writeCr3(vcpu, mfn, false, false);
    case Extended.newUserBasePointer:
      // Kernel and programs of a 32-bit guest share their tables.
      if (call.abi.bits === 32) return INVALID;
      return mmu.writeCr3(vcpu, mfn === 0 ? UNKNOWN_TABLE : mfn, true, false);
    case Extended.flushLocal:
      mmu.flushTlbUser(vcpu);
      return 0;
    case Extended.invalidateLocal:
      mmu.flushTlbSingle(vcpu, first as GuestVirtual);
      return 0;
    case Extended.flushMulti:
    case Extended.invalidateMulti: {
      const named = vcpusIn(call, second);
      if (named === null) return FAULT;
      flush(call, named, first as GuestVirtual, command === Extended.flushMulti);
      return 0;
    }
    case Extended.flushAll:
    case Extended.invalidateAll:
      flush(call, everyVcpu(call), first as GuestVirtual, command === Extended.flushAll);
      return 0;
    case Extended.flushCache:
    case Extended.flushCacheGlobal:
      return 0;
    case Extended.setLdt: {
      const entries = second;
      if (entries < 0 || entries > LDT_LIMIT || (first & 0xfff) !== 0) return INVALID;
      return cpu.setLdt(vcpu, first as GuestVirtual, entries);
    }
    case Extended.clearPage:
      return paging.clearPage(mfn);
    case Extended.copyPage:
      return second < 0 ? INVALID : paging.copyPage(mfn, second as Mfn);
    case Extended.markSuper:
    case Extended.unmarkSuper:
      return -Errno.EOPNOTSUPP;
    default:
      return NOT_IMPLEMENTED;
  }
}

/** The operation is that of the table's level; the top table's is that of its address space. */
function pin(call: Call, level: number, mfn: Mfn): number {
  const { mmu } = call.domain.operations;
  const { index: vcpu } = call.vcpu;
  const { topLevel } = call.domain.paging;
  // There is no such level in a 32-bit guest, and nobody has ever been told.
  if (level > topLevel) return 0;
  if (level === topLevel) return mmu.activateMm(vcpu, mfn);
  switch (level as FrameType) {
    case FrameType.level1:
      return mmu.allocPt(vcpu, UNKNOWN_TABLE, mfn);
    case FrameType.level2:
      return mmu.allocPd(vcpu, mfn);
    default:
      return mmu.allocPud(vcpu, mfn);
  }
}

/** The same of a table's level; what is no table was not pinned, which the paging says. */
function unpin(call: Call, mfn: Mfn): number {
  const { paging, operations } = call.domain;
  const { index: vcpu } = call.vcpu;
  const type = paging.typeOf(mfn);
  if (type === paging.topLevel) return operations.mmu.exitMmap(vcpu, mfn);
  switch (type) {
    case FrameType.level1:
      return operations.mmu.releasePt(vcpu, mfn);
    case FrameType.level2:
      return operations.mmu.releasePd(vcpu, mfn);
    case FrameType.level3:
      return operations.mmu.releasePud(vcpu, mfn);
    default:
      return paging.unpin(mfn);
  }
}

const extendedScratch = new Uint32Array(STRUCTURES_64.mmuExtended.size / 4);

const mmuExtendedOperation: Handler = (call) => {
  const { longSize, structures } = call.abi;
  const layout = structures.mmuExtended;
  const words = extendedScratch.subarray(0, layout.size / 4);
  const long = (at: number) => {
    const low = words[at / 4]!; // the layout's own offset
    return longSize === 8 ? joinSigned(low, words[at / 4 + 1]!) : low;
  };
  return runBatch(call, layout.size, (address) => {
    if (!call.vcpu.readWords(address, words)) return FAULT;
    const first = long(layout.first);
    const mfn = (highWord(first) === 0 ? first : 0xffff_ffff) as Mfn;
    return preemption(extendedOperation(call, words[0]!, first, long(layout.second), mfn)); // never empty
  });
};

export const MMU_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [1, mmuUpdate],
  [14, updateVaMapping],
  [26, mmuExtendedOperation],
];
