/**
 * The oracle: runs instructions on this machine's own processor, many at a time, through `oracle.c`, which is compiled
 * on first use. See the head of oracle.c for the memory map and how it works.
 *
 * A case starts with CPL 3, flat segments (DS, ES and SS 0x2b, CS 0x33 or 0x23), and ends on the first int3 outside its
 * own code or on a fault. FS and GS are, in 64-bit code, null selectors with the bases below; in 32-bit code, the
 * selectors below for read-write segments of 4096 bytes at the same bases.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

export const PAGE = 4096;
export const WINDOW_BASE = 0x1000_0000;
/** Pages 0, 1, 2 and 5 are read-write, 3 is read-only, 4 and everything around is not mapped. */
export const WINDOW_PAGES = 6;
export const WINDOW_BYTES = WINDOW_PAGES * PAGE;
export const READ_ONLY_PAGE = 3;
export const UNMAPPED_PAGE = 4;
export const CODE_BASE = 0x2000_0000;
/** Two pages, execute and read (and write, if the case asks), filled with int3 around the code; nothing is mapped around. */
export const CODE_BYTES = 2 * PAGE;
export const FS_BASE = WINDOW_BASE + 0x1040;
export const GS_BASE = WINDOW_BASE + 0x2080;
/** Last byte offset of the FS and GS segments of 32-bit code. */
export const SEGMENT_LIMIT = 0xfff;
export const CODE_SELECTOR_64 = 0x33;
export const CODE_SELECTOR_32 = 0x23;
export const DATA_SELECTOR = 0x2b;
export const FS_SELECTOR_32 = 0x07;
export const GS_SELECTOR_32 = 0x0f;

export const FXSAVE_BYTES = 512;
/** Bytes of the FXSAVE image that hold state. */
export const STATE_BYTES = 416;

export type Mode = 64 | 32;

/** How a case ended, beside the exception vectors 0–31. */
export const enum Ending {
  /** Arrived at an int3 of the filling; `rip` is its address. */
  landed = 0xff,
  /** Still ran after some tens of milliseconds. */
  timedOut = 0xfe,
  /** Tried a system call. */
  forbidden = 0xfd,
}

/** Initial contents of a part of the window, over the base contents. */
export interface Patch {
  /** From WINDOW_BASE. */
  offset: number;
  bytes: Uint8Array;
}

export interface NativeCase {
  mode: Mode;
  /** At least a byte. */
  code: Uint8Array;
  /** Place of the first code byte, from CODE_BASE. */
  codeOffset: number;
  /** Whether stores into the code pages succeed; they do not when absent. */
  codeWritable?: boolean;
  /** CF PF AF ZF SF DF OF AC ID NT are taken; IF is always one, the others zero. */
  flags: number;
  /** In encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8…r15. 32-bit cases see the low halves of the first eight. */
  gprs: BigUint64Array;
  /** FXSAVE64 image; the first STATE_BYTES count. */
  state: Uint8Array;
  patches: readonly Patch[];
}

export interface NativeResult {
  /** An exception vector or an `Ending`. */
  ending: number;
  /** Of #GP, #SS, #PF and the selector faults; zero else. */
  errorCode: number;
  /** Of #PF; zero else. */
  cr2: bigint;
  /** Where the next instruction would be fetched, or the faulting one is; traps (#BP, #OF, #DB) point behind. */
  rip: bigint;
  /** Without RF. */
  flags: number;
  gprs: BigUint64Array;
  /** FXSAVE64 image, STATE_BYTES long. */
  state: Uint8Array;
  /** Pairs: index of an 8-byte word of the window, its final value; those words that changed, ascending. */
  changed: BigUint64Array;
  selectors: { cs: number; ss: number; ds: number; es: number; fs: number; gs: number };
}

export class OracleError extends Error {}

const MAGIC = 0x314c524f;
const INPUT_CASE_BYTES = 32 + 128 + STATE_BYTES;
const OUTPUT_CASE_BYTES = 48 + 128 + STATE_BYTES;

const SOURCE = fileURLToPath(new URL('./oracle.c', import.meta.url));
const CACHE = fileURLToPath(new URL('../../.cache/native/', import.meta.url));

/** The window as every case finds it but for its patches: fixed pseudo-random bytes. */
export const BASE_WINDOW: Uint8Array = baseWindow();

function baseWindow(): Uint8Array {
  const words = new Uint32Array(WINDOW_BYTES / 4);
  let x = 0x2545f491;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

/** The window that `nativeCase` starts with; a fresh copy. */
export function initialWindow(nativeCase: NativeCase): Uint8Array {
  const window = BASE_WINDOW.slice();
  for (const patch of nativeCase.patches) window.set(patch.bytes, patch.offset);
  return window;
}

/** `NativeResult.changed` for a window before and after. */
export function changedWords(before: Uint8Array, after: Uint8Array): BigUint64Array {
  const was = new BigUint64Array(before.buffer, before.byteOffset, WINDOW_BYTES / 8);
  const is = new BigUint64Array(after.buffer, after.byteOffset, WINDOW_BYTES / 8);
  const changes: bigint[] = [];
  for (let i = 0; i < was.length; i++) {
    const value = is[i] as bigint;
    if (was[i] !== value) changes.push(BigInt(i), value);
  }
  return BigUint64Array.from(changes);
}

/** Why the oracle cannot run here, or null. Compiles it when needed. */
export function oracleUnavailable(): string | null {
  try {
    oracleProgram();
    return null;
  } catch (error) {
    if (error instanceof OracleError) return error.message;
    throw error;
  }
}

let compiled: string | null = null;

function oracleProgram(): string {
  if (compiled) return compiled;
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new OracleError(`the oracle needs Linux on x86-64; this is ${process.platform} on ${process.arch}`);
  }
  const program = `${CACHE}oracle`;
  if (!existsSync(program) || statSync(program).mtimeMs < statSync(SOURCE).mtimeMs) {
    mkdirSync(CACHE, { recursive: true });
    const fresh = `${program}.${process.pid}`;
    try {
      execFileSync(
        'gcc',
        ['-O2', '-Wall', '-Wextra', '-Werror', '-fno-stack-protector', '-Wl,-z,now', '-o', fresh, SOURCE],
        { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' },
      );
    } catch (error) {
      const { code, stderr } = error as { code?: string; stderr?: string };
      if (code === 'ENOENT') throw new OracleError('gcc is not installed; the oracle needs it to compile oracle.c');
      throw new OracleError(`gcc did not compile ${SOURCE}:\n${stderr}`);
    }
    renameSync(fresh, program);
  }
  compiled = program;
  return program;
}

/** Runs all cases, each from its own initial state. Results stand in the order of the cases and view one shared buffer. */
export function runNative(cases: readonly NativeCase[]): NativeResult[] {
  const program = oracleProgram();
  const directory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const stem = `${directory}/ring1-oracle-${process.pid}-${batches++}`;
  const inputPath = `${stem}.in`;
  const outputPath = `${stem}.out`;
  try {
    writeFileSync(inputPath, encodeBatch(cases));
    const run = spawnSync(program, [inputPath, outputPath], {
      encoding: 'utf8',
      timeout: 60_000 + cases.length * 50,
      killSignal: 'SIGKILL',
    });
    if (run.error) throw new OracleError(`the oracle did not run: ${run.error.message}`);
    if (run.status !== 0) {
      throw new OracleError(`the oracle ended with ${run.signal ?? `status ${run.status}`}: ${run.stderr.trim()}`);
    }
    return decodeResults(readFileSync(outputPath), cases.length);
  } finally {
    for (const path of [inputPath, outputPath]) if (existsSync(path)) unlinkSync(path);
  }
}

let batches = 0;

function encodeBatch(cases: readonly NativeCase[]): Uint8Array {
  let length = 16 + WINDOW_BYTES;
  for (const each of cases) length += caseBytes(each);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, cases.length, true);
  bytes.set(BASE_WINDOW, 16);
  let at = 16 + WINDOW_BYTES;
  for (const each of cases) {
    const { code, codeOffset } = each;
    if (code.length < 1 || codeOffset + code.length > CODE_BYTES) {
      throw new OracleError(`a case has ${code.length} code bytes at ${codeOffset}; they must be in the code pages`);
    }
    const recordBytes = caseBytes(each);
    view.setUint32(at, recordBytes, true);
    view.setUint8(at + 4, each.mode);
    view.setUint8(at + 5, each.codeWritable ? 1 : 0);
    view.setUint16(at + 6, each.patches.length, true);
    view.setUint16(at + 8, codeOffset, true);
    view.setUint16(at + 10, code.length, true);
    view.setUint32(at + 16, each.flags, true);
    bytes.set(new Uint8Array(each.gprs.buffer, each.gprs.byteOffset, 128), at + 32);
    bytes.set(each.state.length > STATE_BYTES ? each.state.subarray(0, STATE_BYTES) : each.state, at + 160);
    bytes.set(code, at + INPUT_CASE_BYTES);
    let patchAt = at + INPUT_CASE_BYTES + padded(code.length);
    for (const patch of each.patches) {
      if (patch.offset < 0 || patch.offset + patch.bytes.length > WINDOW_BYTES) {
        throw new OracleError(`a patch of ${patch.bytes.length} bytes at ${patch.offset} leaves the window`);
      }
      view.setUint32(patchAt, patch.offset, true);
      view.setUint32(patchAt + 4, patch.bytes.length, true);
      bytes.set(patch.bytes, patchAt + 8);
      patchAt += patchBytes(patch);
    }
    at += recordBytes;
  }
  return bytes;
}

const padded = (length: number): number => (length + 7) & ~7;

function patchBytes(patch: Patch): number {
  return 8 + padded(patch.bytes.length);
}

function caseBytes(nativeCase: NativeCase): number {
  let bytes = INPUT_CASE_BYTES + padded(nativeCase.code.length);
  for (const patch of nativeCase.patches) bytes += patchBytes(patch);
  return (bytes + 15) & ~15;
}

function decodeResults(file: Uint8Array, count: number): NativeResult[] {
  /* A plain array at an aligned place, where Node may have read into a part of a larger buffer. */
  const buffer =
    file.byteOffset % 8 === 0 ? new Uint8Array(file.buffer, file.byteOffset, file.length) : Uint8Array.from(file);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  const results: NativeResult[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const start = buffer.byteOffset + at;
    results.push({
      ending: view.getUint8(at + 4),
      errorCode: view.getUint32(at + 8, true),
      rip: view.getBigUint64(at + 16, true),
      flags: view.getUint32(at + 24, true),
      cr2: view.getBigUint64(at + 32, true),
      selectors: {
        cs: view.getUint16(at + 12, true),
        ss: view.getUint16(at + 14, true),
        ds: view.getUint16(at + 40, true),
        es: view.getUint16(at + 42, true),
        fs: view.getUint16(at + 44, true),
        gs: view.getUint16(at + 46, true),
      },
      gprs: new BigUint64Array(buffer.buffer, start + 48, 16),
      state: buffer.subarray(at + 176, at + 176 + STATE_BYTES),
      changed: new BigUint64Array(buffer.buffer, start + OUTPUT_CASE_BYTES, view.getUint16(at + 6, true) * 2),
    });
    at += view.getUint32(at, true);
  }
  return results;
}
