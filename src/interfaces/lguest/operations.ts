import type { Implementation } from '../../ops/catalogue.ts';
import type { OperationsOf } from '../../ops/dispatch.ts';
import { PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Cr0 } from '../../x86/registers.ts';
import { TLS_FIRST } from './abi.ts';
import type { LguestDomain } from './domain.ts';

/**
 * The catalogue's operations as hypercalls reach them. Page tables are the guest's: it has stored what it tells of, and
 * what remains to be done is to forget what processors have kept.
 */
const REFUSED = -1;

export function implementOperations(domain: LguestDomain) {
  const { vcpu } = domain;
  const { processor, state, tables } = vcpu;

  const flushAll = (): number => {
    processor.flushTlb();
    return 0;
  };

  return {
    irq: {
      safeHalt() {
        vcpu.halted = true;
      },
    },

    cpu: {
      clts() {
        vcpu.taskSwitched = false;
      },
      writeCr0(_vcpu, value) {
        vcpu.taskSwitched = (value & Cr0.taskSwitched) !== 0;
        return 0;
      },
      loadTls: (_vcpu, a, b, c, d, e, f) => {
        [a, c, e].forEach((low, entry) => {
          tables.setDescriptor(TLS_FIRST + entry, low, [b, d, f][entry] as number); // three of each
        });
        return 0;
      },
      writeGdtEntry: (_vcpu, _page, index, low, high) => (tables.setDescriptor(index, low, high) ? 0 : REFUSED),
      writeIdtEntry(_vcpu, vector, _selector, handler, flags) {
        tables.setGate(vector, handler, flags);
        return 0;
      },
      loadSp0(_vcpu, segment, stack) {
        vcpu.stackSelector = segment;
        vcpu.stackPointer = stack;
        return 0;
      },
    },

    misc: {
      // The ring is empty whenever a call is carried out.
      flushLazyMode: () => 0,
    },

    mmu: {
      writeCr3(_vcpu, root) {
        vcpu.loadRoot(root * PAGE_SIZE + vcpu.rootLow);
        return 0;
      },
      flushTlbUser: () => void flushAll(),
      flushTlbKernel: () => void flushAll(),
      /** Addresses of the kernel are alike in all spaces; of other spaces than the one in use nothing is kept. */
      setPteAt(_vcpu, space, address) {
        const isInUse = space === Math.floor(state.cr3 / PAGE_SIZE);
        if (isInUse || address >= domain.kernelAddress) processor.invalidatePage(address);
        return 0;
      },
      setPmd: flushAll,
      setPud: flushAll,
    },
  } satisfies Implementation<Pfn>;
}

export type LguestOperations = OperationsOf<ReturnType<typeof implementOperations>>;
