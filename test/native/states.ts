/** Random floating-point and vector states, as FXSAVE64 images. */
import { FXSAVE_BYTES } from './oracle.ts';
import type { Random } from './random.ts';
import type { Domain } from './template.ts';
import { type DataKind, data, writeF80 } from './values.ts';

const CONTROL_WORD = 0;
const STATUS_WORD = 2;
const ABRIDGED_TAGS = 4;
const MXCSR = 24;
const STACK = 32;
const XMM = 160;

/** After FNINIT, with some vector contents: the state of cases that do not use it. */
const PLAIN = plainState();

function plainState(): Uint8Array {
  const state = new Uint8Array(FXSAVE_BYTES);
  const view = new DataView(state.buffer);
  view.setUint16(CONTROL_WORD, 0x37f, true);
  view.setUint32(MXCSR, 0x1f80, true);
  for (let i = 0; i < 256; i++) state[XMM + i] = (i * 37 + 11) & 0xff;
  return state;
}

export function floatingPointState(random: Random, domain: Domain): Uint8Array {
  if (domain === 'integer') return PLAIN;
  const state = new Uint8Array(FXSAVE_BYTES);
  const view = new DataView(state.buffer);
  fillX87(random, view, domain);
  view.setUint32(MXCSR, mxcsr(random), true);
  const vectors: DataKind =
    domain === 'xmm-f32' ? 'f32' : domain === 'xmm-f64' ? 'f64' : domain === 'xmm-text' ? 'text' : 'integer';
  for (let i = 0; i < 16; i++) {
    const kind = random.chance(90) ? vectors : random.pick<DataKind>(['integer', 'f32', 'f64']);
    state.set(data(random, kind, 16), XMM + 16 * i);
    if (i > 0 && random.chance(6)) state.copyWithin(XMM + 16 * i, XMM + 16 * i - 16, XMM + 16 * i);
  }
  return state;
}

/** Random rounding, FTZ, DAZ and sticky flags; mostly all exceptions masked. */
export function mxcsr(random: Random): number {
  let value = 0x1f80;
  if (random.chance(12)) value = random.word() & 0x1f80;
  if (random.chance(50)) value |= random.below(4) << 13;
  if (random.chance(15)) value |= 0x8000;
  if (random.chance(15)) value |= 0x40;
  if (random.chance(30)) value |= random.below(64);
  return value;
}

export function controlWord(random: Random): number {
  let value = 0x37f;
  if (random.chance(50)) value = (value & ~0xc00) | (random.below(4) << 10);
  if (random.chance(40)) value = (value & ~0x300) | (random.pick([0, 0, 2, 2, 3, 1]) << 8);
  if (random.chance(15)) value = (value & ~0x3f) | random.below(64);
  if (random.chance(5)) value |= 0x1000;
  return value;
}

/** A status word whose summary and busy bits fit its exception flags under the control word. */
export function statusWord(random: Random, control: number, top: number): number {
  let status = (random.word() & 0x4700) | (top << 11);
  if (random.chance(30)) status |= random.below(128);
  /* Pending exceptions stop most instructions at once; keep them rare. */
  if (status & ~control & 0x3f && !random.chance(5)) status &= ~(~control & 0x3f);
  if (status & ~control & 0x3f) status |= 0x8080;
  return status;
}

function fillX87(random: Random, view: DataView, domain: Domain): void {
  const control = controlWord(random);
  view.setUint16(CONTROL_WORD, control, true);
  view.setUint16(STATUS_WORD, statusWord(random, control, random.below(8)), true);
  const kind = random.below(100);
  const tags = kind < 60 ? 0xff : kind < 85 ? random.word() & 0xff : kind < 92 ? 0 : random.word() | random.word();
  view.setUint8(ABRIDGED_TAGS, tags & 0xff);
  const bytes = new Uint8Array(view.buffer);
  for (let i = 0; i < 8; i++) {
    const at = STACK + 16 * i;
    if (domain === 'mmx') {
      bytes.set(data(random, 'integer', 8), at);
      view.setUint16(at + 8, random.chance(70) ? 0xffff : random.below(0x10000), true);
    } else writeF80(random, view, at);
  }
}

/** An x87 environment in memory: 28 bytes in the 32-bit format, 14 in the 16-bit one. */
export function environment(random: Random, size: 14 | 28): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const step = size === 28 ? 4 : 2;
  const control = controlWord(random);
  view.setUint16(0, control, true);
  view.setUint16(step, statusWord(random, control, random.below(8)), true);
  view.setUint16(2 * step, random.chance(40) ? 0 : random.word() & 0xffff, true);
  return bytes;
}
