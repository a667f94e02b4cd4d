import { afterEach, describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { InputError } from '../src/boot/input-error.ts';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Errno } from '../src/interfaces/xen/errno.ts';
import { Call as HypercallArguments } from '../src/interfaces/xen/hypercalls/call.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { numberBytes } from './boot-images.ts';
import {
  BASE,
  Call,
  CODE,
  DATA,
  DESCRIPTORS,
  NarrowGuest,
  narrowPlan,
  Place,
  PROGRAM,
  ProgramPlace,
  Selector,
  STACK,
  STUBS,
} from './xen-narrow-guest.ts';

const HOST_START = 0xf580_0000;
const SELF = 0x7ff0;

const guests: NarrowGuest[] = [];
afterEach(() => {
  for (const { domain } of guests.splice(0)) domain.destroy();
});

function start(options: ConstructorParameters<typeof NarrowGuest>[0] = {}): NarrowGuest {
  const guest = new NarrowGuest(options);
  guests.push(guest);
  return guest;
}

function startPrepared(): NarrowGuest {
  const guest = start();
  guest.prepare();
  return guest;
}

describe('a 32-bit kernel', () => {
  it('begins in ring 1 with flat segments of the host, and finds its start_info', () => {
    const guest = start();
    const { processor, plan } = guest;
    expect([0, 1, 2, 3, 4, 5].map((segment) => guest.selector(segment as SegmentRegister))).toEqual([
      0xe021, 0xe019, 0xe021, 0xe021, 0xe021, 0xe021,
    ]);
    expect(processor.privilege).toBe(1);
    expect(processor.rip).toBe(CODE);
    const info = processor.low(Register.rsi);
    expect(info).toBe(BASE + plan.startInfoPfn * PAGE_SIZE);
    const magic = new Uint8Array(16);
    processor.memory.read(info as GuestVirtual, magic);
    expect(new TextDecoder().decode(magic)).toBe('xen-3.0-x86_32p\0');
    const [pages, sharedInfo, flags] = guest.words(info + 0x20, 3);
    expect([pages, flags]).toEqual([plan.pages, 0]);
    expect((sharedInfo ?? 0) % PAGE_SIZE).toBe(0);
    const [tableBase, tables, list] = guest.words(info + 0x3c, 3) as [number, number, number];
    expect([tableBase, tables]).toEqual([BASE + plan.tablesPfn * PAGE_SIZE, 4]);
    expect(guest.words(list, 3)).toEqual([0, 1, 2].map((pfn) => guest.mfnAt(BASE + pfn * PAGE_SIZE)));
    const line = new Uint8Array(11);
    processor.memory.read((info + 0x50) as GuestVirtual, line);
    expect(new TextDecoder().decode(line)).toBe('some words\0');
  });

  it('has tables that it cannot write', () => {
    const guest = start();
    const root = BASE + guest.plan.tablesPfn * PAGE_SIZE;
    expect(guest.processor.memory.writeWord(root as GuestVirtual, 0)).toBe(false);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  it('has a table where the host is even if it begins at address 0', () => {
    const notes = [
      { type: 1, value: numberBytes(0x10_0000, 4) },
      { type: 3, value: numberBytes(0, 4) },
      { type: 9, value: 'yes,bimodal' },
    ];
    const plan = narrowPlan(notes);
    expect([plan.requiredTable, plan.tables]).toEqual([3, 5]);
    expect(start({ plan }).domain.paging.recount()).toEqual([]);
  });

  it('reads the machine-to-physical table in words of its own', () => {
    const guest = start();
    const read = (mfn: number) => guest.words(HOST_START + mfn * 4, 1)[0];
    expect(read(guest.mfnAt(BASE))).toBe(0);
    expect(read(guest.mfnAt(DATA))).toBe((DATA - BASE) / PAGE_SIZE);
    expect(guest.hypercall(Call.xenVersion, 5, DATA)).toBe(0);
    expect(guest.words(DATA, 2)).toEqual([HOST_START, 0]);
    expect(guest.hypercall(Call.memory, 12, DATA)).toBe(0);
    const [first, end, last] = guest.words(DATA, 3) as [number, number, number];
    expect([first, last]).toEqual([HOST_START, guest.domain.paging.types.limit - 1]);
    expect(end - first).toBeGreaterThanOrEqual((last + 1) * 4);
  });

  it('has stubs that make its calls', () => {
    const guest = start();
    guest.processor.set(Register.rsp, STACK - 4, 0);
    guest.store(STACK - 4, CODE + Place.called);
    guest.processor.set(Register.rbx, 0, 0);
    guest.run(STUBS + Call.xenVersion * 32, CODE + Place.called);
    expect(guest.processor.low(Register.rax)).toBe(0x4_0011);
  });

  it.each([
    ['page tables of two levels', [{ type: 9, value: 'no' }], /PAE_MODE is no/],
    ['nothing said of PAE', [], /PAE_MODE is missing/],
    [
      'a base between two tables',
      [
        { type: 9, value: 'yes' },
        { type: 3, value: numberBytes(0xc010_0000, 4) },
      ],
      /VIRT_BASE/,
    ],
    [
      'a base too close to the host',
      [
        { type: 9, value: 'yes' },
        { type: 3, value: numberBytes(0xf560_0000, 4) },
      ],
      /addresses/,
    ],
    [
      'a wish for the addresses of the host',
      [
        { type: 9, value: 'yes' },
        { type: 12, value: numberBytes(0xf600_0000, 4) },
      ],
      /HV_START_LOW/,
    ],
  ])('is refused with %s', (_what, notes, message) => {
    const usual = [
      { type: 1, value: numberBytes(CODE, 4) },
      { type: 3, value: numberBytes(BASE, 4) },
    ].filter(({ type }) => notes.every((other) => other.type !== type));
    expect(() => narrowPlan([...usual, ...notes])).toThrow(message);
  });

  it('is refused with more memory than its words can number', () => {
    expect(() => narrowPlan(undefined, undefined, 1 << 20)).toThrow(InputError);
  });

  it('is told of top tables beyond 4 GiB when it says that it knows them', () => {
    const EXTENDED = 0x10;
    const features = (guest: NarrowGuest) => {
      guest.store(DATA, 0);
      expect(guest.hypercall(Call.xenVersion, 6, DATA)).toBe(0);
      return (guest.words(DATA + 4, 1)[0] as number) & EXTENDED;
    };
    const guest = start();
    expect(features(guest)).toBe(0);
    expect(guest.hypercall(Call.vmAssist, 0, 3)).toBe(0);
    expect(features(guest)).toBe(EXTENDED);
    const notes = [
      { type: 1, value: numberBytes(CODE, 4) },
      { type: 3, value: numberBytes(BASE, 4) },
      { type: 9, value: 'yes[extended-cr3]' },
    ];
    expect(features(start({ plan: narrowPlan(notes) }))).toBe(EXTENDED);
  });
});

describe('calls of a 32-bit kernel', () => {
  it('take 64-bit values in two registers', () => {
    const guest = start();
    const mfn = guest.mfnAt(DATA + PAGE_SIZE);
    const NO_EXECUTE = 0x8000_0000;
    expect(guest.hypercall(Call.updateVaMapping, DATA, mfn * PAGE_SIZE + 0x63, NO_EXECUTE, 2)).toBe(0);
    expect(guest.mfnAt(DATA)).toBe(mfn);
    expect(guest.hypercall(Call.updateVaMapping, DATA, mfn * PAGE_SIZE + 0x63, 0x0001_0000, 2)).toBe(-Errno.EPERM);
    expect(guest.hypercall(Call.setTimer, 0, 0x10)).toBe(0);
    expect(guest.domain.timers.singleShots[0]).toBe(0x10_0000_0000);
  });

  it.each([10, 14, 15, 17])('are made again with the same registers: number %i', (number) => {
    const guest = start();
    const call = new HypercallArguments(guest.domain, guest.vcpu);
    const registers = [Register.rbx, Register.rcx, Register.rdx, Register.rsi, Register.rdi];
    for (const [index, register] of registers.entries()) guest.processor.set(register, 0x1111_1111 * (index + 1), 0);
    call.loadFromRegisters(guest.vcpu, number);
    for (const register of registers) guest.processor.set(register, 0, 0);
    call.storeToRegisters(number);
    const found = registers.map((register) => [guest.processor.low(register), guest.processor.high(register)]);
    // Registers behind the call's own arguments need not come back.
    const places = { 10: 4, 14: 4, 15: 2 }[number] ?? 5;
    expect(found.slice(0, places)).toEqual(
      Array.from({ length: places }, (_none, index) => [0x1111_1111 * (index + 1), 0]),
    );
  });

  it('are gathered in entries of 32 bytes, each with its result', () => {
    const guest = start();
    const ENTRY = 32;
    const mfn = guest.mfnAt(DATA + PAGE_SIZE);
    const target = DATA + 2 * PAGE_SIZE;
    guest.store(DATA, Call.xenVersion, 0, 0, 0);
    guest.store(DATA + ENTRY, 55, 0);
    guest.store(DATA + 2 * ENTRY, Call.updateVaMapping, 0, target, mfn * PAGE_SIZE + 0x61, 0, 0);
    expect(guest.hypercall(Call.multicall, DATA, 3)).toBe(0);
    expect([0, 1, 2].map((entry) => guest.words(DATA + entry * ENTRY + 4, 1)[0])).toEqual([
      0x4_0011,
      -Errno.ENOSYS >>> 0,
      0,
    ]);
    expect(guest.mfnAt(target)).toBe(mfn);
  });

  it('update entries by requests of 16 bytes, and pin tables by operations of 12', () => {
    const guest = start();
    const table = DATA + PAGE_SIZE;
    const mfn = guest.mfnAt(table);
    expect(guest.hypercall(Call.updateVaMapping, table, mfn * PAGE_SIZE + 0x21, 0, 2)).toBe(0);
    guest.store(DATA, 0, mfn, 0);
    expect(guest.hypercall(Call.mmuExtended, DATA, 1, DATA + 0x100, SELF)).toBe(0);
    expect(guest.words(DATA + 0x100, 1)).toEqual([1]);
    const page = guest.mfnAt(DATA + 2 * PAGE_SIZE);
    guest.store(DATA, mfn * PAGE_SIZE + 8 * 5, 0, page * PAGE_SIZE + 0x63, 0x8000_0000);
    expect(guest.hypercall(Call.mmuUpdate, DATA, 1, 0, SELF)).toBe(0);
    expect(guest.words(table + 8 * 5, 2)).toEqual([page * PAGE_SIZE + 0x63, 0x8000_0000]);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  it('store into live level-1 tables by halves, which the host examines', () => {
    const guest = start();
    const index = (DATA - BASE) / PAGE_SIZE;
    const level1 = BASE + (guest.plan.tablesPfn + 2) * PAGE_SIZE;
    const [low = 0] = guest.words(level1 + index * 8, 1);
    // MOV [ECX], EBX, in the place of the call.
    guest.store(CODE + 0x80, 0xfeeb_1989);
    guest.processor.set(Register.rcx, level1 + index * 8, 0);
    guest.processor.set(Register.rbx, (low & ~2) >>> 0, 0);
    guest.run(CODE + 0x80, CODE + 0x82);
    expect(guest.words(level1 + index * 8, 1)).toEqual([(low & ~2) >>> 0]);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  it('leave a mark in the descriptors of the data segments that they load', () => {
    const guest = startPrepared();
    const [before = 0] = guest.words(DESCRIPTORS + 0x24, 1);
    // MOV DS, AX.
    guest.store(CODE + 0x80, 0xfeeb_d88e);
    guest.processor.set(Register.rax, Selector.userData, 0);
    guest.run(CODE + 0x80, CODE + 0x82);
    expect([before & 0x100, guest.words(DESCRIPTORS + 0x24, 1)[0]]).toEqual([0, before | 0x100]);
    expect(guest.selector(SegmentRegister.ds)).toBe(Selector.userData);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  it.each([
    ['of a segment base', Call.setSegmentBase, [0, 0], -Errno.ENOSYS],
    ['with a sign, as text', Call.xenVersion, [1, 0x1000], -Errno.EFAULT],
  ] as const)('%s fail', (_what, number, values, result) => {
    expect(start().hypercall(number, ...values)).toBe(result);
  });

  it('know no fourth level and no tables of programs', () => {
    const guest = start();
    const PIN_LEVEL4 = 3;
    const NEW_USER_BASE = 15;
    guest.store(DATA, PIN_LEVEL4, guest.mfnAt(DATA), 0);
    expect(guest.hypercall(Call.mmuExtended, DATA, 1, 0, SELF)).toBe(0);
    guest.store(DATA, NEW_USER_BASE, guest.mfnAt(DATA), 0);
    expect(guest.hypercall(Call.mmuExtended, DATA, 1, 0, SELF)).toBe(-Errno.EINVAL);
  });
});

describe('entries into a 32-bit kernel', () => {
  const WAITING = PROGRAM + ProgramPlace.wait;

  it('from a program are made on its own stack by its own segments', () => {
    const guest = startPrepared();
    guest.enterProgram(ProgramPlace.wait, WAITING);
    expect(guest.segments).toEqual([Selector.userCode, Selector.userData]);
    expect([guest.processor.privilege, guest.vcpu.kernelMode]).toEqual([3, false]);
    expect(guest.processor.low(Register.rax)).toBe(0x1234);
    guest.run(PROGRAM + ProgramPlace.call, CODE + Place.trapHandler);
    expect(guest.segments).toEqual([Selector.kernelCode, Selector.kernelData]);
    expect([guest.processor.privilege, guest.vcpu.kernelMode]).toEqual([1, true]);
    const stack = guest.processor.low(Register.rsp);
    expect(stack).toBe(STACK - 24);
    // INT 0x82 is the kernel's: a general protection with the vector's error code.
    expect(guest.words(stack, 6)).toEqual([
      0x82 * 8 + 2,
      PROGRAM + ProgramPlace.call,
      Selector.userCode,
      0x202,
      PROGRAM + PAGE_SIZE,
      Selector.userData,
    ]);
    expect(guest.vcpu.eventsMasked).toBe(true);
  });

  it('from the kernel itself have no stack in their frame, and say whether events were masked', () => {
    const guest = startPrepared();
    guest.processor.set(Register.rsp, STACK - 0x100, 0);
    guest.processor.set(Register.rcx, 0x1000, 0);
    guest.store(CODE + 0x80, 0xfeeb_1989);
    guest.run(CODE + 0x80, CODE + Place.trapHandler);
    expect(guest.processor.low(Register.rsp)).toBe(STACK - 0x100 - 16);
    expect(guest.words(STACK - 0x110, 4)).toEqual([2, CODE + 0x80, 0x1_0000 | 0xe019, 0x2]);
    const sharedInfo = guest.domain.shared.address();
    expect(guest.domain.memory.view.getUint32(sharedInfo + 8, true)).toBe(0x1000);
  });

  it('for events mask further ones until the return', () => {
    const guest = startPrepared();
    guest.enterProgram(ProgramPlace.wait, WAITING);
    const info = guest.domain.shared.vcpuInfo(0);
    guest.domain.memory.u8[info] = 1;
    guest.run(WAITING, CODE + Place.eventHandler);
    expect(guest.vcpu.eventsMasked).toBe(true);
    expect(guest.words(guest.processor.low(Register.rsp), 3)).toEqual([WAITING, Selector.userCode, 0x202]);
    guest.domain.memory.u8[info] = 0;
    // The kernel returns by the frame that it found, below what the hypercall wants.
    guest.processor.set(Register.rsp, guest.processor.low(Register.rsp) - 4, 0);
    guest.processor.set(Register.rax, Call.iret, 0);
    guest.run(CODE + Place.call, WAITING);
    expect(guest.vcpu.eventsMasked).toBe(false);
    expect(guest.processor.low(Register.rsp)).toBe(PROGRAM + PAGE_SIZE);
  });

  it('end with IRET too, to a program or within the kernel', () => {
    const guest = startPrepared();
    guest.processor.set(Register.rsp, STACK - 20, 0);
    guest.store(STACK - 20, WAITING, Selector.userCode, 0x202, PROGRAM + PAGE_SIZE, Selector.userData);
    guest.run(CODE + Place.iret, WAITING);
    expect([guest.processor.privilege, guest.vcpu.kernelMode]).toEqual([3, false]);
    guest.run(PROGRAM + ProgramPlace.call, CODE + Place.trapHandler);
    guest.processor.set(Register.rsp, STACK - 0x80, 0);
    guest.store(STACK - 0x80, CODE + Place.called, Selector.kernelCode, 0x202);
    guest.run(CODE + Place.iret, CODE + Place.called);
    expect(guest.processor.low(Register.rsp)).toBe(STACK - 0x80 + 12);
    expect([guest.processor.privilege, guest.vcpu.kernelMode]).toEqual([1, true]);
  });

  it('that end with IRET to nowhere fault in the kernel', () => {
    const guest = startPrepared();
    guest.processor.set(Register.rsp, STACK - 0x80, 0);
    guest.store(STACK - 0x80, WAITING, Selector.none, 0x202, PROGRAM + PAGE_SIZE, Selector.userData);
    guest.run(CODE + Place.iret, CODE + Place.trapHandler);
    expect(guest.words(guest.processor.low(Register.rsp), 2)).toEqual([Selector.none & ~3, CODE + Place.iret]);
  });

  it.each([
    ['code', Selector.none, Selector.userData],
    ['a stack', Selector.userCode, Selector.none],
    ['the kernel’s stack', Selector.userCode, Selector.kernelData | 3],
  ] as const)('by the failsafe callback tell of a program without %s', (_what, cs, ss) => {
    const guest = startPrepared();
    guest.processor.set(Register.rsp, STACK - 0x80, 0);
    guest.store(STACK - 0x80, 0x77, WAITING, cs, 0x202, PROGRAM + 0x800, ss);
    guest.processor.set(Register.rax, Call.iret, 0);
    guest.run(CODE + Place.call, CODE + Place.failsafeHandler);
    expect(guest.segments).toEqual([Selector.kernelCode, Selector.kernelData]);
    const stack = guest.processor.low(Register.rsp);
    expect(stack).toBe(STACK - 36);
    const data = [SegmentRegister.ds, SegmentRegister.es, SegmentRegister.fs, SegmentRegister.gs];
    expect(guest.words(stack, 9)).toEqual([
      ...data.map((segment) => guest.selector(segment)),
      WAITING,
      cs,
      0x202,
      PROGRAM + 0x800,
      ss,
    ]);
  });

  it.each([
    ['ring 0', 8, 0x202, /ring 0/],
    ['code of its own that is none', Selector.none & ~2, 0x202, /0x31/],
  ] as const)('cannot end in %s', (_what, cs, flags, reason) => {
    const guest = startPrepared();
    guest.processor.set(Register.rsp, STACK - 0x80, 0);
    guest.store(STACK - 0x80, 0, WAITING, cs, flags, PROGRAM + 0x800, Selector.userData);
    guest.processor.set(Register.rax, Call.iret, 0);
    guest.run(CODE + Place.call, WAITING);
    expect(guest.domain.state).toMatchObject({ kind: 'crash', reason: expect.stringMatching(reason) });
  });

  it('in virtual-8086 mode end with a fault in its frame, since a program can ask its kernel for them', () => {
    const guest = startPrepared();
    const frame = [WAITING, 0x1000, 0x2_0202, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x8000];
    guest.processor.set(Register.rsp, STACK - 0x80, 0);
    guest.store(STACK - 0x80, 0x77, ...frame);
    guest.processor.set(Register.rax, Call.iret, 0);
    guest.run(CODE + Place.call, CODE + Place.trapHandler);
    const stack = guest.processor.low(Register.rsp);
    expect(stack).toBe(STACK - 40);
    expect(guest.words(stack, 10)).toEqual([0, ...frame]);
    expect(guest.processor.low(Register.rax)).toBe(0x77);
    expect(guest.segments).toEqual([Selector.kernelCode, Selector.kernelData]);
    expect(guest.processor.flags & 0x2_0000).toBe(0);
  });

  it('end the domain when the handler has no code of the kernel', () => {
    const guest = startPrepared();
    guest.store(DATA, 0x0030_000d, CODE + Place.trapHandler, 0, 0);
    expect(guest.hypercall(Call.setTrapTable, DATA)).toBe(0);
    guest.enterProgram(ProgramPlace.call, CODE + Place.trapHandler);
    expect(guest.domain.state).toMatchObject({ kind: 'crash', reason: expect.stringMatching(/selector 0x31/) });
  });
});

it('the state of a 32-bit domain goes on in another', () => {
  const saved = startPrepared();
  saved.hypercall(Call.vmAssist, 0, 3);
  saved.enterProgram(ProgramPlace.wait, PROGRAM + ProgramPlace.wait);
  const state = save(saved.domain);
  saved.domain.destroy();
  guests.length = 0;
  const resumed = start();
  restore(resumed.domain, state);
  expect(save(resumed.domain)).toEqual(state);
  expect([resumed.vcpu.kernelMode, resumed.processor.privilege]).toEqual([false, 3]);
  expect(resumed.domain.extendedCr3).toBe(true);
});

describe('a second processor of a 32-bit kernel', () => {
  const CONTEXT = DATA;
  const INITIALISE = 0;
  const UP = 1;

  function context(guest: NarrowGuest): void {
    const registers = CONTEXT + 0x204;
    guest.store(registers, 1, 2, 3, 4, 5, 6, 7, 0, CODE + Place.called, Selector.kernelCode, 0x1002, STACK);
    guest.store(registers + 0x30, Selector.kernelData, 0xe033, 0xe021, Selector.userData, Selector.none);
    guest.store(CONTEXT + 0x248 + 14 * 8, 0x0008_000e, CODE + Place.trapHandler);
    const root = guest.domain.paging.root(0);
    guest.store(CONTEXT + 0xa50, guest.mfnAt(CODE + 2 * PAGE_SIZE));
    guest.store(CONTEXT + 0xa90, 6, 0x10, STACK);
    guest.store(CONTEXT + 0xa9c + 12, ((root << 12) | (root >>> 20)) >>> 0);
    guest.store(CONTEXT + 0xadc, 8, CODE + Place.eventHandler, 8, CODE + Place.failsafeHandler);
  }

  it('begins with what its context says', () => {
    const guest = start({ vcpus: 2 });
    guest.prepare();
    context(guest);
    expect(guest.hypercall(Call.vcpu, INITIALISE, 1, CONTEXT)).toBe(0);
    const second = guest.domain.vcpus[1]!;
    const { processor } = second;
    const general = [Register.rbx, Register.rcx, Register.rdx, Register.rsi, Register.rdi, Register.rbp, Register.rax];
    expect(general.map((register) => processor.low(register))).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect([0, 1, 2, 3, 4, 5].map((segment) => processor.selector(segment))).toEqual([
      0xe033,
      Selector.kernelCode,
      Selector.kernelData,
      0xe021,
      Selector.userData,
      0,
    ]);
    expect([processor.privilege, processor.low(Register.rsp)]).toEqual([1, STACK]);
    expect(second.kernelStackSegment).toBe(Selector.kernelData);
    expect(second.callbacks.slice(0, 2).map(({ selector, address }) => [selector, address])).toEqual([
      [Selector.kernelCode, CODE + Place.eventHandler],
      [Selector.kernelCode, CODE + Place.failsafeHandler],
    ]);
    expect(second.traps[14]).toEqual({ selector: Selector.kernelCode, address: CODE + Place.trapHandler, flags: 0 });
    expect(guest.hypercall(Call.vcpu, INITIALISE, 1, CONTEXT)).toBe(-Errno.EEXIST);
    expect(guest.hypercall(Call.vcpu, UP, 1, 0)).toBe(0);
    guest.domain.turn();
    expect(processor.rip).toBe(CODE + Place.called);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  it('is not begun with a table that is none', () => {
    const guest = start({ vcpus: 2 });
    guest.prepare();
    context(guest);
    guest.store(CONTEXT + 0xa9c + 12, 0x7fff_f000);
    expect(guest.hypercall(Call.vcpu, INITIALISE, 1, CONTEXT)).toBe(-Errno.EINVAL);
  });
});
