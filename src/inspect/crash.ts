import type { GuestVirtual } from '../x86/brand.ts';
import { Flag } from '../x86/registers.ts';
import { digits32, digits64, hexadecimal, type Symbolizer } from './text.ts';

/** A guest that cannot go on, as it stood. */
export interface CrashState {
  /** Why, as a sentence without the full stop. */
  readonly reason: string;
  readonly domain: string;
  readonly vcpu: number;
  /** General registers in the architecture's order, low and high half each: 32 words. */
  readonly registers: Uint32Array;
  readonly rip: GuestVirtual;
  readonly flags: number;
  readonly selectors: Readonly<Record<'cs' | 'ss' | 'ds' | 'es' | 'fs' | 'gs', number>>;
  readonly fsBase: GuestVirtual;
  readonly gsBase: GuestVirtual;
  readonly cr0: number;
  readonly cr2: GuestVirtual;
  /** Root of the page tables in the guest's numbering. */
  readonly cr3: number;
  readonly cr4: number;
  /** 4 for 32-bit code. */
  readonly wordSize: 4 | 8;
}

export interface CrashReaders {
  readonly symbolize: Symbolizer;
  /** Stores the stack word at an address into `out` (low, high half); false when it is not mapped. */
  readStack(address: GuestVirtual, out: Uint32Array): boolean;
}

/** Words of the stack that are looked at: a kernel stack of 16 KiB. */
const STACK_WORDS = 2048;
/** Entries that are printed; a longer list helps nobody. */
const MOST_ENTRIES = 40;

const REGISTER_NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;
const RSP = 4;

const flagNames: readonly (readonly [bit: number, name: string])[] = [
  [Flag.carry, 'CF'],
  [Flag.parity, 'PF'],
  [Flag.adjust, 'AF'],
  [Flag.zero, 'ZF'],
  [Flag.sign, 'SF'],
  [Flag.trap, 'TF'],
  [Flag.interrupt, 'IF'],
  [Flag.direction, 'DF'],
  [Flag.overflow, 'OF'],
  [Flag.nestedTask, 'NT'],
  [Flag.resume, 'RF'],
  [Flag.virtual8086, 'VM'],
  [Flag.alignmentCheck, 'AC'],
];

/** The report of a crash: reason, place, registers, and what on the stack may be return addresses. */
export function formatCrash(state: CrashState, readers: CrashReaders): string {
  const lines = [
    `RIP: ${place(state.rip, readers.symbolize, state.wordSize)}`,
    `${state.domain}: vcpu ${state.vcpu} crashed: ${state.reason}`,
    ...registerLines(state),
    'Stack (? marks a word that looks like a return address and may be an old one):',
    ...stackLines(state, readers),
  ];
  return `${lines.join('\n')}\n`;
}

function place(address: number, symbolize: Symbolizer, wordSize: 4 | 8): string {
  const symbol = symbolize(address);
  const shown = wordSize === 8 ? wide(address) : digits32(address);
  return symbol === undefined ? shown : `${shown} ${symbol.name}+0x${symbol.offset.toString(16)}`;
}

function wide(value: number): string {
  return digits64(value >>> 0, Math.floor(value / 0x1_0000_0000));
}

function registerLines(state: CrashState): string[] {
  const { registers, wordSize, selectors } = state;
  const count = wordSize === 8 ? 16 : 8;
  const perLine = 4;
  const lines: string[] = [];
  for (let first = 0; first < count; first += perLine) {
    const shown: string[] = [];
    for (let number = first; number < first + perLine; number++) {
      const low = registers[number * 2] ?? 0;
      const high = registers[number * 2 + 1] ?? 0;
      const name = registerName(number, wordSize).padEnd(3);
      shown.push(`${name} ${wordSize === 8 ? digits64(low, high) : digits32(low)}`);
    }
    lines.push(shown.join('  '));
  }
  const names = flagNames.filter(([bit]) => (state.flags & bit) !== 0).map(([, name]) => name);
  const iopl = (state.flags & Flag.iopl) >> Flag.ioplShift;
  lines.push(`flags ${digits32(state.flags)} (${[...names, `IOPL=${iopl}`].join(' ')})`);
  const segments = Object.entries(selectors).map(([name, value]) => `${name} ${value.toString(16).padStart(4, '0')}`);
  lines.push(`${segments.join('  ')}  fsbase ${hexadecimal(state.fsBase)}  gsbase ${hexadecimal(state.gsBase)}`);
  lines.push(
    `cr0 ${digits32(state.cr0)}  cr2 ${wordSize === 8 ? wide(state.cr2) : digits32(state.cr2)}  cr3 ${hexadecimal(state.cr3)}  cr4 ${digits32(state.cr4)}`,
  );
  return lines;
}

function registerName(number: number, wordSize: 4 | 8): string {
  const legacy = REGISTER_NAMES[number];
  if (legacy === undefined) return `r${number}`;
  return wordSize === 8 ? legacy : `e${legacy.slice(1)}`;
}

function stackLines(state: CrashState, readers: CrashReaders): string[] {
  const { registers, wordSize } = state;
  const low = registers[RSP * 2] ?? 0;
  const high = registers[RSP * 2 + 1] ?? 0;
  const stack = wordSize === 8 ? (high | 0) * 0x1_0000_0000 + low : low;
  const out = new Uint32Array(2);
  const lines: string[] = [];
  let address = stack - (((stack % wordSize) + wordSize) % wordSize);
  for (let word = 0; word < STACK_WORDS && lines.length < MOST_ENTRIES; word++, address += wordSize) {
    if (!readers.readStack(address as GuestVirtual, out)) {
      if (word === 0) lines.push(`  the stack at ${hexadecimal(stack)} is not mapped`);
      break;
    }
    const value = wordSize === 8 ? ((out[1] ?? 0) | 0) * 0x1_0000_0000 + (out[0] ?? 0) : (out[0] ?? 0);
    // A return address is behind a call, never in data and never at the first byte of a function.
    const symbol = Number.isSafeInteger(value) ? readers.symbolize(value) : undefined;
    if (symbol === undefined || symbol.offset === 0 || symbol.isData) continue;
    lines.push(`  ? ${place(value, readers.symbolize, wordSize)}`);
  }
  if (lines.length === 0) lines.push('  nothing that looks like a return address');
  return lines;
}
