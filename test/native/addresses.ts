/**
 * Memory operands: chooses one of the address forms of the mode and the register values, displacement and prefixes
 * with which it yields a given linear address.
 */
import type { CaseBuilder } from './case-builder.ts';
import { FS_BASE, GS_BASE, SEGMENT_LIMIT, WINDOW_BASE } from './oracle.ts';

export interface Address {
  /** Address size in bytes. */
  size: 2 | 4 | 8;
  /** REX.X and REX.B. */
  rex: number;
  mod: number;
  rm: number;
  /** −1: none. */
  sib: number;
  displacement: bigint;
  displacementBytes: number;
  /** The linear address that a RIP-relative form should have without the segment; 0 for other forms. */
  relativeTarget: number;
  relative: boolean;
  linear: number;
}

const PREFIX_FS = 0x64;
const PREFIX_GS = 0x65;
/** Base and index of the 16-bit forms by rm (SDM vol. 2, table 2-1). */
const PAIRS_16: readonly (readonly [number, number])[] = [
  [3, 6],
  [3, 7],
  [5, 6],
  [5, 7],
  [6, -1],
  [7, -1],
  [5, -1],
  [3, -1],
];

/**
 * Chooses an address that reaches `target` after the processor adds `adjustment` (of a bit offset) to it. Adds segment
 * and address-size prefixes to `prefixes`. `absolute` asks for the bare displacement of A0–A3.
 */
export function chooseAddress(
  builder: CaseBuilder,
  target: number,
  bytes: number,
  adjustment: number,
  prefixes: number[],
  absolute = false,
): Address {
  const { random, mode } = builder;
  let size: Address['size'] = mode === 64 ? 8 : 4;
  let base = 0;
  if (random.chance(9)) {
    const useFs = random.chance(50);
    const segment = useFs ? FS_BASE : GS_BASE;
    const offset = target - segment;
    if (mode === 64 || (offset >= 0 && offset + bytes - 1 <= SEGMENT_LIMIT) || random.chance(6)) {
      prefixes.push(useFs ? PREFIX_FS : PREFIX_GS);
      base = segment;
      if (mode === 32 && offset >= 0 && offset <= 0xffff && random.chance(40)) size = 2;
    }
  } else if (random.chance(4)) {
    prefixes.push(random.pick(mode === 64 || random.chance(10) ? [0x26, 0x2e, 0x36, 0x3e] : [0x26, 0x36, 0x3e]));
  }
  let effective = BigInt(target - base - adjustment);
  if (mode === 64 && random.chance(8) && effective >= 0n) size = 4;
  if (mode === 32 && size === 4 && random.chance(0.3)) size = 2;
  if (mode === 64 && random.chance(0.6)) effective = (effective & 0xffffffffn) | (BigInt(random.word()) << 32n);
  if (size !== (mode === 64 ? 8 : 4)) prefixes.push(0x67);

  const address: Address = {
    size,
    rex: 0,
    mod: 0,
    rm: 0,
    sib: -1,
    displacement: 0n,
    displacementBytes: 0,
    relativeTarget: 0,
    relative: false,
    linear: target,
  };
  if (absolute) address.displacement = effective;
  else if (size === 2) choose16(builder, address, effective);
  else {
    let found = false;
    for (let attempt = 0; attempt < 8 && !found; attempt++) found = choose32(builder, address, effective);
    if (!found) bareDisplacement(builder, address, effective);
  }
  return address;
}

function choose16(builder: CaseBuilder, address: Address, effective: bigint): void {
  const { random } = builder;
  const rm = random.below(8);
  const mod = random.below(3);
  address.rm = rm;
  address.mod = mod;
  address.displacementBytes = mod;
  const [base, index] = PAIRS_16[rm] as readonly [number, number];
  const indexValue = index < 0 ? 0n : (builder.gprs[index] as bigint);
  if (index >= 0) builder.pin(index, indexValue);
  if (mod === 0 && rm === 6) {
    address.displacementBytes = 2;
    address.displacement = effective;
  } else if (builder.isPinned(base)) {
    address.mod = 2;
    address.displacementBytes = 2;
    address.displacement = effective - (builder.gprs[base] as bigint) - indexValue;
  } else {
    if (mod === 1) address.displacement = BigInt(random.between(-128, 127));
    if (mod === 2) address.displacement = BigInt(random.below(0x10000));
    const value = BigInt.asUintN(16, effective - address.displacement - indexValue);
    builder.pin(base, ((builder.gprs[base] as bigint) & ~0xffffn) | value);
  }
}

/** One attempt at a 32- or 64-bit form; false when the registers already in use do not allow it. */
function choose32(builder: CaseBuilder, address: Address, effective: bigint): boolean {
  const { random, mode } = builder;
  const bits = address.size * 8;
  const kind = random.below(100);
  if (kind < 7) return bareDisplacement(builder, address, effective);
  if (kind < 14 && mode === 64) {
    if (effective < -0x5000_0000n || effective > 0x7fff_ffffn) return false;
    address.relative = true;
    address.relativeTarget = Number(effective);
    address.rm = 5;
    address.mod = 0;
    address.displacementBytes = 4;
    return true;
  }
  const indexed = kind < 60;
  const baseless = indexed && random.chance(12);
  const base = random.pick(builder.addressRegisters);
  let index = 4;
  if (indexed) {
    const candidates = builder.addressRegisters.filter((register) => register !== 4);
    index = random.pick(candidates);
  }
  const scale = random.below(4);
  const needsSib = indexed || (base & 7) === 4 || random.chance(12);

  let mod = random.below(3);
  if (baseless) mod = 0;
  else if (mod === 0 && (base & 7) === 5) mod = 1;
  const read = (register: number): bigint => BigInt.asUintN(bits, builder.gprs[register] as bigint);
  let displacement = mod === 1 ? BigInt(random.between(-128, 127)) : 0n;
  if (mod === 2) displacement = BigInt.asIntN(32, BigInt(random.word()) & (random.chance(70) ? 0xfffffn : 0xffffffffn));

  const solvable = !baseless && base !== index && !builder.isPinned(base);
  if (solvable) {
    const sum = (indexed ? read(index) << BigInt(scale) : 0n) + displacement;
    const value = BigInt.asUintN(bits, effective - sum);
    const upper = bits === 32 && mode === 64 ? ((builder.gprs[base] as bigint) >> 32n) << 32n : 0n;
    builder.pin(base, upper | value);
  } else {
    if (indexed && !builder.isPinned(index)) builder.pin(index, BigInt(random.below(0x100_0000)));
    let sum = indexed ? read(index) << BigInt(scale) : 0n;
    if (!baseless) {
      mod = 2;
      sum += read(base);
    }
    displacement = BigInt.asIntN(bits, effective - sum);
    if (displacement !== BigInt.asIntN(32, displacement)) return false;
    if (!baseless) builder.pin(base, builder.gprs[base] as bigint);
  }
  if (indexed) builder.pin(index, builder.gprs[index] as bigint);

  address.mod = mod;
  address.displacement = displacement;
  address.displacementBytes = baseless || mod === 2 ? 4 : mod;
  address.rex = (base & 8 && !baseless ? 1 : 0) | (indexed && index & 8 ? 2 : 0);
  if (needsSib) {
    address.rm = 4;
    address.sib = (scale << 6) | ((index & 7) << 3) | (baseless ? 5 : base & 7);
  } else address.rm = base & 7;
  return true;
}

/** [disp32]: in 64-bit code it takes a SIB byte without base and index. */
function bareDisplacement(builder: CaseBuilder, address: Address, effective: bigint): boolean {
  const { random, mode } = builder;
  address.mod = 0;
  address.displacementBytes = 4;
  /* A 64-bit address that no displacement reaches becomes one in the window. */
  const reachable = address.size === 4 || effective === BigInt.asIntN(32, effective);
  address.displacement = reachable ? effective : BigInt(WINDOW_BASE + random.below(0x1000));
  if (mode === 64 || random.chance(30)) {
    address.rm = 4;
    address.sib = (random.below(4) << 6) | 0x25;
  } else address.rm = 5;
  return true;
}

/** Appends ModRM, SIB and displacement; returns where a RIP-relative displacement is to be filled in, or −1. */
export function encodeAddress(code: number[], reg: number, address: Address): number {
  code.push((address.mod << 6) | (reg << 3) | address.rm);
  if (address.sib >= 0) code.push(address.sib);
  const at = code.length;
  for (let i = 0; i < address.displacementBytes; i++) {
    code.push(Number((BigInt.asUintN(64, address.displacement) >> BigInt(8 * i)) & 0xffn));
  }
  return address.relative ? at : -1;
}
