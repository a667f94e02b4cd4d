/** Code that changes after it was made into regions, and regions that are seen at several addresses or go away. */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { PageFaultError, Pte, Register, Vector } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AGAIN, AT_ONCE, FORMATS, INTERPRETER, RegionMachine } from './region-machine.ts';
import { ALL_RIGHTS, CODE, DATA } from './system-machine.ts';

const HALTED = { vector: null };
const OTHER_PAGE = CODE + PAGE_SIZE;
/** A further address for frames of code; it shares no place in the TLB with the others. */
const ALIAS = 0x00a0_7000;

/** Adds 1, 2, 3 … to EAX: each time round it adds 1 to the immediate of the instruction ahead, at EBX + 6. */
const CHANGES_AHEAD = listing(`
  80 43 06 01   add byte [ebx + 6], 1
  83 c0 00      add eax, 0
  83 e9 01      sub ecx, 1
  75 f4         jne: to the start
  f4            hlt
`);

describe.each(FORMATS)('with %s page tables', (format) => {
  const valueIn = (machine: RegionMachine, register = Register.rax) => machine.processor.value(register);

  test('a region sees what it changes ahead of itself', () => {
    const machine = new RegionMachine(format, AT_ONCE, CHANGES_AHEAD);
    expect(machine.execute({ rbx: CODE, rcx: 6 })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(1 + 2 + 3 + 4 + 5 + 6);
    expect(machine.group.jit?.dropped).toBeGreaterThanOrEqual(6);
  });

  test('a region sees what it changes behind itself', () => {
    const machine = new RegionMachine(
      format,
      AT_ONCE,
      listing(`
        83 c0 01      add eax, 1
        80 73 01 28   xor byte [ebx + 1], 0x28: makes sub of add, and add of sub
        83 e9 01      sub ecx, 1
        75 f4         jne: to the start
        f4            hlt
      `),
    );
    expect(machine.execute({ rbx: CODE, rcx: 5 })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(1);
  });

  test('an instruction that changes its own bytes is executed as it was', () => {
    const machine = new RegionMachine(
      format,
      AT_ONCE,
      listing(`
        80 43 03 01   add byte [ebx + 3], 1: its own immediate
        83 e9 01      sub ecx, 1
        75 f7         jne: to the start
        8a 43 03      mov al, [ebx + 3]
        f4            hlt
      `),
    );
    expect(machine.execute({ rbx: CODE, rcx: 5 })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(32);
  });

  test.each([
    ['the interpreter', INTERPRETER],
    ['regions', AT_ONCE],
  ])('a repeated store over its own bytes ends equally for every budget of %s', (_way, options) => {
    const machine = new RegionMachine(format, options, 'f3aa f4'); // rep stosb; hlt
    const { processor } = machine;
    for (const budget of [1, 2, 3, 100, 1000]) {
      machine.load(CODE, 'f3aa f4');
      machine.restart({ rdi: CODE, rcx: 3 });
      processor.setValue(Register.rax, 0x90); // nop
      let exit = Exit.budget;
      while (exit === Exit.budget) exit = processor.run(budget);
      const [left, next] = [processor.value(Register.rcx), processor.rip - CODE];
      expect({ exit, left, next }, `budget ${budget}`).toEqual({ exit: Exit.system, left: 2, next: 2 });
    }
  });

  test('a store into another page drops the regions whose bytes it changes, and no other', () => {
    const machine = new RegionMachine(
      format,
      AT_ONCE,
      listing(`
        80 47 02 01   add byte [edi + 2], 1
        ff d7         call edi
        ff d6         call esi
        83 e9 01      sub ecx, 1
        75 f3         jne: to the start
        f4            hlt
      `),
    );
    machine.load(OTHER_PAGE, '83c000 c3'); // add eax, 0; ret
    machine.load(OTHER_PAGE + 0x100, '83c201 c3'); // add edx, 1; ret
    const untouched = (rcx: number) => {
      machine.execute({ rcx, rdi: OTHER_PAGE, rsi: OTHER_PAGE + 0x100 });
      return machine.regionAt(OTHER_PAGE + 0x100);
    };
    const before = untouched(1);
    expect(before).toBeDefined();
    expect(untouched(5)).toBe(before);
    expect(valueIn(machine)).toBe(2 + 3 + 4 + 5 + 6);
    expect(valueIn(machine, Register.rdx)).toBe(5);
  });

  test('a store through another mapping of the frame changes the code', () => {
    const machine = new RegionMachine(format, AT_ONCE, CHANGES_AHEAD);
    machine.map(ALIAS, machine.numberAt(CODE));
    expect(machine.execute({ rbx: ALIAS, rcx: 6 })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(1 + 2 + 3 + 4 + 5 + 6);
  });

  test('a mapping that was written through before its frame held code is seen to be written again', () => {
    const machine = new RegionMachine(
      format,
      AGAIN,
      listing(`
        c6 43 02 01   mov byte [ebx + 2], 1
        83 c6 01      add esi, 1
        83 fe 04      cmp esi, 4
        75 f4         jne: to the start
        ff d7         call edi: the code whose immediate was written
        ff d7         call edi
        ff d7         call edi
        c6 43 02 10   mov byte [ebx + 2], 16
        ff d7         call edi
        f4            hlt
      `),
    );
    machine.load(OTHER_PAGE, '83c000 c3'); // add eax, 0; ret
    machine.map(ALIAS, machine.numberAt(OTHER_PAGE));
    expect(machine.execute({ rbx: ALIAS, rdi: OTHER_PAGE })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(1 + 1 + 1 + 16);
  });

  test('a processor sees what another one changes in a region that both execute', () => {
    const machine = new RegionMachine(
      format,
      AGAIN,
      listing(`
        83 c0 01      add eax, 1
        83 e9 01      sub ecx, 1
        75 f8         jne: to the start
        c6 43 02 03   mov byte [ebx + 2], 3: what is added
        f4            hlt
      `),
    );
    const other = machine.addProcessor();
    const runOther = (rcx: number) => {
      other.setValue(Register.rax, 0);
      other.setValue(Register.rcx, rcx);
      other.setValue(Register.rbx, DATA);
      other.rip = CODE as GuestVirtual;
      expect(other.run(1000)).toBe(Exit.system);
      return other.value(Register.rax);
    };
    expect(runOther(20)).toBe(20);
    const region = machine.regionAt(CODE);
    expect(region).toBeDefined();
    expect(machine.execute({ rcx: 20, rbx: CODE })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(20);
    expect(machine.regionAt(CODE)).not.toBe(region);
    expect(runOther(20)).toBe(60);
  });

  test('one region serves all addresses of its frame, each with its own return addresses', () => {
    const machine = new RegionMachine(
      format,
      AGAIN,
      listing(`
        ff d7      call edi
        ff d6      call esi
        83 e9 01   sub ecx, 1
        75 f7      jne: to the start
        f4         hlt
      `),
    );
    machine.load(
      OTHER_PAGE + 0x80,
      listing(`
        e8 00000000   call: to what follows
        58            pop eax
        01 c2         add edx, eax
        c3            ret
      `),
    );
    machine.map(ALIAS, machine.numberAt(OTHER_PAGE));
    const [rdi, rsi] = [OTHER_PAGE + 0x80, ALIAS + 0x80];
    expect(machine.execute({ rcx: 10, rdi, rsi })).toMatchObject(HALTED);
    expect(valueIn(machine, Register.rdx)).toBe(10 * (rdi + 5 + rsi + 5));
    expect(machine.regionAt(rdi)).toBeDefined();
    expect(machine.instructionsInRegions).toBeGreaterThan(40);
  });

  test('code that is no longer mapped faults, and another frame in its place is executed', () => {
    const machine = new RegionMachine(
      format,
      AGAIN,
      listing(`
        ff d7      call edi
        83 e9 01   sub ecx, 1
        75 f9      jne: to the start
        f4         hlt
      `),
    );
    machine.load(OTHER_PAGE, '83c001 c3'); // add eax, 1; ret
    expect(machine.execute({ rcx: 9, rdi: OTHER_PAGE })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(9);

    machine.map(OTHER_PAGE, 0, 0);
    machine.processor.invalidatePage(OTHER_PAGE as GuestVirtual);
    expect(machine.execute({ rcx: 9, rdi: OTHER_PAGE })).toMatchObject({
      vector: Vector.pageFault,
      error: PageFaultError.user | (machine.processor.efer !== 0 ? PageFaultError.fetch : 0),
      cr2: OTHER_PAGE,
      rip: OTHER_PAGE,
    });

    machine.map(OTHER_PAGE, machine.allocate());
    machine.load(OTHER_PAGE, '83c005 c3'); // add eax, 5; ret
    machine.processor.invalidatePage(OTHER_PAGE as GuestVirtual);
    expect(machine.execute({ rcx: 9, rdi: OTHER_PAGE })).toMatchObject(HALTED);
    expect(valueIn(machine)).toBe(45);
  });

  describe('an instruction that crosses a page', () => {
    const start = OTHER_PAGE - 8;
    /** What stands on the second page: the end of the instruction, and the rest of the loop. */
    const second = (immediate: string) =>
      listing(`
        ${immediate}   … edx, …
        83 e9 01       sub ecx, 1
        75 f2          jne: to the start
        f4             hlt
      `);

    /** Has a region of the first page, which goes on over its end. */
    function withRegion(): { machine: RegionMachine; region: object } {
      const machine = new RegionMachine(format, AGAIN, 'f4');
      machine.load(
        start,
        listing(`
          83 c0 01     add eax, 1
          eb 01        jmp: to add edx
          90           nop
          83 c2        add edx, …
        `),
      );
      machine.load(OTHER_PAGE, second('01'));
      expect(machine.execute({ rcx: 6 }, start)).toMatchObject(HALTED);
      expect(valueIn(machine, Register.rdx)).toBe(6);
      const region = machine.regionAt(start);
      if (!region) throw new Error('there is no region');
      return { machine, region };
    }

    test('has the bytes of the page that is mapped behind it', () => {
      const { machine, region } = withRegion();
      machine.map(OTHER_PAGE, machine.allocate());
      machine.processor.invalidatePage(OTHER_PAGE as GuestVirtual);
      machine.load(OTHER_PAGE, second('07'));
      expect(machine.regionAt(start)).toBe(region);
      expect(machine.execute({ rcx: 6 }, start)).toMatchObject(HALTED);
      expect(valueIn(machine, Register.rdx)).toBe(42);
    });

    test('faults when no page is, though its bytes stand where the TLB would have it', () => {
      const { machine, region } = withRegion();
      const rival = OTHER_PAGE + machine.group.parts.tlbEntries * PAGE_SIZE;
      machine.map(rival, machine.numberAt(OTHER_PAGE));
      machine.map(OTHER_PAGE, 0, 0);
      machine.processor.invalidatePage(OTHER_PAGE as GuestVirtual);
      machine.load(CODE, '8b03 f4'); // mov eax, [ebx]; hlt
      expect(machine.execute({ rbx: rival })).toMatchObject(HALTED);
      expect(machine.regionAt(start)).toBe(region);
      expect(machine.execute({ rcx: 6 }, start)).toMatchObject({ vector: Vector.pageFault, cr2: OTHER_PAGE });
    });
  });

  test('code runs on over the end of a page, whichever of its bytes are in front of it', () => {
    const code = listing(`
      ${'83c001'.repeat(4)}   add eax, 1, four times
      83 e9 01   sub ecx, 1
      75 ef      jne: to the start
      f4         hlt
    `);
    const machine = new RegionMachine(format, AGAIN, 'f4');
    for (let bytes = 0; bytes <= code.length / 2; bytes++) {
      machine.load(OTHER_PAGE - bytes, code);
      expect(machine.execute({ rcx: 8 }, OTHER_PAGE - bytes), `${bytes} bytes`).toMatchObject(HALTED);
      expect(valueIn(machine), `${bytes} bytes`).toBe(32);
    }
  });

  test('a region of the kernel and of a program obeys the rights of whoever executes it', () => {
    const machine = new RegionMachine(format, AT_ONCE, '8b03 f4'); // mov eax, [ebx]; hlt
    machine.map(DATA, machine.numberAt(DATA), ALL_RIGHTS & ~Pte.user);
    const error = PageFaultError.present | PageFaultError.user;
    for (let round = 0; round < 3; round++) {
      machine.setPrivilege(0);
      expect(machine.execute({ rbx: DATA })).toMatchObject(HALTED);
      machine.setPrivilege(3);
      expect(machine.execute({ rbx: DATA })).toMatchObject({ vector: Vector.pageFault, error, cr2: DATA, rip: CODE });
    }
  });
});

test('a region finds what it addresses relative to itself at each address of its frame', () => {
  const machine = new RegionMachine(
    'four-level',
    AGAIN,
    listing(`
      ff d7      call rdi
      ff d6      call rsi
      83 e9 01   sub ecx, 1
      75 f7      jne: to the start
      f4         hlt
    `),
  );
  machine.load(OTHER_PAGE, '48 8d 05 f9ffffff 48 03 15 f6ffffff c3'); // lea rax, [rip - 7]; add rdx, [rip - 10]; ret
  machine.map(ALIAS, machine.numberAt(OTHER_PAGE));
  machine.execute({ rcx: 4, rdi: OTHER_PAGE, rsi: ALIAS });
  expect(machine.processor.value(Register.rax)).toBe(ALIAS);
  machine.execute({ rcx: 4, rdi: ALIAS, rsi: OTHER_PAGE });
  expect(machine.processor.value(Register.rax)).toBe(OTHER_PAGE);
});
