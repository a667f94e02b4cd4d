import { unpack80 } from './encoding.ts';
import { FloatKind, Unpacked } from './softfloat.ts';
import type { X87Handler, X87Handlers, X87Machine } from './x87-machine.ts';
import { X87Control, X87State, X87Status } from './x87-machine.ts';
import { X87Operation } from './x87-operations.ts';

/**
 * x87 control: words, stack pointer, and the images that FSTENV, FSAVE and FXSAVE leave in memory.
 *
 * Environment in 32-bit form, 28 bytes; the 16-bit form has the same seven fields of two bytes each, without opcode
 * (SDM vol. 1, figures 8-9 to 8-12):
 *
 *       protected mode                             real and virtual-8086 mode
 *    0  control word                               control word
 *    4  status word                                status word
 *    8  tag word, two bits a register              tag word
 *   12  instruction pointer                        instruction pointer 15–0
 *   16  CS, opcode in the upper half               instruction pointer 31–16 in bits 27–12, opcode in bits 10–0
 *   20  data pointer                               data pointer 15–0
 *   24  DS                                         data pointer 31–16 in bits 27–12
 */

/** The `i` of fldenv, fnstenv, frstor and fnsave. */
export const enum EnvironmentForm {
  /** 28-byte environment (operand size 32 or 64) instead of 14. */
  wide = 1 << 0,
  /** Pointers as linear addresses: real-address and virtual-8086 mode. */
  realMode = 1 << 1,
}

/** The reserved bit 6 of the control word reads as one. */
export const controlFixed = 0x40;
/** Masks, PC, RC and the infinity control bit that nothing heeds. */
export const controlWritable = 0x1f3f;

function normaliseControl(word: number): number {
  return (word & controlWritable) | controlFixed;
}

const scratch = new Unpacked();

/** The two-bit tags, computed from the registers: 0 valid, 1 zero, 2 special, 3 empty (SDM vol. 1, figure 8-7). */
export function fullTagWord(view: DataView, state: number): number {
  const occupied = view.getUint8(state + X87State.occupied);
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    let tag = 3;
    if ((occupied & (1 << i)) !== 0) {
      unpack80(view, state + X87State.registers + i * X87State.registerSize, scratch);
      tag = scratch.kind === FloatKind.zero ? 1 : scratch.kind === FloatKind.finite && !scratch.denormal ? 0 : 2;
    }
    tags |= tag << (i * 2);
  }
  return tags;
}

/** Abridged tags of a full tag word: all that a processor keeps of it. */
function abridge(tags: number): number {
  let occupied = 0;
  for (let i = 0; i < 8; i++) if (((tags >>> (i * 2)) & 3) !== 3) occupied |= 1 << i;
  return occupied;
}

function initialise(fpu: X87Machine): void {
  const { view, state } = fpu;
  fpu.control = X87Control.initial;
  fpu.status = 0;
  fpu.occupied = 0;
  for (let offset = X87State.opcode; offset < X87State.size; offset += 2) view.setUint16(state + offset, 0, true);
}

function storeEnvironment(fpu: X87Machine, form: number, address: number): number {
  fpu.end();
  const { view, state } = fpu;
  const realMode = (form & EnvironmentForm.realMode) !== 0;
  const tags = fullTagWord(view, state);
  const instruction = view.getUint32(state + X87State.instruction, true);
  const data = view.getUint32(state + X87State.data, true);
  const opcode = view.getUint16(state + X87State.opcode, true) & 0x7ff;
  const codeSelector = view.getUint16(state + X87State.codeSelector, true);
  const dataSelector = view.getUint16(state + X87State.dataSelector, true);
  if ((form & EnvironmentForm.wide) === 0) {
    const words = [
      fpu.control,
      fpu.status,
      tags,
      instruction,
      realMode ? ((instruction >>> 4) & 0xf000) | opcode : codeSelector,
      data,
      realMode ? (data >>> 4) & 0xf000 : dataSelector,
    ];
    for (const [i, word] of words.entries()) view.setUint16(address + i * 2, word, true);
    return address + 14;
  }
  const high = 0xffff0000;
  const words = [
    high | fpu.control,
    high | fpu.status,
    high | tags,
    realMode ? high | (instruction & 0xffff) : instruction,
    realMode ? ((instruction >>> 4) & 0x0ffff000) | opcode : (opcode << 16) | codeSelector,
    realMode ? high | (data & 0xffff) : data,
    realMode ? (data >>> 4) & 0x0ffff000 : high | dataSelector,
  ];
  for (const [i, word] of words.entries()) view.setUint32(address + i * 4, word, true);
  return address + 28;
}

function loadEnvironment(fpu: X87Machine, form: number, address: number): number {
  const { view, state } = fpu;
  const realMode = (form & EnvironmentForm.realMode) !== 0;
  const step = (form & EnvironmentForm.wide) !== 0 ? 4 : 2;
  const field = (i: number) =>
    step === 4 ? view.getUint32(address + i * 4, true) : view.getUint16(address + i * 2, true);
  let instruction = field(3);
  let data = field(5);
  let opcode = 0;
  let codeSelector = 0;
  let dataSelector = 0;
  if (realMode) {
    instruction = (instruction & 0xffff) | ((field(4) & 0x0ffff000) << 4);
    data = (data & 0xffff) | ((field(6) & 0x0ffff000) << 4);
    opcode = field(4) & 0x7ff;
  } else {
    codeSelector = field(4) & 0xffff;
    dataSelector = field(6) & 0xffff;
    if (step === 4) opcode = (field(4) >>> 16) & 0x7ff;
  }
  view.setUint16(state + X87State.opcode, opcode, true);
  view.setUint32(state + X87State.instruction, instruction, true);
  view.setUint32(state + X87State.instruction + 4, 0, true);
  view.setUint32(state + X87State.data, data, true);
  view.setUint32(state + X87State.data + 4, 0, true);
  view.setUint16(state + X87State.codeSelector, codeSelector, true);
  view.setUint16(state + X87State.dataSelector, dataSelector, true);
  fpu.control = normaliseControl(field(0));
  fpu.status = field(1) & 0xffff;
  fpu.summarise();
  fpu.occupied = abridge(field(2));
  return address + step * 7;
}

const storeControl: X87Handler = (fpu, _i, operand) => fpu.view.setUint16(operand, fpu.control, true);
const storeStatus: X87Handler = (fpu, _i, operand) => fpu.view.setUint16(operand, fpu.status, true);

export const environmentHandlers: X87Handlers = {
  [X87Operation.fincstp]: (fpu) => {
    fpu.status &= ~X87Status.c1;
    fpu.top = fpu.top + 1;
  },
  [X87Operation.fdecstp]: (fpu) => {
    fpu.status &= ~X87Status.c1;
    fpu.top = fpu.top - 1;
  },
  [X87Operation.ffree]: (fpu, i) => {
    fpu.status &= ~X87Status.c1;
    fpu.free(i);
  },
  [X87Operation.ffreep]: (fpu, i) => {
    fpu.status &= ~X87Status.c1;
    fpu.free(i);
    fpu.pop();
  },
  [X87Operation.fnop]: () => {},
  [X87Operation.fwait]: () => {},
  [X87Operation.fnobsolete]: () => {},
  [X87Operation.fninit]: initialise,
  [X87Operation.fnclex]: (fpu) => {
    fpu.status &= X87Status.top | X87Status.c0 | X87Status.c1 | X87Status.c2 | X87Status.c3;
  },
  [X87Operation.fldcw]: (fpu, _i, operand) => {
    fpu.control = normaliseControl(fpu.view.getUint16(operand, true));
    fpu.summarise();
  },
  [X87Operation.fnstcw]: storeControl,
  [X87Operation.fnstsw]: storeStatus,
  [X87Operation.fldenv]: (fpu, i, operand) => {
    loadEnvironment(fpu, i, operand);
  },
  [X87Operation.fnstenv]: (fpu, i, operand) => {
    storeEnvironment(fpu, i, operand);
    fpu.control |= X87Control.masks;
    fpu.summarise();
  },
  [X87Operation.frstor]: (fpu, i, operand) => {
    const registers = loadEnvironment(fpu, i, operand);
    for (let j = 0; j < 8; j++) fpu.copyNumber(registers + j * 10, fpu.addressOf(j));
  },
  [X87Operation.fnsave]: (fpu, i, operand) => {
    const registers = storeEnvironment(fpu, i, operand);
    for (let j = 0; j < 8; j++) fpu.copyNumber(fpu.addressOf(j), registers + j * 10);
    initialise(fpu);
  },
};

/**
 * The x87 part of an FXSAVE image (SDM vol. 1, 10.5): bytes 0–23 and 32–159. Bytes 24–31, MXCSR and its mask, are the
 * caller's.
 *
 * @param wide 64-bit pointers without selectors (REX.W) instead of 32-bit pointers with selectors
 */
export function saveFxsaveArea(view: DataView, state: number, address: number, wide: boolean): void {
  const status = view.getUint16(state + X87State.status, true);
  view.setUint16(address, view.getUint16(state + X87State.control, true), true);
  view.setUint16(address + 2, status, true);
  view.setUint16(address + 4, view.getUint8(state + X87State.occupied), true);
  view.setUint16(address + 6, view.getUint16(state + X87State.opcode, true), true);
  for (const [pointer, selector, offset] of pointers) {
    view.setUint32(address + offset, view.getUint32(state + pointer, true), true);
    const upper = wide ? view.getUint32(state + pointer + 4, true) : view.getUint16(state + selector, true);
    view.setUint32(address + offset + 4, upper, true);
  }
  for (let i = 0; i < 8; i++) {
    const register = state + X87State.registers + (((status >>> X87Status.topShift) + i) & 7) * X87State.registerSize;
    const slot = address + 32 + i * 16;
    view.setUint32(slot, view.getUint32(register, true), true);
    view.setUint32(slot + 4, view.getUint32(register + 4, true), true);
    view.setUint32(slot + 8, view.getUint16(register + 8, true), true);
    view.setUint32(slot + 12, 0, true);
  }
}

const pointers = [
  [X87State.instruction, X87State.codeSelector, 8],
  [X87State.data, X87State.dataSelector, 16],
] as const;

/** Loads what `saveFxsaveArea` saves, from any image. */
export function loadFxsaveArea(fpu: X87Machine, state: number, address: number, wide: boolean): void {
  const { view } = fpu;
  fpu.begin(state);
  fpu.control = normaliseControl(view.getUint16(address, true));
  fpu.status = view.getUint16(address + 2, true);
  fpu.summarise();
  fpu.occupied = view.getUint8(address + 4);
  view.setUint16(state + X87State.opcode, view.getUint16(address + 6, true) & 0x7ff, true);
  for (const [pointer, selector, offset] of pointers) {
    const upper = view.getUint32(address + offset + 4, true);
    view.setUint32(state + pointer, view.getUint32(address + offset, true), true);
    view.setUint32(state + pointer + 4, wide ? upper : 0, true);
    view.setUint16(state + selector, wide ? 0 : upper & 0xffff, true);
  }
  for (let i = 0; i < 8; i++) fpu.copyNumber(address + 32 + i * 16, fpu.addressOf(i));
  fpu.end();
}
