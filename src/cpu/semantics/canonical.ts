import { type I32, type I64, i64, ne, shl, shrS } from '../../wasm/expression.ts';

/** Whether an address, evaluated already, is not canonical: bits 48–63 are copies of bit 47 in those that are. */
export function isNotCanonical(address: I64): I32 {
  return ne(shrS(shl(address, i64(16)), i64(16)), address);
}
