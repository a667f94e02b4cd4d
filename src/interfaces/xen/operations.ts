import type { Implementation } from '../../ops/catalogue.ts';
import type { OperationsOf } from '../../ops/dispatch.ts';
import { UNKNOWN_TABLE } from '../../ops/schema.ts';
import { UpdateCommand } from '../../paging/direct/direct-paging.ts';
import type { GuestVirtual, Mfn } from '../../x86/brand.ts';
import { Cr0, Cr4 } from '../../x86/registers.ts';
import { cpuid } from './cpuid.ts';
import type { XenDomain } from './domain.ts';
import { Errno } from './errno.ts';
import { raisedSelector } from './guest-abi.ts';
import { returnByFrame } from './kernel-returns.ts';
import { getDebugRegister, loadUserGs, setDebugRegister } from './kernel-state.ts';
import { readMsr, writeMsr } from './msr.ts';
import type { XenVcpu } from './vcpu.ts';

/**
 * The catalogue's operations as a Xen PV domain carries them out. Hypercalls and emulated instructions do nothing of
 * this kind themselves: they turn what the guest asked for into these, by the table in docs/operations.md, and call them
 * on `domain.operations`, where they are counted, traced and checked.
 *
 * An operation on page tables may answer `preempted` (paging/direct/errors.ts): nothing was refused, and the guest
 * asks again; so one that takes long is seen more than once.
 */

/** CR4 bits that a guest sets for itself; the others are the host's. */
const GUEST_CR4 = Cr4.timeStampDisable | Cr4.debuggingExtensions;

/** Where mmu_update finds an entry, by halves. */
const pointerLow = (table: number, index: number): number => ((table << 12) | (index << 3)) >>> 0;
const pointerHigh = (table: number): number => Math.floor(table / 0x10_0000);

export function implementOperations(domain: XenDomain) {
  const { paging, vcpus } = domain;
  const vcpuAt = (index: number) => vcpus[index] as XenVcpu; // operations are called for vCPUs that exist

  const setEntry = (_vcpu: number, table: Mfn, index: number, low: number, high: number): number =>
    paging.mmuUpdate(pointerLow(table, index), pointerHigh(table), low, high);

  function unpin(_vcpu: number, table: Mfn): number {
    return paging.unpin(table);
  }

  function setDescriptor(_vcpu: number, page: Mfn, index: number, low: number, high: number): number {
    return paging.descriptors.update(pointerLow(page, index), pointerHigh(page), low, high);
  }

  return {
    irq: {
      safeHalt(vcpu) {
        if (domain.events.block(vcpu)) domain.block(vcpuAt(vcpu));
      },
      halt: (vcpu) => domain.takeDown(vcpuAt(vcpu)),
    },

    cpu: {
      getDebugreg: (vcpu, register, out) => getDebugRegister(vcpuAt(vcpu), register, out),
      setDebugreg: (vcpu, register, low, high) => setDebugRegister(vcpuAt(vcpu), register, low, high),
      clts(vcpu) {
        const { processor } = vcpuAt(vcpu);
        processor.cr0 = (processor.cr0 & ~Cr0.taskSwitched) >>> 0;
      },
      readCr0: (vcpu) => vcpuAt(vcpu).processor.cr0,
      writeCr0(vcpu, value) {
        const { processor } = vcpuAt(vcpu);
        if (((value ^ processor.cr0) & ~Cr0.taskSwitched) !== 0) return -Errno.EINVAL;
        processor.cr0 = value;
        return 0;
      },
      readCr4: (vcpu) => vcpuAt(vcpu).processor.cr4,
      writeCr4(vcpu, value) {
        const { processor } = vcpuAt(vcpu);
        processor.cr4 = (processor.cr4 & ~GUEST_CR4) | (value & GUEST_CR4);
        return 0;
      },
      loadGdt(vcpu, _base, pages, entries) {
        const result = paging.descriptors.setGdt(vcpu, pages, entries);
        if (result === 0) vcpuAt(vcpu).gdtEntries = entries;
        return result;
      },
      /** Gates are told one by one; an empty table takes all of them back. */
      loadIdt(vcpu, base) {
        if (base === 0) for (const gate of vcpuAt(vcpu).traps) gate.address = 0 as GuestVirtual;
        return 0;
      },
      writeIdtEntry(vcpu, vector, selector, handler, flags) {
        const gate = vcpuAt(vcpu).traps[vector];
        if (!gate) return -Errno.EINVAL;
        gate.address = handler;
        gate.flags = flags;
        gate.selector = raisedSelector(domain.abi, selector);
        return 0;
      },
      setLdt(vcpu, base, entries) {
        const target = vcpuAt(vcpu);
        paging.descriptors.releaseLdt();
        target.ldtBase = base;
        target.ldtEntries = entries;
        return 0;
      },
      storeTr: () => 0,
      loadGsIndex(vcpu, selector) {
        loadUserGs(vcpuAt(vcpu), selector);
        return 0;
      },
      writeLdtEntry: setDescriptor,
      writeGdtEntry: setDescriptor,
      loadSp0(vcpu, segment, stack) {
        const target = vcpuAt(vcpu);
        target.kernelStackSegment = raisedSelector(domain.abi, segment);
        target.kernelStack = stack;
        return 0;
      },
      setIoplMask(vcpu, mask) {
        vcpuAt(vcpu).ioPrivilege = (mask >>> 12) & 3;
        return 0;
      },
      /** No port belongs to the guest, whatever its bitmap says. */
      updateIoBitmap: () => 0,
      wbinvd: () => {},
      ioDelay: () => {},
      cpuid(vcpu, leaf, subleaf, out) {
        out.set(cpuid(leaf, subleaf, vcpu, domain.abi.bits));
      },
      readMsr: (vcpu, register, out) => readMsr(domain, vcpuAt(vcpu), register, out),
      writeMsr: (vcpu, register, low, high) => writeMsr(domain, vcpuAt(vcpu), register, low, high),
      readTsc(_vcpu, out) {
        const tsc = domain.clock.tsc();
        out[0] = tsc >>> 0;
        out[1] = Math.floor(tsc / 0x1_0000_0000) >>> 0;
      },
      iret: (vcpu) => {
        domain.refusedStores.forget(vcpu);
        returnByFrame(vcpuAt(vcpu));
      },
    },

    mmu: {
      readCr2: (vcpu) => vcpuAt(vcpu).processor.cr2,
      writeCr2(vcpu, address) {
        const target = vcpuAt(vcpu);
        target.processor.cr2 = address;
        target.publishCr2();
      },
      readCr3: (vcpu) => paging.root(vcpu),
      writeCr3(vcpu, root, user) {
        const result = user
          ? paging.newUserBasePointer(vcpu, root === UNKNOWN_TABLE ? (0 as Mfn) : root)
          : paging.newBasePointer(vcpu, root);
        if (result === 0) vcpuAt(vcpu).useRoots();
        return result;
      },
      activateMm: (_vcpu, space) => paging.pin(paging.topLevel, space),
      exitMmap: unpin,
      flushTlbUser: (vcpu) => vcpuAt(vcpu).processor.flushTlb(),
      flushTlbSingle: (vcpu, address) => vcpuAt(vcpu).processor.invalidatePage(address),
      flushTlbOthers(_vcpu, targets, _space, address, all) {
        for (const { index, processor } of vcpus) {
          if ((targets & (1 << index)) === 0) continue;
          if (all) processor.flushTlb();
          else processor.invalidatePage(address);
        }
      },
      allocPt: (_vcpu, _space, table) => paging.pin(1, table),
      allocPd: (_vcpu, table) => paging.pin(2, table),
      allocPud: (_vcpu, table) => paging.pin(3, table),
      releasePt: unpin,
      releasePd: unpin,
      releasePud: unpin,
      setPte: setEntry,
      setPteAt: (_vcpu, space, address, _table, _index, low, high) => paging.updateVaMapping(space, address, low, high),
      setPmd: setEntry,
      setPud: setEntry,
      setPgd: setEntry,
      /** The store was carried out before; nothing is derived from an entry. */
      pteUpdate: () => 0,
      ptepModifyProtCommit: (_vcpu, _space, _address, table, index, low, high) =>
        paging.mmuUpdate(
          (pointerLow(table, index) | UpdateCommand.preserveAccessedDirty) >>> 0,
          pointerHigh(table),
          low,
          high,
        ),
    },
  } satisfies Implementation<Mfn>;
}

export type XenOperations = OperationsOf<ReturnType<typeof implementOperations>>;
