import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Access, Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { systemCall, systemReturn } from '../src/cpu/protection/fast-calls.ts';
import { SystemMsr, writeSystemMsr } from '../src/cpu/protection/msr.ts';
import { interruptReturn } from '../src/cpu/protection/returns.ts';
import { SystemState } from '../src/cpu/protection/system-state.ts';
import { State } from '../src/cpu/state.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Efer, Flag, Pte, Register, Vector } from '../src/x86/registers.ts';
import { AGAIN, AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';
import { CODE, DATA, FLAT_DATA } from './system-machine.ts';

/** SYSCALL, SYSRET and IRET do the same in generated code of both tiers as where the host carries them out. */

const INSTRUCTIONS = { syscall: '0f 05', sysret: '48 0f 07', 'sysret to 32-bit code': '0f 07', iret: '48 cf' } as const;
type Instruction = keyof typeof INSTRUCTIONS;
/** Each instruction has a place of its own, and HLT stands where they lead. */
const PLACES: Readonly<Record<Instruction, number>> = {
  syscall: CODE,
  sysret: CODE + 0x40,
  'sysret to 32-bit code': CODE + 0x80,
  iret: CODE + 0xc0,
};
/** The GDT, and below the end of its page the frame of IRET. */
const TABLE = DATA;
const FRAME_BYTES = 40;
/** User data and code where SYSRET expects them, 32-bit code before them. */
const SELECTORS = 0x0023_0010;
const KERNEL_CODE = 0x10;
const KERNEL_DATA = 0x18;
const USER_DATA = 0x2b;
const USER_CODE = 0x33;
const ENTRY = CODE + 0x100;
const RETURN = CODE + 0x200;
/** Error code of a program that fetches code where it has no right to: P, U and I. */
const NO_FETCH = 0x15;
/** A page of the kernel's own. */
const KERNEL = CODE + 4 * PAGE_SIZE;
const RETURN_STACK = 0x1234_5678_9ab0;
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
    // What lies behind the page's frame in the host's memory is not what the guest has behind the page.
    const behind = this.pool.addressOf(this.frameOf(this.numberAt(TABLE))) + PAGE_SIZE;
    this.memory.view.setUint32(behind, USER_DATA, true);
    this.map(TABLE + PAGE_SIZE, this.allocate());
  }

  /** From the state after a reset to long mode, at an address in a ring. */
  begin(address: number, ring: 0 | 3, { isOn, checksAlignment }: Pick<Attempt, 'isOn' | 'checksAlignment'>): void {
    const { processor, system } = this;
    const { cr4 } = processor;
    processor.reset();
    processor.cr4 = cr4;
    this.restart({}, address);
    system.cr3 = this.root * PAGE_SIZE;
    processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect | (checksAlignment ? Cr0.alignmentMask : 0);
    const mode = Efer.longModeEnable | Efer.noExecute;
    processor.efer = mode | Efer.longModeActive;
    system.usePaging();
    this.setPrivilege(ring);
    writeSystemMsr(system, SystemMsr.efer, mode | (isOn ? Efer.syscall : 0), 0);
  }

  /** Executes until HLT, or what was refused, and tells everything that may have changed. */
  call(attempt: Attempt, inCode: boolean): object {
    const { processor, system } = this;
    const { instruction, ring, flags, waiting } = attempt;
    system.callsInCode = inCode;
    this.begin(PLACES[instruction], ring, attempt);
    writeSystemMsr(system, SystemMsr.star, 0, attempt.selectors);
    writeSystemMsr(system, SystemMsr.syscallEntry, ENTRY, 0);
    writeSystemMsr(system, SystemMsr.syscallMask, attempt.mask, 0);
    processor.setValue(Register.rcx, attempt.target);
    processor.set(Register.r11, attempt.r11, 0xdead_beef);
    processor.flags = flags | Flag.reserved;
    processor.interruptWaiting = waiting;
    this.#writeTables(attempt);
    const before = processor.instructions;
    this.exits = 1;
    let exit = processor.run(BUDGET);
    const left = processor.rip === PLACES[instruction] && exit !== Exit.exception;
    if (left && this.#carryOut(exit)) {
      this.exits++;
      exit = processor.run(BUDGET);
    }
    const segments = [SegmentRegister.cs, SegmentRegister.ss, SegmentRegister.es].map((segment) => ({
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

  /** Descriptors, and a frame for IRET. */
  #writeTables(attempt: Attempt): void {
    const { descriptors, limit, frame, target, r11, isCached, inNonMaskable, dataSegment, stackSegment } = attempt;
    const { processor, system } = this;
    const { view } = this.memory;
    const at = this.pool.addressOf(this.frameOf(this.numberAt(TABLE)));
    for (const [selector, [low, high]] of [
      [USER_DATA, descriptors.data] as const,
      [USER_CODE, descriptors.code] as const,
      [KERNEL_DATA, descriptors.kernelData] as const,
      [KERNEL_CODE, descriptors.kernelCode] as const,
      // No selector names the first one.
      [0, descriptors.kernelCode] as const,
    ]) {
      view.setUint32(at + (selector & ~7), low, true);
      view.setUint32(at + (selector & ~7) + 4, high, true);
    }
    const slots = [target, frame.code, r11, RETURN_STACK, frame.stack];
    const stack = TABLE + PAGE_SIZE - FRAME_BYTES + frame.offset;
    for (const [slot, value] of slots.entries()) {
      const place = (stack % PAGE_SIZE) + slot * 8;
      if (place < PAGE_SIZE) view.setBigInt64(at + place, BigInt(value), true);
    }
    processor.setValue(Register.rsp, stack);
    for (const segment of [SegmentRegister.es, SegmentRegister.ds]) processor.loadSegment(segment, 0, null);
    if (dataSegment) processor.loadSegment(SegmentRegister.es, 0x10, FLAT_DATA);
    if (processor.privilege === 0) processor.loadSegment(SegmentRegister.ss, ...stackSegment);
    Object.assign(system.gdt, { base: TABLE, limit });
    system.inNonMaskable = inNonMaskable;
    system.useCalls();
    if (isCached && !processor.userMode) processor.memory.translate(TABLE as GuestVirtual, Access.read);
  }

  /** What the host does at an exit; false when it raises a fault. */
  #carryOut(exit: Exit): boolean {
    const { system, processor } = this;
    if (exit === Exit.syscall) return systemCall(system) === SystemResult.done;
    if (processor.privilege !== 0) return false;
    const instruction = processor.currentInstruction();
    const go = instruction.operation === 'iret' ? interruptReturn : systemReturn;
    return go(system, instruction) === SystemResult.done;
  }

  #word(field: number): number {
    return this.memory.u32[(this.processor.state + field) >> 2] as number;
  }
}

const anyFlags = fc.oneof(
  fc.nat(0x3f_ffff).map((bits) => bits & ~Flag.virtual8086),
  fc.constantFrom(0x202, 0x246, Flag.alignmentCheck, Flag.resume),
);
type Words = readonly [low: number, high: number];
/** Mostly the one that generated code takes for granted. */
const descriptorOf = (usual: Words, ...others: Words[]) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, fc.constantFrom(...others));
const attempts = fc.record({
  instruction: fc.constantFrom<Instruction>(...(Object.keys(INSTRUCTIONS) as Instruction[])),
  ring: fc.constantFrom<0 | 3>(0, 3),
  isOn: fc.nat(7).map((number) => number > 0),
  flags: anyFlags,
  r11: fc.oneof(anyFlags, fc.nat(0xffff_ffff)),
  mask: fc.oneof(fc.constant(0x4_7700), fc.nat(0xffff_ffff)),
  selectors: fc.oneof({ weight: 8, arbitrary: fc.constant(SELECTORS) }, fc.nat(0xffff_ffff)),
  /** A page without code is absent, and the last two are not canonical. */
  target: fc.constantFrom(
    RETURN,
    RETURN,
    RETURN,
    RETURN,
    RETURN,
    RETURN,
    RETURN,
    DATA + 0x10_0000,
    2 ** 47,
    -(2 ** 47) - PAGE_SIZE,
  ),
  waiting: fc.boolean(),
  descriptors: fc.record({
    data: descriptorOf([0xffff, 0x00cf_f300], [0xffff, 0x00cf_f200], [0xffff, 0x00cf_9300], [0, 0]),
    code: descriptorOf([0xffff, 0x00af_fb00], [0xffff, 0x00cf_fb00], [0xffff, 0x00af_9b00], [0xffff, 0x00af_ff00]),
    kernelData: descriptorOf([0xffff, 0x00cf_9300], [0xffff, 0x00cf_9200], [0xffff, 0x00cf_f300], [0, 0]),
    kernelCode: descriptorOf(
      [0xffff, 0x00af_9b00],
      [0xffff, 0x00cf_9b00],
      [0xffff, 0x00af_fb00],
      [0xffff, 0x00af_9f00],
    ),
  }),
  /** Of the GDT. */
  limit: fc.oneof({ weight: 8, arbitrary: fc.constant(0x7f) }, fc.constantFrom(0x37, 0x36, 0x2f)),
  frame: fc.record({
    code: fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(USER_CODE, KERNEL_CODE) },
      fc.constantFrom(0x08, 0, 0x11, 0x23, 0x1_0033, 0x1_0010),
    ),
    stack: fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(USER_DATA, KERNEL_DATA, 0) },
      fc.constantFrom(0x10, 0x19, 0x1b, 0x23),
    ),
    /** Above 0 the last of its slots stands in the next page. */
    offset: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.constantFrom(-64, -1, 8)),
  }),
  isCached: fc.nat(7).map((number) => number > 0),
  inNonMaskable: fc.nat(7).map((number) => number === 0),
  dataSegment: fc.nat(7).map((number) => number === 0),
  /** What the kernel has in SS. */
  stackSegment: fc.constantFrom<[number, typeof FLAT_DATA | null]>([0, null], [KERNEL_DATA, FLAT_DATA], [0, FLAT_DATA]),
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
    { numRuns: 4000 },
  );
});

test.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('stay in generated code of %s', (_name, options) => {
  const machine = new CallMachine(options);
  const rest: Omit<Attempt, 'instruction' | 'ring'> = {
    isOn: true,
    flags: 0x246,
    r11: 0x246,
    mask: 0x4_7700,
    selectors: SELECTORS,
    target: RETURN,
    waiting: false,
    descriptors: {
      data: [0xffff, 0x00cf_f300],
      code: [0xffff, 0x00af_fb00],
      kernelData: [0xffff, 0x00cf_9300],
      kernelCode: [0xffff, 0x00af_9b00],
    },
    limit: 0x7f,
    frame: { code: USER_CODE, stack: USER_DATA, offset: 0 },
    isCached: true,
    inNonMaskable: false,
    dataSegment: false,
    stackSegment: [0, null],
    checksAlignment: false,
  };
  expect(machine.call({ ...rest, instruction: 'syscall', ring: 3 }, true)).toMatchObject({ rip: ENTRY, privilege: 0 });
  expect(machine.exits).toBe(1);
  expect(machine.call({ ...rest, instruction: 'sysret', ring: 0 }, true)).toMatchObject({ rip: RETURN, privilege: 3 });
  expect(machine.exits).toBe(1);
  expect(machine.call({ ...rest, instruction: 'iret', ring: 0 }, true)).toMatchObject({ rip: RETURN, privilege: 3 });
  expect(machine.exits).toBe(1);
  const inKernel: Pick<Attempt, 'frame' | 'stackSegment'>[] = [
    { frame: { code: KERNEL_CODE, stack: 0, offset: 0 }, stackSegment: [0, null] },
    { frame: { code: KERNEL_CODE, stack: KERNEL_DATA, offset: 0 }, stackSegment: [KERNEL_DATA, FLAT_DATA] },
  ];
  for (const part of inKernel) {
    const returned = machine.call({ ...rest, ...part, instruction: 'iret', ring: 0 }, true);
    expect(returned).toMatchObject({ rip: RETURN, privilege: 0 });
    expect(machine.exits).toBe(1);
  }
  // Refused where no selector can lead.
  const nowhere = { ...rest, selectors: 0x0023_0000, frame: { code: 0, stack: 0, offset: 0 } as const };
  expect(machine.call({ ...nowhere, instruction: 'iret', ring: 0 }, true)).toMatchObject({ rip: PLACES.iret });
  // An interrupt that waits is to be taken behind the return.
  for (const instruction of ['sysret', 'iret'] as const) {
    machine.call({ ...rest, instruction, ring: 0, waiting: true }, true);
    expect(machine.exits).toBe(2);
  }
  // The last slot of the frame stands in another page.
  machine.call({ ...rest, instruction: 'iret', ring: 0, frame: { ...rest.frame, offset: 8 } }, true);
  expect(machine.system.processor.rip).toBe(PLACES.iret);
  // The next NMI may come behind IRET.
  machine.call({ ...rest, instruction: 'iret', ring: 0, inNonMaskable: true }, true);
  expect(machine.exits).toBe(2);
});

test('a program finds no code where the kernel that entered it would have gone on', () => {
  const machine = new CallMachine(AGAIN);
  const { processor, system } = machine;
  const back = KERNEL + 5;
  machine.map(KERNEL, machine.allocate(), Pte.present | Pte.writable);
  // call 1f; mov eax, 0x1234; hlt; 1: test edx, edx; jz 2f; sysret; 2: ret
  machine.load(KERNEL, 'e806000000 b834120000 f4 85d2 7403 480f07 c3');
  // mov ebx, back; jmp rbx
  machine.load(RETURN, `bb ${Buffer.from(Uint32Array.of(back).buffer).toString('hex')} ffe3`);
  machine.begin(KERNEL, 0, { isOn: true, checksAlignment: false });
  writeSystemMsr(system, SystemMsr.star, 0, SELECTORS);
  system.callsInCode = true;
  const enter = (leaves: boolean): Exit => {
    machine.restart({ rcx: RETURN, rdx: leaves ? 1 : 0 }, KERNEL);
    machine.setPrivilege(0);
    processor.setValue(Register.r11, 0x202);
    return processor.run(BUDGET);
  };
  for (let round = 0; round < 20; round++) {
    expect(enter(false)).toBe(Exit.system);
    expect(enter(true)).toBe(Exit.exception);
    const { exitDetail, exitError, rip, privilege } = processor;
    const seen = { vector: exitDetail, error: exitError, rip, privilege };
    expect(seen).toEqual({ vector: Vector.pageFault, error: NO_FETCH, rip: back, privilege: 3 });
  }
  expect(machine.regionAt(KERNEL)).toBeDefined();
});
