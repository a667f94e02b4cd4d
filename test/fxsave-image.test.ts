import { expect, it } from 'vitest';
import { createHelpers, HelperOperation, Image } from '../src/cpu/helpers.ts';
import { State } from '../src/cpu/state.ts';

/** Bytes of an image that are reserved, below `Image.end` (SDM vol. 1, table 10-2), and for selectors their upper halves. */
const RESERVED = [5, ...Array.from({ length: 8 }, (_none, register) => 32 + register * 16 + 10).flatMap(sixFrom)];
const BEHIND_SELECTORS = [14, 15, 22, 23];

function sixFrom(first: number): number[] {
  return Array.from({ length: 6 }, (_none, index) => first + index);
}

it.each([
  ['with selectors', HelperOperation.saveImage, [...RESERVED, ...BEHIND_SELECTORS]],
  ['with 64-bit pointers', HelperOperation.saveWideImage, RESERVED],
] as const)('an image of FXSAVE %s has nothing of what stood there before', (_name, operation, reserved) => {
  const STATE = 0x1000;
  const image = (before: number): Uint8Array => {
    const bytes = new Uint8Array(0x2000);
    bytes.fill(0xa5, STATE, STATE + State.scratch);
    bytes.fill(before, STATE + State.scratch, STATE + State.size);
    expect(createHelpers(new DataView(bytes.buffer))(STATE, operation)).toBe(0);
    return bytes.slice(STATE + State.scratch, STATE + State.scratch + Image.end);
  };
  const made = image(0xff);
  expect(made).toEqual(image(0));
  expect(reserved.filter((offset) => made[offset] !== 0)).toEqual([]);
  expect(made[Image.xmm]).toBe(0xa5);
});
