/** Small guest programs for what the processor tests of whole instructions cannot reach; results from the manual. */
import { beforeEach, describe, expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { TABLE_GEOMETRY } from '../src/x86/page-table.ts';
import { Cr0, Efer, Flag, PageFaultError, PTE_NO_EXECUTE_HIGH, Pte, Register, Vector } from '../src/x86/registers.ts';
import {
  ALL_RIGHTS,
  CODE,
  DATA,
  descriptor,
  LARGE_NUMBER,
  type PagedFormat,
  STACK_TOP,
  TestMachine,
} from './system-machine.ts';

const FORMATS = ['two-level', 'pae', 'four-level'] as const;
const WIDE_FORMATS = ['pae', 'four-level'] as const;
const {
  present: PRESENT,
  write: WRITE,
  user: USER,
  reserved: RESERVED,
  fetch: FETCH,
} = {
  present: PageFaultError.present,
  write: PageFaultError.write,
  user: PageFaultError.user,
  reserved: PageFaultError.reserved,
  fetch: PageFaultError.fetch,
};
const HALTED = { vector: null };
/** mov eax,[rbx]; hlt and mov [rbx],eax; hlt in all code sizes but 16. */
const LOAD = '8b03 f4';
const STORE = '8903 f4';

function machineWithData(format: PagedFormat, privilege: 0 | 3 = 3): { machine: TestMachine; number: number } {
  const machine = new TestMachine(format, privilege);
  const number = machine.allocate();
  machine.map(DATA, number);
  machine.processor.setValue(Register.rbx, DATA);
  return { machine, number };
}

describe.each(FORMATS)('a walk through %s tables', (format) => {
  /** Levels above the page's whose entries have an accessed bit. */
  const levels = format === 'four-level' ? [2, 3, 4] : [2];

  test('sets accessed bits for a load, and the dirty bit of the page alone for a store', () => {
    const { machine } = machineWithData(format);
    machine.load(CODE, LOAD);
    expect(machine.run()).toMatchObject(HALTED);
    expect(machine.flagsAt(DATA)).toBe(ALL_RIGHTS | Pte.accessed);
    for (const level of levels) expect(machine.flagsAt(DATA, level)).toBe(ALL_RIGHTS | Pte.accessed);

    machine.load(CODE, STORE);
    expect(machine.run()).toMatchObject(HALTED);
    expect(machine.flagsAt(DATA)).toBe(ALL_RIGHTS | Pte.accessed | Pte.dirty);
    for (const level of levels) expect(machine.flagsAt(DATA, level)).toBe(ALL_RIGHTS | Pte.accessed);
  });

  test('sets a dirty bit again that was cleared, once the translation is dropped', () => {
    const { machine, number } = machineWithData(format);
    machine.load(CODE, STORE);
    machine.run();
    machine.map(DATA, number);
    machine.processor.invalidatePage(DATA as GuestVirtual);
    machine.run();
    expect(machine.flagsAt(DATA)).toBe(ALL_RIGHTS | Pte.accessed | Pte.dirty);
  });

  test('leaves the page of a refused store as it is', () => {
    const { machine, number } = machineWithData(format);
    machine.map(DATA, number, Pte.present | Pte.user);
    machine.load(CODE, STORE);
    machine.processor.setValue(Register.rax, 0x55);
    expect(machine.run()).toEqual({ vector: Vector.pageFault, error: PRESENT | WRITE | USER, cr2: DATA, rip: CODE });
    expect(machine.flagsAt(DATA)).toBe(Pte.present | Pte.user);
    expect(machine.bytesOf(number)[0]).toBe(0);
  });

  test('allows what all levels allow', () => {
    const { machine, number } = machineWithData(format);
    const { processor } = machine;
    const code = { load: machine.load(CODE, LOAD), store: CODE + 0x100 };
    machine.load(code.store, STORE);
    for (const privilege of [0, 3] as const) {
      machine.setPrivilege(privilege);
      for (const writeProtect of [0, Cr0.writeProtect]) {
        processor.cr0 = Cr0.protection | Cr0.paging | writeProtect;
        for (const upper of [0, Pte.writable, Pte.user, Pte.writable | Pte.user]) {
          for (const leaf of [0, Pte.writable, Pte.user, Pte.writable | Pte.user]) {
            for (const store of [false, true]) {
              machine.memory.u32[machine.entryWord(DATA, 2)]! &= ~(Pte.writable | Pte.user); // a word of the table
              machine.memory.u32[machine.entryWord(DATA, 2)]! |= upper;
              machine.map(DATA, number, Pte.present | leaf);
              processor.flushTlb();
              const rights = upper & leaf;
              const user = privilege === 3;
              const writable = (rights & Pte.writable) !== 0 || (!user && writeProtect === 0);
              const allowed = (!user || (rights & Pte.user) !== 0) && (!store || writable);
              const outcome = machine.run(store ? code.store : CODE);
              const error = PRESENT | (store ? WRITE : 0) | (user ? USER : 0);
              const expected = allowed ? HALTED : { vector: Vector.pageFault, error, cr2: DATA };
              expect(outcome, `${privilege} ${writeProtect} ${upper} ${leaf} ${store}`).toMatchObject(expected);
            }
          }
        }
      }
    }
  });

  test('reports a missing entry at any level as not present', () => {
    // Far from the code, so that no entry of the path but the root is shared.
    const far = format === 'four-level' ? 0x1234_5678_9000 : format === 'pae' ? 0xc080_0000 : DATA;
    for (let level = 1; level <= TABLE_GEOMETRY[format].levels; level++) {
      const { machine, number } = machineWithData(format);
      machine.load(CODE, STORE);
      machine.map(far, number);
      machine.memory.u32[machine.entryWord(far, level)] = 0;
      machine.processor.setValue(Register.rbx, far);
      expect(machine.run()).toEqual({ vector: Vector.pageFault, error: WRITE | USER, cr2: far, rip: CODE });
    }
  });

  test('finds every page of a large one, and marks the large entry', () => {
    const { machine } = machineWithData(format);
    const pages = format === 'two-level' ? 1024 : 512;
    const large = 0x00c0_0000;
    machine.map(large, LARGE_NUMBER, ALL_RIGHTS | Pte.large, 0, 2);
    machine.load(CODE, STORE);
    for (const page of [0, 1, pages >> 1, pages - 1]) {
      machine.processor.setValue(Register.rbx, large + page * PAGE_SIZE + 8);
      machine.processor.setValue(Register.rax, page + 1);
      expect(machine.run()).toMatchObject(HALTED);
      const bytes = machine.bytesOf(LARGE_NUMBER + page);
      expect(new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true)).toBe(page + 1);
    }
    expect(machine.flagsAt(large, 2)).toBe(ALL_RIGHTS | Pte.large | Pte.accessed | Pte.dirty);
  });

  test('reports the page that is missing of a store across two, and stores nothing', () => {
    const { machine, number } = machineWithData(format);
    machine.load(CODE, STORE);
    machine.processor.setValue(Register.rbx, DATA + PAGE_SIZE - 2);
    machine.processor.setValue(Register.rax, 0x1234_5678);
    expect(machine.run()).toMatchObject({ vector: Vector.pageFault, error: WRITE | USER, cr2: DATA + PAGE_SIZE });
    expect(machine.bytesOf(number)[PAGE_SIZE - 1]).toBe(0);
  });

  test('finds a page at its new place after an invalidation or a flush', () => {
    const { machine, number } = machineWithData(format);
    const other = machine.allocate();
    machine.bytesOf(number)[0] = 1;
    machine.bytesOf(other)[0] = 2;
    machine.load(CODE, LOAD);
    machine.run();
    expect(machine.processor.low(Register.rax)).toBe(1);
    machine.map(DATA, other);
    machine.processor.invalidatePage(DATA as GuestVirtual);
    machine.run();
    expect(machine.processor.low(Register.rax)).toBe(2);
    machine.map(DATA, number);
    machine.processor.flushTlb();
    machine.run();
    expect(machine.processor.low(Register.rax)).toBe(1);
  });

  test('reports a code page that is missing, with the fetch bit only where pages can forbid execution', () => {
    const { machine } = machineWithData(format);
    const fetch = format === 'two-level' ? 0 : FETCH;
    const missing = DATA + 0x10_0000;
    expect(machine.run(missing)).toEqual({ vector: Vector.pageFault, error: USER | fetch, cr2: missing, rip: missing });
    machine.processor.efer = 0;
    expect(machine.run(missing)).toMatchObject({ error: USER });
  });

  test('reports the second page of an instruction as missing at its first byte', () => {
    const { machine } = machineWithData(format);
    machine.map(CODE + 2 * PAGE_SIZE, machine.allocate(), 0);
    // mov eax, 0x04030201 with its last two bytes on the missing page, behind an instruction that completes.
    const start = CODE + 2 * PAGE_SIZE - 4;
    const fetch = format === 'two-level' ? 0 : FETCH;
    machine.load(start, '90 b8 01 02');
    expect(machine.run(start)).toEqual({
      vector: Vector.pageFault,
      error: USER | fetch,
      cr2: CODE + 2 * PAGE_SIZE,
      rip: start + 1,
    });
    machine.map(CODE + 2 * PAGE_SIZE, machine.allocate());
    machine.load(start, '90 b8 01 02 03 04 f4');
    expect(machine.run(start + 1)).toMatchObject(HALTED);
    expect(machine.processor.low(Register.rax)).toBe(0x0403_0201);
  });
});

describe.each(WIDE_FORMATS)('8-byte entries of %s tables', (format) => {
  test('forbid execution at any level', () => {
    for (const level of [1, 2]) {
      const { machine } = machineWithData(format);
      machine.load(DATA, 'f4');
      machine.memory.u32[machine.entryWord(DATA, level) + 1] = PTE_NO_EXECUTE_HIGH;
      expect(machine.run(DATA)).toEqual({
        vector: Vector.pageFault,
        error: PRESENT | USER | FETCH,
        cr2: DATA,
        rip: DATA,
      });
      machine.load(CODE, LOAD);
      expect(machine.run()).toMatchObject(HALTED);
    }
  });

  test('have a reserved bit 63 when EFER.NXE is clear', () => {
    const { machine } = machineWithData(format);
    machine.load(CODE, LOAD);
    machine.memory.u32[machine.entryWord(DATA) + 1] = PTE_NO_EXECUTE_HIGH;
    machine.processor.efer &= ~Efer.noExecute;
    expect(machine.run()).toMatchObject({ vector: Vector.pageFault, error: PRESENT | USER | RESERVED, cr2: DATA });
  });

  test('have reserved bits in entries of large pages', () => {
    const { machine } = machineWithData(format);
    machine.load(CODE, STORE);
    machine.map(DATA, LARGE_NUMBER + 2, ALL_RIGHTS | Pte.large, 0, 2);
    expect(machine.run()).toMatchObject({ vector: Vector.pageFault, error: PRESENT | WRITE | USER | RESERVED });
  });
});

describe('code that changes', () => {
  let machine: TestMachine;
  const AL = () => machine.processor.low(Register.rax) & 0xff;

  beforeEach(() => {
    machine = new TestMachine('four-level');
    machine.processor.setValue(Register.rbx, CODE);
  });

  test('executes what the instruction before it wrote', () => {
    // mov byte [rbx+5],0x2a; mov al,1; hlt
    machine.load(CODE, 'c64305 2a b001 f4');
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe(0x2a);
  });

  test('executes each value that a loop writes into itself', () => {
    // mov ecx,10; xor eax,eax; again: inc byte [rbx+12]; add eax,0; loop again; hlt
    machine.load(CODE, 'b90a000000 31c0 fe430c 83c000 e2f8 f4');
    expect(machine.run()).toMatchObject(HALTED);
    expect(machine.processor.low(Register.rax)).toBe(55);
  });

  test('executes what a repeated string instruction wrote ahead', () => {
    // lea rdi,[rbx+16]; mov ecx,6; mov al,0x90; rep stosb; three nops; and three times ud2, which becomes nops; hlt
    machine.load(CODE, '488d7b10 b906000000 b090 f3aa 909090 0f0b0f0b0f0b f4');
    expect(machine.run()).toMatchObject({ vector: null, rip: CODE + 0x16 });
  });

  test('executes what was written through another address of its frame', () => {
    machine.load(CODE, 'c643 08 2a 9090 b001 f4');
    const number = (machine.memory.u32[machine.entryWord(CODE)] as number) >>> 12;
    machine.map(DATA, number);
    machine.processor.setValue(Register.rbx, DATA - 1);
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe(0x2a);
  });

  test('executes what a read-modify-write across its pages left behind', () => {
    // At the page's end: mov al,1 with the immediate on the next page. Elsewhere: add dword [rbx],0x100; jmp there
    const end = CODE + PAGE_SIZE;
    machine.load(end - 1, 'b001 f4');
    machine.load(CODE, `8103 00010000 e9 ${le32(end - 1 - (CODE + 11))}`);
    machine.processor.setValue(Register.rbx, STACK_TOP - 8);
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe(1);
    machine.processor.setValue(Register.rbx, end - 1);
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe(2);
  });

  test('executes the new second page of an instruction that crosses', () => {
    // At the page's end: mov al,1 with the immediate on the next page. Elsewhere: mov ecx,[rbx]; jmp there
    const end = CODE + PAGE_SIZE;
    machine.load(end - 1, 'b001 f4');
    machine.load(CODE, `8b0b e9 ${le32(end - 1 - (CODE + 7))}`);
    machine.processor.setValue(Register.rbx, end);
    // Twice, so that the jump knows its target.
    for (let run = 0; run < 2; run++) {
      expect(machine.run()).toMatchObject(HALTED);
      expect(AL()).toBe(1);
    }
    machine.map(end, machine.allocate());
    machine.processor.invalidatePage(end as GuestVirtual);
    machine.load(end, '02 f4');
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe(2);
  });

  test('executes what the host wrote', () => {
    machine.load(CODE, 'b001 f4');
    machine.run();
    expect(machine.processor.memory.write((CODE + 1) as GuestVirtual, Uint8Array.of(0x2a))).toBe(true);
    machine.run();
    expect(AL()).toBe(0x2a);
  });

  test('executes a function that was rewritten after calls were linked to it', () => {
    // mov ecx,20; again: call function; inc byte [rbx+0x41]; loop again; hlt. At 0x40: add al,0; ret
    machine.load(CODE, 'b914000000 e836000000 fe4341 e2f6 f4');
    machine.load(CODE + 0x40, '0400 c3');
    machine.processor.setValue(Register.rax, 0);
    expect(machine.run()).toMatchObject(HALTED);
    expect(AL()).toBe((19 * 20) / 2);
  });

  test('faults with #GP when prefixes make an instruction longer than 15 bytes', () => {
    machine.load(CODE, `${'66'.repeat(15)}90`);
    expect(machine.run()).toMatchObject({ vector: Vector.generalProtection, error: 0, rip: CODE });
    machine.load(CODE, `${'66'.repeat(14)}90 f4`);
    expect(machine.run()).toMatchObject(HALTED);
  });
});

function le32(value: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes.toString('hex');
}

/** Type bytes with DPL 3 and present. */
const DATA_WRITABLE = 0xf3;
const DATA_READ_ONLY = 0xf1;
const DATA_EXPAND_DOWN = 0xf7;
const CODE_READABLE = 0xfb;
const CODE_EXECUTE_ONLY = 0xf9;
const BIG = 0x4000;
const GRANULAR = 0x8000;
const SELECTOR = 0x1b;

describe('a segment of 32-bit code', () => {
  let machine: TestMachine;

  beforeEach(() => {
    machine = machineWithData('pae').machine;
    machine.map(DATA + PAGE_SIZE, machine.allocate());
    // mov fs,cx; mov eax,fs:[ebx] or mov fs:[ebx],eax; hlt
    machine.load(CODE, '8ee1 648b03 f4');
    machine.load(CODE + 0x100, '8ee1 648903 f4');
    machine.processor.setValue(Register.rcx, SELECTOR);
  });

  const access = (segment: ReturnType<typeof descriptor>, offset: number, store = false) => {
    machine.descriptors.set(SELECTOR >> 3, segment);
    machine.processor.setValue(Register.rbx, offset);
    return machine.run(store ? CODE + 0x100 : CODE);
  };
  const refused = { vector: Vector.generalProtection, error: 0 };

  test.each([
    ['reaches its last bytes', descriptor(DATA, 0xfff, DATA_WRITABLE | BIG), 0xffc, HALTED],
    ['ends at its limit', descriptor(DATA, 0xfff, DATA_WRITABLE | BIG), 0xffd, refused],
    ['counts its limit in pages when granular', descriptor(DATA, 1, DATA_WRITABLE | BIG | GRANULAR), 0x1ffc, HALTED],
    ['ends at a granular limit', descriptor(DATA, 1, DATA_WRITABLE | BIG | GRANULAR), 0x1ffd, refused],
    ['begins behind the limit when it expands down', descriptor(DATA, 0xfff, DATA_EXPAND_DOWN | BIG), 0x1000, HALTED],
    ['excludes the limit when it expands down', descriptor(DATA, 0xfff, DATA_EXPAND_DOWN | BIG), 0xfff, refused],
    ['ends at 64 KiB when it expands down and is small', descriptor(DATA, 0xfff, DATA_EXPAND_DOWN), 0x1_0000, refused],
    ['wraps at 4 GiB', descriptor(DATA + 0x1000, 0xf_ffff, DATA_WRITABLE | BIG | GRANULAR), 0xffff_f000, HALTED],
    ['may be readable code', descriptor(DATA, 0xfff, CODE_READABLE | BIG), 0, HALTED],
  ] as const)('%s', (_, segment, offset, outcome) => {
    expect(access(segment, offset)).toMatchObject(outcome);
  });

  test.each([
    ['read-only data', DATA_READ_ONLY],
    ['code', CODE_READABLE],
  ])('that is %s refuses stores', (_, type) => {
    expect(access(descriptor(DATA, 0xfff, type | BIG), 0, true)).toMatchObject({ ...refused, rip: CODE + 0x102 });
  });

  test('that is null can be loaded but not used', () => {
    machine.processor.setValue(Register.rcx, 3);
    expect(access(descriptor(DATA, 0xfff, DATA_WRITABLE), 0)).toMatchObject({ ...refused, rip: CODE + 2 });
  });

  test.each([
    ['beyond the table', undefined, SELECTOR, Vector.generalProtection],
    ['not present', 0x73, SELECTOR, Vector.segmentNotPresent],
    ['of a system segment', 0xe2, SELECTOR, Vector.generalProtection],
    ['of code that cannot be read', CODE_EXECUTE_ONLY, SELECTOR, Vector.generalProtection],
    ['of a more privileged segment', 0x93, SELECTOR, Vector.generalProtection],
  ] as const)('is not loaded from a descriptor %s', (_, type, selector, vector) => {
    if (type !== undefined) machine.descriptors.set(SELECTOR >> 3, descriptor(0, 0xfff, type | BIG));
    machine.processor.setValue(Register.rcx, selector);
    expect(machine.run()).toMatchObject({ vector, error: selector & ~3, rip: CODE });
    expect(machine.processor.selector(SegmentRegister.fs)).toBe(0);
  });

  test.each([
    ['null', undefined, 3, Vector.generalProtection, 0],
    ['read-only', DATA_READ_ONLY, SELECTOR, Vector.generalProtection, SELECTOR & ~3],
    ['of another RPL', DATA_WRITABLE, SELECTOR & ~3, Vector.generalProtection, SELECTOR & ~3],
    ['not present', 0x73, SELECTOR, Vector.stackFault, SELECTOR & ~3],
  ] as const)('is not loaded as the stack when %s', (_, type, selector, vector, error) => {
    if (type !== undefined) machine.descriptors.set(SELECTOR >> 3, descriptor(0, 0xf_ffff, type | BIG | GRANULAR));
    machine.load(CODE, '8ed1 f4');
    machine.processor.setValue(Register.rcx, selector);
    expect(machine.run()).toMatchObject({ vector, error, rip: CODE });
  });

  test('that is the stack raises #SS at its limit', () => {
    machine.descriptors.set(SELECTOR >> 3, descriptor(DATA, 0xfff, DATA_WRITABLE | BIG));
    // mov ss,cx; push eax; hlt
    machine.load(CODE, '8ed1 50 f4');
    machine.processor.setValue(Register.rsp, 0x1000);
    expect(machine.run()).toMatchObject(HALTED);
    machine.processor.setValue(Register.rsp, 0x1002);
    expect(machine.run()).toMatchObject({ vector: Vector.stackFault, error: 0, rip: CODE + 2 });
    expect(machine.processor.low(Register.rsp)).toBe(0x1002);
  });

  test('that is a small stack wraps at 64 KiB and keeps the upper half of ESP', () => {
    machine.descriptors.set(SELECTOR >> 3, descriptor(DATA, 0xffff, DATA_WRITABLE));
    machine.map(DATA + 0xf000, machine.allocate());
    machine.load(CODE, '8ed1 50 f4');
    machine.processor.set(Register.rsp, 0x1234_0000, 0);
    expect(machine.run()).toMatchObject(HALTED);
    expect(machine.processor.low(Register.rsp)).toBe(0x1234_fffc);
  });
});

describe('a far transfer', () => {
  let machine: TestMachine;
  const SMALL_CODE = 0x23;

  beforeEach(() => {
    machine = new TestMachine('pae');
    machine.descriptors.set(SMALL_CODE >> 3, descriptor(CODE + PAGE_SIZE, 0xffff, CODE_READABLE));
  });

  test('to a segment that says 64-bit code outside long mode leads to 32-bit code', () => {
    machine.descriptors.set(SMALL_CODE >> 3, descriptor(0, 0xf_ffff, CODE_READABLE | BIG | GRANULAR | 0x2000));
    // jmp 0x23:CODE + 0x100; hlt there
    machine.load(CODE, 'ea 00014000 2300');
    machine.load(CODE + 0x100, 'f4');
    expect(machine.run()).toMatchObject({ vector: null, rip: CODE + 0x100 });
    expect(machine.processor.codeSize).toBe(32);
  });

  test('to 16-bit code and back changes the operand size', () => {
    // call 0x23:0x0010; hlt. There: mov ax,0x1234; mov ecx,0x11112222; o32 retf
    machine.load(CODE, '9a 10000000 2300 f4');
    machine.load(CODE + PAGE_SIZE + 0x10, 'b83412 66b922221111 66cb');
    machine.processor.set(Register.rax, 0xffff_ffff, 0);
    expect(machine.run()).toMatchObject({ vector: null, rip: CODE + 7 });
    expect(machine.processor.low(Register.rax)).toBe(0xffff_1234);
    expect(machine.processor.low(Register.rcx)).toBe(0x1111_2222);
    expect(machine.processor.low(Register.rsp)).toBe(STACK_TOP);
    expect(machine.processor.selector(SegmentRegister.cs)).toBe(0x0b);
  });

  test('to code that is not present raises #NP, beyond its limit #GP(0), to data #GP', () => {
    machine.load(CODE, 'ea 10000000 2300');
    machine.descriptors.set(SMALL_CODE >> 3, descriptor(CODE, 0xffff, 0x7b));
    expect(machine.run()).toMatchObject({ vector: Vector.segmentNotPresent, error: SMALL_CODE & ~3, rip: CODE });
    machine.descriptors.set(SMALL_CODE >> 3, descriptor(CODE, 0xf, CODE_READABLE));
    expect(machine.run()).toMatchObject({ vector: Vector.generalProtection, error: 0, rip: CODE });
    machine.descriptors.set(SMALL_CODE >> 3, descriptor(CODE, 0xffff, DATA_WRITABLE));
    expect(machine.run()).toMatchObject({ vector: Vector.generalProtection, error: SMALL_CODE & ~3, rip: CODE });
    expect(machine.processor.selector(SegmentRegister.cs)).toBe(0x0b);
  });

  test('lets 16-bit jumps wrap at 64 KiB', () => {
    // At 16-bit offset 0xfff0: jmp +0x20 leads to 0x0012, which is hlt.
    machine.map(CODE + PAGE_SIZE + 0xf000, machine.allocate());
    machine.load(CODE, 'ea f0ff0000 2300');
    machine.load(CODE + PAGE_SIZE + 0xfff0, 'eb20');
    machine.load(CODE + PAGE_SIZE + 0x12, 'f4');
    expect(machine.run()).toMatchObject({ vector: null, rip: 0x12 });
  });

  test('with IRET restores flags, but not the privileged ones', () => {
    // push flags; push cs; push offset; iret; at the target: hlt
    machine.load(CODE, `68 d75e2600 0e 68 ${le32(CODE + 0x40)} cf`);
    machine.load(CODE + 0x40, 'f4');
    expect(machine.run()).toMatchObject({ vector: null, rip: CODE + 0x40 });
    const { flags } = machine.processor;
    expect(flags & (Flag.iopl | Flag.interrupt | Flag.virtual8086)).toBe(0);
    expect(flags & Flag.carry).toBe(Flag.carry);
    expect(flags & Flag.alignmentCheck).toBe(Flag.alignmentCheck);
    expect(flags & Flag.identification).toBe(Flag.identification);
    expect(flags & Flag.direction).toBe(Flag.direction);
    expect(machine.processor.low(Register.rsp)).toBe(STACK_TOP);
  });
});

describe('the trap flag', () => {
  let machine: TestMachine;
  const DR6_SINGLE_STEP = 0x4000;

  beforeEach(() => {
    machine = new TestMachine('four-level');
    machine.processor.setValue(Register.rdi, STACK_TOP - 0x100);
    machine.processor.setValue(Register.rcx, 2);
  });

  /** Goes on until HLT; the places at which #DB came. */
  const trapsUntilHalt = (): number[] => {
    const traps: number[] = [];
    for (let { vector, error, rip } = machine.run(); vector !== null; { vector, error, rip } = machine.run(rip)) {
      expect([vector, error]).toEqual([Vector.debug, DR6_SINGLE_STEP]);
      traps.push(rip - CODE);
    }
    return traps;
  };

  test('traps behind each instruction, and behind each step of a repeated one', () => {
    // nop; inc eax; rep stosb; mov ax,ds (nothing special); mov ds,ax (carried out by the host); hlt
    machine.load(CODE, '90 ffc0 f3aa 668cd8 8ed8 f4');
    machine.processor.flags = Flag.reserved | Flag.trap;
    expect(trapsUntilHalt()).toEqual([1, 3, 3, 5, 8, 10]);
  });

  test('that POPF sets traps behind the next instruction, and that it clears behind POPF itself', () => {
    // push 0x102; popf; nop; push 2; popf; nop; hlt
    machine.load(CODE, '6802010000 9d 90 6a02 9d 90 f4');
    expect(trapsUntilHalt()).toEqual([7, 9, 10]);
    expect(machine.processor.flags & Flag.trap).toBe(0);
  });

  test('does not trap behind an instruction that faults', () => {
    machine.load(CODE, '90 0f0b');
    machine.processor.flags = Flag.reserved | Flag.trap;
    expect(machine.run()).toMatchObject({ vector: Vector.debug, rip: CODE + 1 });
    expect(machine.run(CODE + 1)).toMatchObject({ vector: Vector.invalidOpcode, rip: CODE + 1 });
  });
});
