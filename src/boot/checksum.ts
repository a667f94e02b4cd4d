/** CRC-32 as in IEEE 802.3, reflected polynomial EDB88320, by eight table look-ups for eight bytes. */

const SLICES = 8;
let tables: Uint32Array | undefined;

function crc32Tables(): Uint32Array {
  if (tables !== undefined) return tables;
  tables = new Uint32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
    tables[byte] = crc;
  }
  // Slice n is the remainder of the byte followed by n zero bytes.
  for (let i = 256; i < tables.length; i++) {
    const shorter = tables[i - 256] as number;
    tables[i] = (shorter >>> 8) ^ (tables[shorter & 0xff] as number);
  }
  return tables;
}

/** @returns an unsigned 32-bit value. */
export function crc32(bytes: Uint8Array): number {
  const table = crc32Tables();
  const at = (index: number): number => table[index] as number;
  const whole = bytes.length & ~7;
  let crc = 0xffff_ffff;
  let i = 0;
  for (; i < whole; i += 8) {
    crc =
      at(0x700 | ((crc ^ (bytes[i] as number)) & 0xff)) ^
      at(0x600 | (((crc >>> 8) ^ (bytes[i + 1] as number)) & 0xff)) ^
      at(0x500 | (((crc >>> 16) ^ (bytes[i + 2] as number)) & 0xff)) ^
      at(0x400 | ((crc >>> 24) ^ (bytes[i + 3] as number))) ^
      at(0x300 | (bytes[i + 4] as number)) ^
      at(0x200 | (bytes[i + 5] as number)) ^
      at(0x100 | (bytes[i + 6] as number)) ^
      at(bytes[i + 7] as number);
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ at((crc ^ (bytes[i] as number)) & 0xff);
  return ~crc >>> 0;
}
