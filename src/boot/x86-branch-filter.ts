/**
 * Undoes the x86 branch filter ("BCJ") of xz, in place. Before compressing, the encoder replaced the relative operand of
 * each CALL (E8) and JMP (E9) by an absolute address, since calls of one function then look alike. Only operands whose
 * top byte is 00 or FF are converted, those of near targets; what is stored is sign-extended from bit 24.
 *
 * The encoder cannot tell instructions from data, so an E8 or E9 may lie within the operand of an earlier one. Both
 * sides therefore keep in `pending` which of the last three bytes were such opcodes left unconverted: bit d stands for
 * the byte d places back. An opcode is skipped when two or more are pending, or when the operand of the one that is
 * pending has a top byte that looks near.
 *
 * Addresses count from the start of `bytes`, which must be the output of one whole xz block.
 */
export function undoX86BranchFilter(bytes: Uint8Array, startOffset = 0): void {
  const end = bytes.length - 4;
  let pending = 0;
  for (let at = 0; at < end; at++, pending = (pending << 1) & 0b1110) {
    if (((bytes[at] as number) & 0xfe) !== 0xe8) continue;
    const back = pending === 0 ? 0 : pending === 0b10 ? 1 : pending === 0b100 ? 2 : pending === 0b1000 ? 3 : 4;
    if (back === 4 || (back > 0 && looksNear(bytes[at + 4 - back] as number)) || !looksNear(bytes[at + 4] as number)) {
      pending |= 1;
      continue;
    }
    const nextInstruction = (startOffset + at + 5) | 0;
    let relative = (readOperand(bytes, at + 1) - nextInstruction) | 0;
    // The encoder must not produce an operand that would look near to the pending opcode; where it would have, it
    // inverted the bits that both share and converted again. Those bits differ then, so that once is enough.
    if (back > 0 && looksNear((relative >>> (24 - back * 8)) & 0xff)) {
      relative = ((relative ^ ((1 << (32 - back * 8)) - 1)) - nextInstruction) | 0;
    }
    writeOperand(bytes, at + 1, (relative << 7) >> 7);
    at += 4;
    pending = 0;
  }
}

function looksNear(topByte: number): boolean {
  return topByte === 0x00 || topByte === 0xff;
}

function readOperand(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

function writeOperand(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >> 8;
  bytes[at + 2] = value >> 16;
  bytes[at + 3] = value >> 24;
}
