import { Access } from '../../../cpu/exits.ts';
import { PagingError } from '../../../paging/direct/errors.ts';
import type { GuestVirtual, Mfn } from '../../../x86/brand.ts';
import { domainMeant } from '../domain-id.ts';
import { Errno } from '../errno.ts';
import { type Call, FAULT, type Handler, INVALID, longAt, NOT_IMPLEMENTED, Special } from './call.ts';

/** Set in a count by a preempted batch: the number that is already done stands at the caller's `done`. */
const CONTINUED = 0x8000_0000;
const REQUEST_BYTES = 16;
const EXTENDED_BYTES = 24;

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
  let before = 0;
  if ((count & CONTINUED) !== 0 && doneAddress !== 0) {
    const word = call.vcpu.processor.memory.readWord(doneAddress as GuestVirtual);
    if (word < 0) return null;
    before = word;
  }
  return { address: call.value(0), count: (count & ~CONTINUED) >>> 0, doneAddress, before };
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

const mmuUpdate: Handler = (call) => {
  const { paging } = call.domain;
  const foreign = call.low[3] as number;
  if (!self(call, foreign & 0xffff) || foreign >>> 16 !== 0) return -Errno.ESRCH;
  const batch = batchOf(call);
  if (!batch) return FAULT;
  const { u32 } = call.domain.memory;
  let result = 0;
  let done = 0;
  for (; done < batch.count; done++) {
    if (done === BATCH_LIMIT) {
      result = Special.preempted;
      break;
    }
    const address = batch.address + done * REQUEST_BYTES;
    const pointer = call.pointer(address, REQUEST_BYTES, Access.read);
    let request: readonly [number, number, number, number];
    if (pointer >= 0 && (pointer & 3) === 0) {
      const word = pointer >> 2;
      request = [u32[word]!, u32[word + 1]!, u32[word + 2]!, u32[word + 3]!]; // inside the page
    } else {
      const view = call.view(address, REQUEST_BYTES);
      if (!view) {
        result = FAULT;
        break;
      }
      request = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true), view.getUint32(12, true)];
    }
    result = paging.mmuUpdate(request[0], request[1], request[2], request[3]);
    if (result !== 0) break;
  }
  return endBatch(call, batch, done, REQUEST_BYTES, preemption(result));
};

function preemption(result: number): number {
  return result === PagingError.preempted ? Special.preempted : result;
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
  const address = call.address(0);
  const result = domain.paging.updateVaMapping(
    domain.paging.root(vcpu.index),
    address,
    call.low[1] as number,
    call.high[1] as number,
  );
  if (result === PagingError.preempted) return Special.preempted;
  domain.flushIfAsked();
  if (result !== 0) return result;
  return flushVaMapping(call, address, call.value(2));
};

function flushVaMapping(call: Call, address: GuestVirtual, flags: number): number {
  const kind = (flags & VaFlush.mask) as VaFlush;
  if (kind === VaFlush.none) return 0;
  const scope = flags - (flags & VaFlush.mask);
  let vcpus = [call.vcpu.index];
  if (scope === VaFlush.everyVcpu) vcpus = call.domain.allVcpus();
  else if (scope !== 0) {
    const named = vcpusIn(call, scope);
    if (!named) return FAULT;
    vcpus = named;
  }
  for (const index of vcpus) {
    const processor = call.domain.vcpus[index]?.processor;
    if (kind === VaFlush.all) processor?.flushTlb();
    else processor?.invalidatePage(address);
  }
  return 0;
}

/** The vCPUs in a guest's bitmap of longs; null when it cannot be read. */
function vcpusIn(call: Call, address: number): number[] | null {
  const bytes = call.read(address, Math.ceil(call.domain.vcpus.length / 8));
  if (!bytes) return null;
  return call.domain.allVcpus().filter((index) => ((bytes[index >> 3] ?? 0) & (1 << (index & 7))) !== 0);
}

const enum Extended {
  pinLevel1 = 0,
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
  const { domain, vcpu } = call;
  const { paging } = domain;
  switch (command) {
    case 0:
    case 1:
    case 2:
    case 3:
      return paging.pin((command + 1) as 1 | 2 | 3 | 4, mfn);
    case Extended.unpin:
      return paging.unpin(mfn);
    case Extended.newBasePointer: {
      const result = paging.newBasePointer(vcpu.index, mfn);
      if (result === 0) vcpu.useRoots();
      return result;
    }
    case Extended.newUserBasePointer: {
      const result = paging.newUserBasePointer(vcpu.index, mfn);
      if (result === 0) vcpu.useRoots();
      return result;
    }
    case Extended.flushLocal:
      vcpu.processor.flushTlb();
      return 0;
    case Extended.invalidateLocal:
      vcpu.processor.invalidatePage(first as GuestVirtual);
      return 0;
    case Extended.flushMulti:
    case Extended.invalidateMulti: {
      const named = vcpusIn(call, second);
      if (!named) return FAULT;
      for (const index of named) {
        const processor = domain.vcpus[index]?.processor;
        if (command === Extended.flushMulti) processor?.flushTlb();
        else processor?.invalidatePage(first as GuestVirtual);
      }
      return 0;
    }
    case Extended.flushAll:
      for (const { processor } of domain.vcpus) processor.flushTlb();
      return 0;
    case Extended.invalidateAll:
      for (const { processor } of domain.vcpus) processor.invalidatePage(first as GuestVirtual);
      return 0;
    case Extended.flushCache:
    case Extended.flushCacheGlobal:
      return 0;
    case Extended.setLdt: {
      const entries = second;
      if (entries < 0 || entries > LDT_LIMIT || (first & 0xfff) !== 0) return INVALID;
      paging.releaseLdt();
      vcpu.ldtBase = first as GuestVirtual;
      vcpu.ldtEntries = entries;
      return 0;
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

const mmuExtendedOperation: Handler = (call) => {
  const foreign = call.low[3] as number;
  if (!self(call, foreign & 0xffff)) return -Errno.ESRCH;
  const batch = batchOf(call);
  if (!batch) return FAULT;
  let result = 0;
  let done = 0;
  for (; done < batch.count; done++) {
    if (done === BATCH_LIMIT) {
      result = Special.preempted;
      break;
    }
    const view = call.view(batch.address + done * EXTENDED_BYTES, EXTENDED_BYTES);
    if (!view) {
      result = FAULT;
      break;
    }
    const first = longAt(view, 8);
    const mfn = (view.getUint32(12, true) === 0 ? view.getUint32(8, true) : 0xffff_ffff) as Mfn;
    result = preemption(extendedOperation(call, view.getUint32(0, true), first, longAt(view, 16), mfn));
    if (result !== 0) break;
  }
  return endBatch(call, batch, done, EXTENDED_BYTES, result);
};

export const MMU_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [1, mmuUpdate],
  [14, updateVaMapping],
  [26, mmuExtendedOperation],
];
