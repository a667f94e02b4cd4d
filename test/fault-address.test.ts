import { beforeEach, describe, expect, test } from 'vitest';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';

/** MOV from CR2 (SDM vol. 2A), where generated code may carry it out. */
const ADDRESS = -0x1234_5678_9abc as GuestVirtual;
/** mov rax, cr2; mov r9, cr2; hlt */
const PROGRAM = '0f20d0 410f20d1 f4';
/** mov rax, cr3; hlt */
const OTHER_REGISTER = '0f20d8 f4';

/** What a machine says that carries out no privileged instructions. */
const LEFT = 'mov was not executed';

describe.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('the address of a fault in %s', (_name, options) => {
  let machine: RegionMachine;
  let reads: number;

  const load = (program: string, privilege: 0 | 3): void => {
    machine = new RegionMachine('four-level', options, program);
    machine.setPrivilege(privilege);
    machine.processor.faultAddress = () => {
      reads++;
      return ADDRESS;
    };
  };

  beforeEach(() => {
    reads = 0;
  });

  test('is read by the kernel, each time from the host', () => {
    load(PROGRAM, 0);
    expect(machine.execute({ rax: 1 })).toMatchObject({ vector: null });
    expect(machine.processor.value(Register.rax)).toBe(ADDRESS);
    expect(machine.processor.value(Register.r9)).toBe(ADDRESS);
    expect(reads).toBe(2);
  });

  test.each([
    ['by programs', PROGRAM, 3],
    ['from another register', OTHER_REGISTER, 0],
  ] as const)('is not read %s', (_who, program, privilege) => {
    load(program, privilege);
    expect(() => machine.execute()).toThrow(LEFT);
    expect(reads).toBe(0);
  });

  test('is not read where the host wants to see it', () => {
    load(PROGRAM, 0);
    machine.processor.faultAddress = undefined;
    expect(() => machine.execute()).toThrow(LEFT);
  });
});
