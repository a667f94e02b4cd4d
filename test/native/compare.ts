/** Runs generated cases on the processor and on an emulator, and says where they differ, masked as the manual allows. */
import { PAGE_SIZE } from '../../src/x86/brand.ts';
import { Flag, Vector } from '../../src/x86/registers.ts';
import { type GeneratedCase, generateCase, templateNames } from './generate.ts';
import {
  CODE_BASE,
  CODE_BYTES,
  CODE_SELECTOR_64,
  Ending,
  initialWindow,
  type Mode,
  type NativeCase,
  type NativeResult,
  runNative,
  SEGMENT_LIMIT,
  UNMAPPED_PAGE,
  WINDOW_BASE,
  WINDOW_BYTES,
} from './oracle.ts';

/** What is under test. Initial state, memory map and result are those of oracle.ts; `initialWindow` and `changedWords` help. */
export interface Emulator {
  run(nativeCase: NativeCase): NativeResult;
  /** Runs many at once where that is faster. */
  runAll?(cases: readonly NativeCase[]): NativeResult[];
}

export interface Difference {
  /** The register, flag or place; groups differences in reports. */
  what: string;
  native: string;
  emulated: string;
}

export interface Failure {
  generated: GeneratedCase;
  expected: NativeResult;
  differences: Difference[];
}

/** Of one template in one mode. */
export interface TemplateReport {
  template: string;
  mode: Mode;
  run: number;
  /** Cases by how they ended on the processor. */
  endings: Map<number, number>;
  failed: number;
  /** Failures by the set of things that differ. */
  kinds: Map<string, number>;
  examples: Failure[];
}

export interface CompareOptions {
  seed: number;
  /** Cases of each template and mode. */
  count: number;
  modes: readonly Mode[];
  /** Template names; all when absent. */
  only?: readonly string[];
  /** First case number. */
  first?: number;
  /** Failures kept of each kind. */
  examples?: number;
  /** Called after each template. */
  progress?: (report: TemplateReport) => void;
}

const BATCH = 4096;
const STATUS_WORD = 2;
const ABRIDGED_TAGS = 4;
const MXCSR = 24;
const STACK = 32;
const XMM = 160;
const REGISTERS = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
];
const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [Flag.carry, 'CF'],
  [Flag.parity, 'PF'],
  [Flag.adjust, 'AF'],
  [Flag.zero, 'ZF'],
  [Flag.sign, 'SF'],
  [Flag.trap, 'TF'],
  [Flag.interrupt, 'IF'],
  [Flag.direction, 'DF'],
  [Flag.overflow, 'OF'],
  [Flag.iopl, 'IOPL'],
  [Flag.nestedTask, 'NT'],
  [Flag.alignmentCheck, 'AC'],
  [Flag.identification, 'ID'],
];
/** Faults that come before the instruction has done anything to the flags. */
const EARLY_FAULTS: ReadonlySet<number> = new Set([
  Vector.invalidOpcode,
  Vector.stackFault,
  Vector.generalProtection,
  Vector.pageFault,
  Vector.alignmentCheck,
]);

/** Runs all templates of the options and returns a report of each. */
export function compareAll(emulator: Emulator, options: CompareOptions): TemplateReport[] {
  const { seed, count, first = 0, only } = options;
  const reports: TemplateReport[] = [];
  let batch: Pending[] = [];
  const flush = (): void => {
    compareBatch(emulator, batch, options.examples ?? 2);
    const complete = [...new Set(batch.map(({ report }) => report))].filter((report) => report.run === count);
    for (const report of complete) options.progress?.(report);
    batch = [];
  };
  for (const mode of options.modes) {
    for (const template of templateNames(mode)) {
      if (only && !only.includes(template)) continue;
      const report = emptyReport(template, mode);
      reports.push(report);
      for (let index = first; index < first + count; index++) {
        batch.push({ generated: generateCase(seed, template, mode, index), report });
        if (batch.length === BATCH) flush();
      }
    }
  }
  flush();
  return reports;
}

/** A case that waits for its batch. */
interface Pending {
  generated: GeneratedCase;
  report: TemplateReport;
}

function emptyReport(template: string, mode: Mode): TemplateReport {
  return { template, mode, run: 0, endings: new Map(), failed: 0, kinds: new Map(), examples: [] };
}

function compareBatch(emulator: Emulator, batch: readonly Pending[], examples: number): void {
  if (batch.length === 0) return;
  const natives = batch.map(({ generated }) => generated.native);
  const expected = runNative(natives);
  const emulated = emulator.runAll?.(natives);
  for (const [i, { generated, report }] of batch.entries()) {
    const result = expected[i] as NativeResult;
    report.run++;
    report.endings.set(result.ending, (report.endings.get(result.ending) ?? 0) + 1);
    const got = emulated?.[i] ?? emulator.run(generated.native);
    const differences = differencesOf(generated, result, got);
    if (differences.length === 0 || doesEither(generated, got)) continue;
    report.failed++;
    const kind = differences.map((difference) => difference.what).join(' ');
    const seen = report.kinds.get(kind) ?? 0;
    report.kinds.set(kind, seen + 1);
    if (seen < examples) report.examples.push({ generated, expected: result, differences });
  }
}

/**
 * Whether the processor does what the emulator did when it is asked again. A page of the window may be absent for a
 * moment (the system moves it), and an ENTER that meets it begins again on a stack that it has half written.
 */
function doesEither(generated: GeneratedCase, emulated: NativeResult): boolean {
  const again = runNative([generated.native])[0] as NativeResult;
  return differencesOf(generated, again, emulated).length === 0;
}

/** Every place where `emulated` is not what `native` allows; empty when they agree. */
export function differencesOf(generated: GeneratedCase, native: NativeResult, emulated: NativeResult): Difference[] {
  const found: Difference[] = [];
  if (isInvalidBeforeItsEnd(native, emulated)) return found;
  const note = (what: string, is: string, got: string): void => {
    found.push({ what, native: is, emulated: got });
  };
  if (native.ending !== emulated.ending) {
    if (!meetsOtherString(generated, native, emulated)) {
      note('ending', endingName(native.ending), endingName(emulated.ending));
    }
  } else if (native.ending === Vector.pageFault) {
    const isSame = native.cr2 === emulated.cr2 || meetsOtherString(generated, native, emulated);
    if (!isSame) note('cr2', hex(native.cr2), hex(emulated.cr2));
    /* Linux reports every address of the kernel's half as present. */
    const compared = native.cr2 >= 0x8000_0000_0000n ? ~1 : ~0;
    compareNumber(note, 'error', native.errorCode & compared, emulated.errorCode & compared);
  } else compareNumber(note, 'error', native.errorCode, emulated.errorCode);
  if (native.rip !== emulated.rip) note('rip', hex(native.rip), hex(emulated.rip));
  compareFlags(note, native, emulated, isEarlyFault(generated, native) ? 0 : generated.mask.flags);
  // What leaves 64-bit code leaves the upper halves of registers undefined (SDM vol. 1, 3.4.1.1).
  compareRegisters(note, native.selectors.cs === CODE_SELECTOR_64 ? 64 : 32, native, emulated);
  for (const name of ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const) {
    compareNumber(note, name, native.selectors[name], emulated.selectors[name]);
  }
  compareState(note, generated, native.state, emulated.state);
  if (native.ending === Ending.landed || !generated.mask.memoryOpenAfterFault) {
    compareMemory(note, generated, native.changed, emulated.changed);
  }
  return found;
}

const SEGMENT_PREFIXES: readonly number[] = [0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];

/** Prefixes that may stand before the opcode of a string instruction: sizes, repetition, segments, REX. */
const isPrefix = (byte: number, mode: Mode): boolean =>
  [0x66, 0x67, 0xf2, 0xf3, ...SEGMENT_PREFIXES].includes(byte) || (mode === 64 && byte >> 4 === 4);

/**
 * Whether CMPS cannot read either string, and each side reports one of them: the manual does not say which is read
 * first. (Zen 3 begins with the second one when addresses have 16 bits, and with REPE CMPSB tells of a second string
 * that is absent before a first one that is outside its segment.)
 */
function meetsOtherString({ native: given }: GeneratedCase, native: NativeResult, emulated: NativeResult): boolean {
  const start = Number(native.rip - BigInt(CODE_BASE + given.codeOffset));
  const code = given.code.subarray(Math.max(start, 0));
  const length = code.findIndex((byte) => !isPrefix(byte, given.mode));
  if (code[length] !== 0xa6 && code[length] !== 0xa7) return false;
  const rsi = native.gprs[REGISTERS.indexOf('rsi')] as bigint;
  const rdi = native.gprs[REGISTERS.indexOf('rdi')] as bigint;
  // Bases of segments are multiples of 64 here, and an element may begin on the page before.
  const isOf = (address: bigint, string: bigint): boolean => BigInt.asUintN(6, address - string) < 8n;
  const faults = [native, emulated].filter(({ ending }) => ending === Vector.pageFault);
  const reported = faults.map(({ cr2 }) => cr2);
  if (reported.some(isMapped)) return false;
  if (faults.length === 2) return [rsi, rdi].every((string) => reported.some((address) => isOf(address, string)));
  const isProtected = [native, emulated].some(({ ending }) => ending === Vector.generalProtection);
  const isOfSecond = reported.some((address) => isOf(address, rdi));
  return isProtected && isOfSecond && given.mode === 32 && isOutside(rsi, code.subarray(0, length));
}

/** Whether a string of 32-bit code is outside the segment of FS or GS that the prefixes choose. */
function isOutside(offset: bigint, prefixes: Uint8Array): boolean {
  const bits = prefixes.includes(0x67) ? 16 : 32;
  const chooses = prefixes.findLast((byte) => SEGMENT_PREFIXES.includes(byte));
  const isLimited = chooses === 0x64 || chooses === 0x65;
  return isLimited && BigInt.asUintN(bits, offset) + 3n > SEGMENT_LIMIT;
}

/** Whether there is a page of the window or of code. */
function isMapped(address: bigint): boolean {
  const isIn = (start: number, bytes: number): boolean => address >= BigInt(start) && address < BigInt(start + bytes);
  const isUnmapped = isIn(WINDOW_BASE + UNMAPPED_PAGE * PAGE_SIZE, PAGE_SIZE);
  return (isIn(WINDOW_BASE, WINDOW_BYTES) && !isUnmapped) || isIn(CODE_BASE, CODE_BYTES);
}

/** Whether the first instruction faulted, before it has done anything to the flags. */
function isEarlyFault({ native }: GeneratedCase, { ending, rip }: NativeResult): boolean {
  return EARLY_FAULTS.has(ending) && rip === BigInt(CODE_BASE + native.codeOffset);
}

/**
 * Whether one side knew an instruction to be invalid from its first bytes, where the other wanted more and met the end
 * of the code pages. The manual does not say how much of an invalid instruction is fetched.
 */
function isInvalidBeforeItsEnd(native: NativeResult, emulated: NativeResult): boolean {
  const meetsEnd = ({ ending, cr2 }: NativeResult): boolean =>
    ending === Vector.pageFault && cr2 === BigInt(CODE_BASE + CODE_BYTES);
  const isInvalid = ({ ending }: NativeResult): boolean => ending === Vector.invalidOpcode;
  if (native.rip !== emulated.rip) return false;
  return (meetsEnd(native) && isInvalid(emulated)) || (isInvalid(native) && meetsEnd(emulated));
}

type Note = (what: string, native: string, emulated: string) => void;

function compareNumber(note: Note, what: string, native: number, emulated: number): void {
  if (native !== emulated) note(what, hex(native), hex(emulated));
}

function compareFlags(note: Note, native: NativeResult, emulated: NativeResult, undefinedFlags: number): void {
  const differing = (native.flags ^ emulated.flags) & ~undefinedFlags & ~Flag.resume;
  if (differing === 0) return;
  for (const [bit, name] of FLAG_NAMES) {
    if (differing & bit) note(name, native.flags & bit ? '1' : '0', emulated.flags & bit ? '1' : '0');
  }
}

function compareRegisters(note: Note, mode: Mode, native: NativeResult, emulated: NativeResult): void {
  const count = mode === 64 ? 16 : 8;
  for (let i = 0; i < count; i++) {
    const is = BigInt.asUintN(mode, native.gprs[i] as bigint);
    const got = BigInt.asUintN(mode, emulated.gprs[i] as bigint);
    if (is !== got) note(REGISTERS[i] as string, hex(is), hex(got));
  }
}

function compareState(note: Note, generated: GeneratedCase, native: Uint8Array, emulated: Uint8Array): void {
  const is = new DataView(native.buffer, native.byteOffset);
  const got = new DataView(emulated.buffer, emulated.byteOffset);
  compareNumber(note, 'fcw', is.getUint16(0, true), got.getUint16(0, true));
  const status = ~generated.mask.status;
  compareNumber(note, 'fsw', is.getUint16(STATUS_WORD, true) & status, got.getUint16(STATUS_WORD, true) & status);
  compareNumber(note, 'ftw', is.getUint8(ABRIDGED_TAGS), got.getUint8(ABRIDGED_TAGS));
  compareNumber(note, 'mxcsr', is.getUint32(MXCSR, true), got.getUint32(MXCSR, true));
  const { approximate } = generated.mask;
  for (let i = 0; i < 8; i++) {
    const at = STACK + 16 * i;
    const exponents = [is.getUint16(at + 8, true), got.getUint16(at + 8, true)] as const;
    const mantissas = [is.getBigUint64(at, true), got.getBigUint64(at, true)] as const;
    if (exponents[0] === exponents[1] && mantissas[0] === mantissas[1]) continue;
    if (approximate === 'transcendental' && i < 2 && isNeighbour(exponents, mantissas)) continue;
    note(`st${i}`, `${hex(exponents[0])}:${hex(mantissas[0])}`, `${hex(exponents[1])}:${hex(mantissas[1])}`);
  }
  const vectors = generated.mode === 64 ? 16 : 8;
  for (let i = 0; i < vectors; i++) {
    const at = XMM + 16 * i;
    let equal = true;
    for (let lane = 0; lane < 16; lane += 4) {
      const a = is.getUint32(at + lane, true);
      const b = got.getUint32(at + lane, true);
      if (a !== b && !(approximate === 'reciprocal' && isClose(a, b))) equal = false;
    }
    if (!equal) note(`xmm${i}`, vectorHex(is, at), vectorHex(got, at));
  }
}

/** Whether two finite 80-bit numbers of equal sign are at most one unit in the last place apart. */
function isNeighbour(exponents: readonly [number, number], mantissas: readonly [bigint, bigint]): boolean {
  if ((exponents[0] ^ exponents[1]) & 0x8000 || (exponents[0] & 0x7fff) === 0x7fff) return false;
  const place = (i: 0 | 1): bigint => (BigInt(exponents[i] & 0x7fff) << 63n) + (mantissas[i] & 0x7fff_ffff_ffff_ffffn);
  const distance = place(0) - place(1);
  return distance >= -1n && distance <= 1n;
}

const floats = new Float32Array(2);
const floatBits = new Uint32Array(floats.buffer);

/** Whether two reciprocals may both approximate one number: finite, of one sign, within twice 1.5 × 2⁻¹². */
function isClose(a: number, b: number): boolean {
  floatBits[0] = a;
  floatBits[1] = b;
  const [first, second] = floats as unknown as readonly [number, number];
  if (!Number.isFinite(first) || !Number.isFinite(second)) return false;
  return Math.abs(first - second) <= Math.abs(first) * 3 * 2 ** -12;
}

function compareMemory(note: Note, generated: GeneratedCase, native: BigUint64Array, emulated: BigUint64Array): void {
  let i = 0;
  let j = 0;
  while (i < native.length || j < emulated.length) {
    const left = i < native.length ? Number(native[i]) : Number.POSITIVE_INFINITY;
    const right = j < emulated.length ? Number(emulated[j]) : Number.POSITIVE_INFINITY;
    const word = Math.min(left, right);
    const is = left === word ? native[i + 1] : undefined;
    const got = right === word ? emulated[j + 1] : undefined;
    if (left === word) i += 2;
    if (right === word) j += 2;
    if (is === got || isIgnored(generated, word, is, got)) continue;
    note('memory', `[${hex(WINDOW_BASE + word * 8)}] ${wordHex(is)}`, wordHex(got));
  }
}

function wordHex(word: bigint | undefined): string {
  return word === undefined ? 'unchanged' : hex(word);
}

/** Whether all differing bytes of a word are ones that the manual leaves open. */
function isIgnored(generated: GeneratedCase, word: number, is: bigint | undefined, got: bigint | undefined): boolean {
  const { memory } = generated.mask;
  if (memory.length === 0) return false;
  const initial = new DataView(initialWindow(generated.native).buffer).getBigUint64(word * 8, true);
  const differing = (is ?? initial) ^ (got ?? initial);
  for (let byte = 0; byte < 8; byte++) {
    const offset = word * 8 + byte;
    if (((differing >> BigInt(byte * 8)) & 0xffn) === 0n) continue;
    if (!memory.some((part) => offset >= part.offset && offset < part.offset + part.length)) return false;
  }
  return true;
}

const ENDING_NAMES: Readonly<Record<number, string>> = {
  [Vector.divideError]: '#DE',
  [Vector.debug]: '#DB',
  [Vector.breakpoint]: '#BP',
  [Vector.overflow]: '#OF',
  [Vector.boundRange]: '#BR',
  [Vector.invalidOpcode]: '#UD',
  [Vector.segmentNotPresent]: '#NP',
  [Vector.stackFault]: '#SS',
  [Vector.generalProtection]: '#GP',
  [Vector.pageFault]: '#PF',
  [Vector.x87]: '#MF',
  [Vector.alignmentCheck]: '#AC',
  [Vector.simd]: '#XM',
  [Ending.landed]: 'done',
  [Ending.timedOut]: 'timeout',
  [Ending.forbidden]: 'system call',
};

export function endingName(ending: number): string {
  return ENDING_NAMES[ending] ?? `vector ${ending}`;
}

export function hex(value: number | bigint): string {
  return value.toString(16);
}

function vectorHex(view: DataView, at: number): string {
  const word = (place: number): string =>
    view
      .getUint32(at + place, true)
      .toString(16)
      .padStart(8, '0');
  return `${word(12)}_${word(8)}_${word(4)}_${word(0)}`;
}

export { REGISTERS };
