import { expect, test } from 'vitest';
import { type CrashState, formatCrash } from '../src/inspect/crash.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';

const TEXT = -0x7f00_0000; // 0xffffffff81000000
const STACK = 0xc000;

function symbolize(address: number) {
  if (address < TEXT || address >= TEXT + 0x2000) return undefined;
  return address < TEXT + 0x1000
    ? { name: 'panic', offset: address - TEXT }
    : { name: 'start_kernel', offset: address - TEXT - 0x1000 };
}

function crashed(changes: Partial<CrashState> = {}): CrashState {
  const registers = new Uint32Array(32);
  registers.set([0x1234_5678, 0x9abc_def0]);
  registers.set([STACK, 0], 8);
  return {
    reason: 'the guest asked for it (sched_op shutdown, reason crash)',
    domain: 'vm1',
    vcpu: 1,
    registers,
    rip: (TEXT + 0x12) as GuestVirtual,
    flags: 0x1_0246,
    selectors: { cs: 0xe033, ss: 0xe02b, ds: 0, es: 0, fs: 0, gs: 0 },
    fsBase: 0 as GuestVirtual,
    gsBase: -0x7e00_0000 as GuestVirtual,
    cr0: 0x8005_0033,
    cr2: -0x1000 as GuestVirtual,
    cr3: 0x1a2b,
    cr4: 0x660,
    wordSize: 8,
    ...changes,
  };
}

function stackOf(words: readonly number[], wordSize: number) {
  return (address: GuestVirtual, out: Uint32Array) => {
    const value = words[(address - STACK) / wordSize];
    if (value === undefined) return false;
    out.set([value >>> 0, Math.floor(value / 2 ** 32) >>> 0]);
    return true;
  };
}

test('the report names place, reason, registers and what may be return addresses', () => {
  const readStack = stackOf([5, TEXT + 0x44, TEXT, 0x7fff_ffff, TEXT + 0x1020], 8);
  expect(formatCrash(crashed(), { symbolize, readStack }).split('\n')).toEqual([
    'RIP: ffffffff81000012 panic+0x12',
    'vm1: vcpu 1 crashed: the guest asked for it (sched_op shutdown, reason crash)',
    'rax 9abcdef012345678  rcx 0000000000000000  rdx 0000000000000000  rbx 0000000000000000',
    'rsp 000000000000c000  rbp 0000000000000000  rsi 0000000000000000  rdi 0000000000000000',
    'r8  0000000000000000  r9  0000000000000000  r10 0000000000000000  r11 0000000000000000',
    'r12 0000000000000000  r13 0000000000000000  r14 0000000000000000  r15 0000000000000000',
    'flags 00010246 (PF ZF IF RF IOPL=0)',
    'cs e033  ss e02b  ds 0000  es 0000  fs 0000  gs 0000  fsbase 0x0  gsbase 0xffffffff82000000',
    'cr0 80050033  cr2 fffffffffffff000  cr3 0x1a2b  cr4 00000660',
    'Stack (? marks a word that looks like a return address and may be an old one):',
    '  ? ffffffff81000044 panic+0x44',
    '  ? ffffffff81001020 start_kernel+0x20',
    '',
  ]);
});

test('32-bit code shows its own registers and reads its stack by words', () => {
  const readStack = stackOf([0xc100_0008], 4);
  const text = formatCrash(crashed({ wordSize: 4, rip: 0xc100_0000 as GuestVirtual }), {
    symbolize: (address) => (address >= 0xc100_0000 ? { name: 'start', offset: address - 0xc100_0000 } : undefined),
    readStack,
  });
  expect(text).toContain('RIP: c1000000 start+0x0');
  expect(text).toContain('eax 12345678');
  expect(text).not.toContain('r8');
  expect(text).toContain('  ? c1000008 start+0x8');
});

test('a stack that is not mapped is said to be so', () => {
  expect(formatCrash(crashed(), { symbolize, readStack: () => false })).toContain('the stack at 0xc000 is not mapped');
});

test('a long stack is cut', () => {
  const text = formatCrash(crashed(), { symbolize, readStack: stackOf(new Array(500).fill(TEXT + 1), 8) });
  expect(text.split('\n').filter((line) => line.startsWith('  ?'))).toHaveLength(40);
});

test('pointers into data are no return addresses', () => {
  const readStack = stackOf([TEXT + 0x44, TEXT + 0x1020], 8);
  const isData = (address: number): boolean => address >= TEXT + 0x1000;
  const text = formatCrash(crashed(), {
    symbolize: (address) => {
      const symbol = symbolize(address);
      return symbol && { ...symbol, isData: isData(address) };
    },
    readStack,
  });
  expect(text).toContain('? ffffffff81000044 panic+0x44');
  expect(text).not.toContain('start_kernel');
});
