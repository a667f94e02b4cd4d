import { beforeEach, describe, expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { Cr4, Register, Vector } from '../src/x86/registers.ts';
import { AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';

/** RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE (SDM vol. 2B), in ring 3. */

const BASE = 0x1234_5678_9abc;
/** wrfsbase rbx; wrgsbase ebx; rdfsbase rax; rdgsbase rcx; rdfsbase edx; hlt */
const PROGRAM = 'f3480faed3 f30faedb f3480faec0 f3480faec9 f30faec2 f4';
const HALTED = { vector: null };

describe.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('bases of FS and GS in %s', (_name, options) => {
  let machine: RegionMachine;

  beforeEach(() => {
    machine = new RegionMachine('four-level', options, PROGRAM);
    machine.processor.cr4 |= Cr4.fsgsbase;
  });

  test('are written and read in either width', () => {
    expect(machine.execute({ rbx: BASE, rdx: -1 })).toMatchObject(HALTED);
    const { processor } = machine;
    expect(processor.segmentBase(SegmentRegister.fs)).toBe(BASE);
    expect(processor.segmentBase(SegmentRegister.gs)).toBe(BASE % 2 ** 32);
    expect(processor.value(Register.rax)).toBe(BASE);
    expect(processor.value(Register.rcx)).toBe(BASE % 2 ** 32);
    expect(processor.value(Register.rdx)).toBe(BASE % 2 ** 32);
  });

  test('cannot be addresses that are not canonical', () => {
    machine.processor.setSegmentBase(SegmentRegister.fs, 7 as GuestVirtual);
    expect(machine.execute({ rbx: 2 ** 47 })).toMatchObject({ vector: Vector.generalProtection, error: 0 });
    expect(machine.processor.segmentBase(SegmentRegister.fs)).toBe(7);
  });

  test('are no business of programs unless the kernel allows it', () => {
    machine.processor.cr4 &= ~Cr4.fsgsbase;
    expect(machine.execute({ rbx: BASE })).toMatchObject({ vector: Vector.invalidOpcode });
  });
});
