/**
 * What a device of a microVM is made of. Its registers stand in guest-physical memory; it asks for attention by a line
 * of the interrupt controller. Registers are read and written by the guest, which is hostile: every offset, size and
 * value may come.
 */

/** Registers in guest-physical memory, apart from RAM. */
export interface MmioDevice {
  /**
   * @param offset from the first byte of the device's registers, below the size it was placed with
   * @param bytes 1, 2 or 4; an access of 8 bytes comes as two of 4, the lower first
   * @returns the value, unsigned, in its low `bytes`
   */
  read(offset: number, bytes: number): number;
  /** @param value unsigned, below 2^(8 × bytes) */
  write(offset: number, bytes: number, value: number): void;
}

/** A line into an interrupt controller. Setting a level that it has already does nothing. */
export interface InterruptLine {
  /** @param level true raises it */
  set(level: boolean): void;
}
