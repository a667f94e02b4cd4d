/** Operand values that find mistakes: the edges of every integer and floating-point format. */
import { CODE_BASE, WINDOW_BASE } from './oracle.ts';
import type { Random } from './random.ts';

/** What a memory operand or a vector register holds. */
export type DataKind = 'integer' | 'f32' | 'f64' | 'f80' | 'bcd' | 'text';

const INTEGER_EDGES: readonly bigint[] = integerEdges();
const F32_EDGES: readonly number[] = [
  0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x807fffff, 0x00400000, 0x00800000, 0x80800000,
  0x00800001, 0x3f800000, 0xbf800000, 0x3f7fffff, 0x3f800001, 0x3f000000, 0xbf000000, 0x3effffff, 0x3fc00000,
  0x40000000, 0x40200000, 0xc0200000, 0x4b000000, 0x4b7fffff, 0x4b800000, 0x4e7fffff, 0x4effffff, 0x4f000000,
  0xcf000000, 0xcf000001, 0x4f7fffff, 0x5effffff, 0x5f000000, 0xdf000000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
  0xff800000, 0x7fc00000, 0xffc00000, 0x7fc12345, 0xffd54321, 0x7f800001, 0xff800001, 0x7fa00000, 0x7fbfffff,
  0xffbfffff, 0x7fffffff, 0xffffffff, 0x46fffe00, 0x47000000, 0xc7000000, 0x477fff00, 0x42fe0000, 0x33800000,
];
const F64_EDGES: readonly bigint[] = [
  0x0000000000000000n,
  0x8000000000000000n,
  0x0000000000000001n,
  0x8000000000000001n,
  0x000fffffffffffffn,
  0x800fffffffffffffn,
  0x0008000000000000n,
  0x0010000000000000n,
  0x8010000000000000n,
  0x0010000000000001n,
  0x3ff0000000000000n,
  0xbff0000000000000n,
  0x3fefffffffffffffn,
  0x3ff0000000000001n,
  0x3fe0000000000000n,
  0xbfe0000000000000n,
  0x3fdfffffffffffffn,
  0x3ff8000000000000n,
  0x4004000000000000n,
  0xc004000000000000n,
  0x41dfffffffc00000n,
  0x41dfffffffe00000n,
  0x41e0000000000000n,
  0xc1e0000000000000n,
  0xc1e0000000100000n,
  0xc1e0000000200000n,
  0x41efffffffe00000n,
  0x41f0000000000000n,
  0x43dfffffffffffffn,
  0x43e0000000000000n,
  0xc3e0000000000000n,
  0xc3e0000000000001n,
  0x4330000000000000n,
  0x4340000000000000n,
  0x43f0000000000000n,
  0x40dfffe000000000n,
  0x40e0000000000000n,
  0xc0e0000000000000n,
  0xc0e0001000000000n,
  0x36a0000000000000n,
  0x3690000000000000n,
  0x380fffffffffffffn,
  0x3810000000000000n,
  0x380ffffff0000000n,
  0x47efffffe0000000n,
  0x47effffff0000000n,
  0x47efffffefffffffn,
  0x47f0000000000000n,
  0x7fefffffffffffffn,
  0xffefffffffffffffn,
  0x7ff0000000000000n,
  0xfff0000000000000n,
  0x7ff8000000000000n,
  0xfff8000000000000n,
  0x7ff8123456789abcn,
  0xfffabcdef0123456n,
  0x7ff0000000000001n,
  0xfff0000000000001n,
  0x7ff4000000000000n,
  0x7ff7ffffffffffffn,
  0xffffffffffffffffn,
  0x7fffffffffffffffn,
];
/** Sign and exponent, mantissa. */
const F80_EDGES: readonly (readonly [number, bigint])[] = [
  [0x0000, 0x0000000000000000n],
  [0x8000, 0x0000000000000000n],
  [0x0000, 0x0000000000000001n],
  [0x8000, 0x7fffffffffffffffn],
  [0x0000, 0x8000000000000000n],
  [0x8000, 0x8000000000000001n],
  [0x0001, 0x8000000000000000n],
  [0x8001, 0x8000000000000001n],
  [0x0001, 0xffffffffffffffffn],
  [0x3fff, 0x8000000000000000n],
  [0xbfff, 0x8000000000000000n],
  [0x3ffe, 0xffffffffffffffffn],
  [0x3fff, 0x8000000000000001n],
  [0x3ffe, 0x8000000000000000n],
  [0xbffe, 0x8000000000000000n],
  [0x3ffd, 0xffffffffffffffffn],
  [0x3fff, 0xc000000000000000n],
  [0x4000, 0x8000000000000000n],
  [0x4000, 0xa000000000000000n],
  [0xc000, 0xa000000000000000n],
  [0x4000, 0xc90fdaa22168c235n],
  [0x400d, 0xfffe000000000000n],
  [0x400e, 0x8000000000000000n],
  [0xc00e, 0x8000000000000000n],
  [0xc00e, 0x8001000000000000n],
  [0x401d, 0xffffffff00000000n],
  [0x401d, 0xfffffffe80000000n],
  [0x401e, 0x8000000000000000n],
  [0xc01e, 0x8000000000000000n],
  [0xc01e, 0x8000000080000000n],
  [0x403d, 0xffffffffffffffffn],
  [0x403e, 0x8000000000000000n],
  [0xc03e, 0x8000000000000000n],
  [0xc03e, 0x8000000000000001n],
  [0x403a, 0xde0b6b3a763ffff0n],
  [0x403a, 0xde0b6b3a76400000n],
  [0x403e, 0xffffffffffffffffn],
  [0x3c01, 0x8000000000000000n],
  [0x3c00, 0xfffffffffffff800n],
  [0x3c00, 0xfffffffffffffc00n],
  [0x3bcd, 0x8000000000000000n],
  [0x3bcc, 0x8000000000000000n],
  [0x43fe, 0xfffffffffffff800n],
  [0x43fe, 0xfffffffffffffc00n],
  [0x43ff, 0x8000000000000000n],
  [0x3f81, 0x8000000000000000n],
  [0x3f80, 0xffffff0000000000n],
  [0x3f80, 0xffffff8000000000n],
  [0x407e, 0xffffff0000000000n],
  [0x407e, 0xffffff8000000000n],
  [0x407f, 0x8000000000000000n],
  [0x7ffe, 0xffffffffffffffffn],
  [0xfffe, 0xffffffffffffffffn],
  [0x7fff, 0x8000000000000000n],
  [0xffff, 0x8000000000000000n],
  [0x7fff, 0xc000000000000000n],
  [0xffff, 0xc000000000000000n],
  [0x7fff, 0xc123456789abcdefn],
  [0x7fff, 0x8000000000000001n],
  [0xffff, 0xbfffffffffffffffn],
  [0x7fff, 0xffffffffffffffffn],
];
/** Encodings that no processor since the 387 produces. */
const F80_UNSUPPORTED: readonly (readonly [number, bigint])[] = [
  [0x7fff, 0x0000000000000000n],
  [0x7fff, 0x4000000000000000n],
  [0xffff, 0x0000000000000001n],
  [0x3fff, 0x4000000000000000n],
  [0x4000, 0x0000000000000000n],
  [0x0001, 0x7fffffffffffffffn],
];

function integerEdges(): bigint[] {
  const edges = new Set<bigint>([0n, 1n, 2n, 3n, 7n, 8n, 9n, 10n, 15n, 16n, 17n, 31n, 32n, 33n, 63n, 64n, 65n, 99n]);
  for (let bit = 0n; bit < 64n; bit++) {
    edges.add(1n << bit);
    edges.add(BigInt.asUintN(64, (1n << bit) - 1n));
    edges.add(BigInt.asUintN(64, (1n << bit) + 1n));
    edges.add(BigInt.asUintN(64, -(1n << bit)));
    edges.add(BigInt.asUintN(64, ~(1n << bit)));
  }
  for (const pattern of [0x5555555555555555n, 0xaaaaaaaaaaaaaaaan, 0x0123456789abcdefn, 0x8080808080808080n]) {
    edges.add(pattern);
  }
  return [...edges];
}

export function integer(random: Random): bigint {
  const kind = random.below(100);
  if (kind < 50) return random.pick(INTEGER_EDGES);
  if (kind < 60) return BigInt(random.below(256));
  if (kind < 65) return BigInt.asUintN(64, -BigInt(random.below(256)));
  if (kind < 72) return BigInt(WINDOW_BASE + random.below(0x6000));
  if (kind < 74) return BigInt(CODE_BASE + random.below(0x2000));
  if (kind < 80) return BigInt(random.word());
  return (BigInt(random.word()) << 32n) | BigInt(random.word());
}

export function f32(random: Random): number {
  const kind = random.below(100);
  if (kind < 50) return random.pick(F32_EDGES);
  if (kind < 75) return ((random.word() & 0x807fffff) | (random.between(0x67, 0x9f) << 23)) >>> 0;
  if (kind < 80) return (random.word() & 0x807fffff) >>> 0;
  return random.word();
}

export function f64(random: Random): bigint {
  const kind = random.below(100);
  if (kind < 50) return random.pick(F64_EDGES);
  const low = random.chance(30) ? 0 : random.word();
  let high = random.word();
  if (kind < 75) high = (high & 0x800fffff) | (random.between(0x3c0, 0x440) << 20);
  else if (kind < 80) high &= 0x800fffff;
  else if (kind < 85) high = (high & 0x800fffff) | (random.between(0x360, 0x390) << 20);
  return (BigInt(high >>> 0) << 32n) | BigInt(low);
}

/** Writes an 80-bit value of ten bytes. */
export function writeF80(random: Random, view: DataView, at: number): void {
  const kind = random.below(100);
  if (kind < 52) {
    const [exponent, mantissa] = random.pick(kind < 2 ? F80_UNSUPPORTED : F80_EDGES);
    view.setUint16(at + 8, exponent, true);
    view.setBigUint64(at, mantissa, true);
    return;
  }
  const bits = random.pick([8, 24, 53, 64]);
  const mantissa = ((BigInt(random.word()) << 32n) | BigInt(random.word())) & (~0n << BigInt(64 - bits));
  view.setBigUint64(at, BigInt.asUintN(64, mantissa | (1n << 63n)), true);
  let exponent = random.between(1, 0x7ffe);
  if (kind < 80) exponent = random.between(0x3fff - 70, 0x3fff + 70);
  view.setUint16(at + 8, exponent | (random.below(2) << 15), true);
}

/** `count` bytes of values of one kind. */
export function data(random: Random, kind: DataKind, count: number): Uint8Array {
  const bytes = new Uint8Array((count + 15) & ~15);
  const view = new DataView(bytes.buffer);
  if (kind === 'f32') {
    for (let at = 0; at < count; at += 4) view.setUint32(at, f32(random), true);
  } else if (kind === 'f64') {
    for (let at = 0; at < count; at += 8) view.setBigUint64(at, f64(random), true);
  } else if (kind === 'f80') {
    for (let at = 0; at + 10 <= count; at += 10) writeF80(random, view, at);
  } else if (kind === 'bcd') {
    for (let at = 0; at < 9; at++) bytes[at] = random.chance(20) ? 0 : random.below(10) | (random.below(10) << 4);
    bytes[9] = random.below(2) << 7;
  } else if (kind === 'text') {
    for (let at = 0; at < count; at++) bytes[at] = random.chance(8) ? 0 : random.between(0x61, 0x66);
  } else if (random.chance(40)) {
    for (let at = 0; at < count; at += 8) view.setBigUint64(at, integer(random), true);
  } else {
    const width = random.pick([1, 2, 4]);
    for (let at = 0; at < count; at += width) {
      const value = random.chance(60) ? Number(random.pick(INTEGER_EDGES) & 0xffffffffn) : random.word();
      if (width === 1) view.setUint8(at, value & 0xff);
      else if (width === 2) view.setUint16(at, value & 0xffff, true);
      else view.setUint32(at, value, true);
    }
  }
  return bytes.subarray(0, count);
}
