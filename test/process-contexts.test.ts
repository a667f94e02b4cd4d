import { beforeEach, describe, expect, test } from 'vitest';
import { writeCr0, writeCr3, writeCr4 } from '../src/cpu/protection/control-registers.ts';
import { SystemState } from '../src/cpu/protection/system-state.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Cr4, Efer } from '../src/x86/registers.ts';
import { INTERPRETER } from './region-machine.ts';
import { CODE, DATA, TestMachine } from './system-machine.ts';

/** CR4.PCIDE, and what CR3 says with it (SDM vol. 3A, 2.5 and 4.10.1). */

let machine: TestMachine;
let state: SystemState;

const cr4 = (more = 0): number => Cr4.physicalAddressExtension | Cr4.fxsave | Cr4.globalPages | more;
/** CR3 for a context. */
const root = (context: number): number => machine.root * PAGE_SIZE + context;
const fillsOf = (address: number): number => {
  const { memory } = machine.processor;
  const { fills } = memory.tlbCounters;
  memory.translate(address as GuestVirtual, 0);
  return memory.tlbCounters.fills - fills;
};

beforeEach(() => {
  // With little room for code there is room for more than one TLB.
  machine = new TestMachine('four-level', 0, { ...INTERPRETER, codeBytes: 1 << 20, tlbEntries: 64 });
  machine.map(DATA, machine.allocate());
  const { processor } = machine;
  const { translation } = processor;
  state = new SystemState(processor, {
    none: { ...translation, format: 'none' },
    'two-level': translation,
    pae: translation,
    'four-level': translation,
  });
  processor.efer = Efer.longModeEnable | Efer.longModeActive;
  processor.cr0 = Cr0.protection | Cr0.paging;
  writeCr4(state, cr4(), 0);
  writeCr3(state, root(0));
});

describe('process contexts', () => {
  test('begin only in context 0, in long mode', () => {
    writeCr3(state, root(0x18));
    expect(writeCr4(state, cr4(Cr4.processContexts), 0)).toBe(false);
    expect(machine.processor.cr4).toBe(cr4());
    writeCr3(state, root(0));
    machine.processor.efer = 0;
    expect(writeCr4(state, cr4(Cr4.processContexts), 0)).toBe(false);
    machine.processor.efer = Efer.longModeEnable | Efer.longModeActive;
    expect(writeCr4(state, cr4(Cr4.processContexts), 0)).toBe(true);
  });

  test('are named by CR3 while they are on', () => {
    writeCr3(state, root(0x18));
    expect(state.processContext).toBe(0);
    writeCr3(state, root(0));
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(0xabc));
    expect(state.processContext).toBe(0xabc);
    expect(machine.processor.memory.translate(CODE as GuestVirtual, 0)).toBeGreaterThan(0);
  });

  test('keep translations apart', () => {
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(1));
    expect(fillsOf(DATA)).toBe(1);
    writeCr3(state, root(2));
    expect(fillsOf(DATA)).toBe(1);
    writeCr3(state, root(1), true);
    expect(fillsOf(DATA)).toBe(0);
    writeCr3(state, root(2));
    expect(fillsOf(DATA)).toBe(1);
  });

  test('end with all translations gone', () => {
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(1));
    fillsOf(DATA);
    writeCr3(state, root(0));
    writeCr4(state, cr4(), 0);
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(1), true);
    expect(fillsOf(DATA)).toBe(1);
  });

  test('leave nothing in one that was filled after they ended', () => {
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(5));
    writeCr4(state, cr4(), 0);
    fillsOf(DATA);
    writeCr3(state, root(0));
    writeCr4(state, cr4(Cr4.processContexts), 0);
    writeCr3(state, root(5), true);
    expect(fillsOf(DATA)).toBe(1);
  });

  test('forbid to switch paging off', () => {
    writeCr4(state, cr4(Cr4.processContexts), 0);
    expect(writeCr0(state, Cr0.protection, 0)).toBe(false);
  });
});
