import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { systemCall, systemReturn } from '../src/cpu/protection/fast-calls.ts';
import { SystemMsr, writeSystemMsr } from '../src/cpu/protection/msr.ts';
import { SystemState } from '../src/cpu/protection/system-state.ts';
import { State } from '../src/cpu/state.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Efer, Flag, Register } from '../src/x86/registers.ts';
import { AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';
import { CODE, DATA } from './system-machine.ts';

/** SYSCALL and SYSRET do the same in generated code of both tiers as where the host carries them out. */

const INSTRUCTIONS = { syscall: '0f 05', sysret: '48 0f 07', 'sysret to 32-bit code': '0f 07' } as const;
type Instruction = keyof typeof INSTRUCTIONS;
/** Each instruction has a place of its own, and HLT stands where they lead. */
const PLACES: Readonly<Record<Instruction, number>> = {
  syscall: CODE,
  sysret: CODE + 0x40,
  'sysret to 32-bit code': CODE + 0x80,
};
const ENTRY = CODE + 0x100;
const RETURN = CODE + 0x200;
/** More than any way to HLT takes. */
const BUDGET = 1000;

class CallMachine extends RegionMachine {
  readonly system: SystemState;
  /** Exits of the last call, that at HLT included. */
  exits = 0;

  constructor(options: typeof INTERPRETER) {
    super('four-level', options, '90');
    const { processor } = this;
    const { translation } = processor;
    this.system = new SystemState(processor, {
      none: translation,
      'two-level': translation,
      pae: translation,
      'four-level': translation,
    });
    for (const [name, place] of Object.entries(PLACES)) this.load(place, INSTRUCTIONS[name as Instruction]);
    for (const place of [ENTRY, RETURN]) this.load(place, 'f4');
  }

  /** Executes until HLT, or what was refused, and tells everything that may have changed. */
  call(attempt: Attempt, inCode: boolean): object {
    const { processor, system } = this;
    const { instruction, ring, flags, waiting } = attempt;
    const { cr4 } = processor;
    processor.reset();
    processor.cr4 = cr4;
    system.callsInCode = inCode;
    this.restart({}, PLACES[instruction]);
    system.cr3 = this.root * PAGE_SIZE;
    processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect | (attempt.checksAlignment ? Cr0.alignmentMask : 0);
    const mode = Efer.longModeEnable | Efer.noExecute;
    processor.efer = mode | Efer.longModeActive;
    system.usePaging();
    this.setPrivilege(ring);
    writeSystemMsr(system, SystemMsr.efer, mode | (attempt.isOn ? Efer.syscall : 0), 0);
    writeSystemMsr(system, SystemMsr.star, 0, attempt.selectors);
    writeSystemMsr(system, SystemMsr.syscallEntry, ENTRY, 0);
    writeSystemMsr(system, SystemMsr.syscallMask, attempt.mask, 0);
    processor.setValue(Register.rcx, attempt.target);
    processor.set(Register.r11, attempt.r11, 0xdead_beef);
    processor.flags = flags | Flag.reserved;
    processor.interruptWaiting = waiting;
    const before = processor.instructions;
    this.exits = 1;
    let exit = processor.run(BUDGET);
    const left = processor.rip === PLACES[instruction] && exit !== Exit.exception;
    if (left && this.#carryOut(exit)) {
      this.exits++;
      exit = processor.run(BUDGET);
    }
    const segments = [SegmentRegister.cs, SegmentRegister.ss].map((segment) => ({
      selector: processor.selector(segment),
      base: processor.segmentBase(segment),
      limit: processor.segmentLimit(segment),
      attributes: processor.segmentAttributes(segment),
      isChecked: this.#word(State.segmentChecked + segment * 4),
    }));
    const { privilege, userMode, codeSize, codeMode, stackSize, memory } = processor;
    return {
      ...this.stateNow(),
      ...{ segments, privilege, userMode, codeSize, codeMode, stackSize, exit },
      fault: exit === Exit.exception ? [processor.exitDetail, processor.exitError] : [],
      tlb: this.#word(State.tlb),
      alignmentChecked: memory.alignmentChecked,
      instructions: processor.instructions - before,
    };
  }

  /** What the host does at an exit; false when it raises a fault. */
  #carryOut(exit: Exit): boolean {
    const { system, processor } = this;
    if (exit === Exit.syscall) return systemCall(system) === SystemResult.done;
    return processor.privilege === 0 && systemReturn(system, processor.currentInstruction()) === SystemResult.done;
  }

  #word(field: number): number {
    return this.memory.u32[(this.processor.state + field) >> 2] as number;
  }
}

const anyFlags = fc.oneof(
  fc.nat(0x3f_ffff).map((bits) => bits & ~Flag.virtual8086),
  fc.constantFrom(0x202, 0x246, Flag.alignmentCheck, Flag.resume),
);
const attempts = fc.record({
  instruction: fc.constantFrom<Instruction>(...(Object.keys(INSTRUCTIONS) as Instruction[])),
  ring: fc.constantFrom<0 | 3>(0, 3),
  isOn: fc.nat(7).map((number) => number > 0),
  flags: anyFlags,
  r11: fc.oneof(anyFlags, fc.nat(0xffff_ffff)),
  mask: fc.oneof(fc.constant(0x4_7700), fc.nat(0xffff_ffff)),
  selectors: fc.oneof(fc.constant(0x0023_0010), fc.nat(0xffff_ffff)),
  /** A page without code is absent, and the last two are not canonical. */
  target: fc.constantFrom(RETURN, RETURN, RETURN, DATA + 0x10_0000, 2 ** 47, -(2 ** 47) - PAGE_SIZE),
  waiting: fc.boolean(),
  checksAlignment: fc.nat(3).map((number) => number === 0),
});
type Attempt = typeof attempts extends fc.Arbitrary<infer One> ? One : never;

test.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('are the same in %s as on the host', (_name, options) => {
  const machine = new CallMachine(options);
  fc.assert(
    fc.property(attempts, (attempt) => {
      expect(machine.call(attempt, true)).toEqual(machine.call(attempt, false));
    }),
    { numRuns: 2000 },
  );
});

test.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('stay in generated code of %s', (_name, options) => {
  const machine = new CallMachine(options);
  const plain = { isOn: true, flags: 0x246, r11: 0x246, mask: 0x4_7700, selectors: 0x0023_0010, target: RETURN };
  const rest = { ...plain, waiting: false, checksAlignment: false };
  expect(machine.call({ ...rest, instruction: 'syscall', ring: 3 }, true)).toMatchObject({ rip: ENTRY, privilege: 0 });
  expect(machine.exits).toBe(1);
  expect(machine.call({ ...rest, instruction: 'sysret', ring: 0 }, true)).toMatchObject({ rip: RETURN, privilege: 3 });
  expect(machine.exits).toBe(1);
  // An interrupt that waits is to be taken behind SYSRET.
  machine.call({ ...rest, instruction: 'sysret', ring: 0, waiting: true }, true);
  expect(machine.exits).toBe(2);
});
