import {
  readDebugRegister,
  writeCr0,
  writeCr3,
  writeCr4,
  writeDebugRegister,
} from '../cpu/protection/control-registers.ts';
import type { Implementation } from '../ops/catalogue.ts';
import type { OperationsOf } from '../ops/dispatch.ts';
import { type GuestPhysical, highWord, lowWord, PAGE_SIZE, type Pfn } from '../x86/brand.ts';
import { Cr0, Cr4 } from '../x86/registers.ts';
import type { MicrovmDomain } from './domain.ts';
import { readMsr, writeMsr } from './msr.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/**
 * The catalogue's operations as a guest of a microVM reaches them: by the instructions that a kernel on hardware uses.
 * What generated code does by itself (interrupt flag, SWAPGS, writes of page tables) is no operation here.
 */

/** Refused: the guest gets #GP. */
const REFUSED = -1;

const status = (accepted: boolean): number => (accepted ? 0 : REFUSED);

export function implementOperations(domain: MicrovmDomain) {
  const { vcpus } = domain;
  const vcpuAt = (index: number) => vcpus[index] as MicrovmVcpu; // operations are called for vCPUs that exist

  const entryBytes = ({ processor }: MicrovmVcpu): 4 | 8 =>
    (processor.cr4 & Cr4.physicalAddressExtension) === 0 ? 4 : 8;

  /** The guest will tell what it changes in a table. */
  const announce = (vcpu: number, table: Pfn, level: 1 | 2): number => {
    domain.paging.shadow?.announce(table);
    domain.interface.tables?.announce(vcpu, table, level);
    return 0;
  };

  /** What is kept of other pages goes when they are written to or walked as something else. */
  const retract = (table: Pfn): number => {
    domain.paging.shadow?.retract(table);
    domain.interface.tables?.retract(table);
    return 0;
  };

  /** A store by the host; whoever keeps a second form of the table is told. @throws PageAbsent */
  const writeEntry = (vcpu: MicrovmVcpu, table: Pfn, index: number, low: number, high: number): boolean => {
    const { paging, group } = domain;
    const bytes = entryBytes(vcpu);
    const address = paging.addressOf((table * PAGE_SIZE + index * bytes) as GuestPhysical);
    if (address < 0) return false;
    const { memory, pool } = group.parts;
    memory.view.setUint32(address, low, true);
    if (bytes === 8) memory.view.setUint32(address + 4, high, true);
    group.frameWritten(pool.frameAt(address), address % PAGE_SIZE, bytes);
    return true;
  };

  const stop = (vcpu: number): void => {
    vcpuAt(vcpu).halted = true;
  };

  return {
    irq: {
      safeHalt: stop,
      halt: stop,
    },

    cpu: {
      getDebugreg: (vcpu, register, out) => readDebugRegister(vcpuAt(vcpu).state, register, out),
      setDebugreg: (vcpu, register, low, high) => status(writeDebugRegister(vcpuAt(vcpu).state, register, low, high)),
      clts(vcpu) {
        const { processor } = vcpuAt(vcpu);
        processor.cr0 = (processor.cr0 & ~Cr0.taskSwitched) >>> 0;
      },
      readCr0: (vcpu) => vcpuAt(vcpu).processor.cr0,
      writeCr0: (vcpu, value) => status(writeCr0(vcpuAt(vcpu).state, value, 0)),
      readCr4: (vcpu) => vcpuAt(vcpu).processor.cr4,
      writeCr4: (vcpu, value) => status(writeCr4(vcpuAt(vcpu).state, value, 0)),
      wbinvd: () => {},
      ioDelay: () => {},
      cpuid: (vcpu, leaf, subleaf, out) => out.set(domain.interface.cpuid(leaf, subleaf, vcpu)),
      readMsr: (vcpu, register, out) => status(readMsr(domain, vcpuAt(vcpu), register, out)),
      writeMsr: (vcpu, register, low, high) => status(writeMsr(domain, vcpuAt(vcpu), register, low, high)),
      readTsc(_vcpu, out) {
        const tsc = domain.clock.tsc();
        out[0] = lowWord(tsc);
        out[1] = highWord(tsc);
      },
    },

    apic: {
      apicWrite: (vcpu, register, value) => vcpuAt(vcpu).apic.write(register, 4, value),
      apicRead: (vcpu, register) => vcpuAt(vcpu).apic.read(register) >>> 0,
    },

    mmu: {
      readCr2: (vcpu) => vcpuAt(vcpu).processor.cr2,
      writeCr2(vcpu, address) {
        vcpuAt(vcpu).processor.cr2 = address;
      },
      readCr3: (vcpu) => Math.floor(vcpuAt(vcpu).state.cr3 / PAGE_SIZE) as Pfn,
      writeCr3(vcpu, root, _user, keep) {
        const { state, cr3Low } = vcpuAt(vcpu);
        return status(writeCr3(state, root * PAGE_SIZE + cr3Low, keep));
      },
      flushTlbSingle: (vcpu, address) => vcpuAt(vcpu).processor.invalidatePage(address),
      flushTlbUser(vcpu) {
        const { state } = vcpuAt(vcpu);
        writeCr3(state, state.cr3);
      },
      setPte(vcpu, table, index, low, high) {
        const { tables } = domain.interface;
        return tables
          ? tables.setEntry(vcpu, table, index, low, high)
          : status(writeEntry(vcpuAt(vcpu), table, index, low, high));
      },
      flushTlbKernel: (vcpu) => vcpuAt(vcpu).processor.flushTlb(),
      allocPt: (vcpu, _space, table) => announce(vcpu, table, 1),
      allocPd: (vcpu, table) => announce(vcpu, table, 2),
      releasePt: (_vcpu, table) => retract(table),
      releasePd: (_vcpu, table) => retract(table),
      pteUpdate(vcpu, _space, _address, table, index) {
        const bytes = entryBytes(vcpuAt(vcpu));
        domain.paging.shadow?.told(table, index * bytes, bytes);
        return 0;
      },
    },
  } satisfies Implementation<Pfn>;
}

export type MicrovmOperations = OperationsOf<ReturnType<typeof implementOperations>>;
