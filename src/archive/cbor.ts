import { decode, encode } from 'cborg';
import { negativeZeroEncoder } from 'cborg/taglib';
import { InputError } from '../boot/input-error.ts';
import type { Plain } from './plain.ts';

/** Plain data as bytes: CBOR (RFC 8949) without tags and without whole numbers that a double does not hold. */
export function encodeCbor(value: Plain): Uint8Array {
  return encode(value, { float64: true, typeEncoders: { number: negativeZeroEncoder } });
}

/** @throws InputError when the bytes are not those of one value */
export function decodeCbor(bytes: Uint8Array): Plain {
  try {
    return decode(bytes, { allowIndefinite: false, allowBigInt: false, rejectDuplicateMapKeys: true });
  } catch (error) {
    // Whatever a decoder does not like, lists that are in each other too often for its stack included.
    throw new InputError(`the description of the guest is damaged: ${(error as Error).message}`);
  }
}
