/**
 * One entry of the software TLB, 32 bytes. An entry belongs to the page number's low bits.
 *
 * `address − tag <=u 4096 − size` tests page and crossing at once; an invalid tag is a page number that cannot fall
 * into the entry. The write tag stays invalid for read-only pages, clean pages, pages with decoded code and watched ones.
 */
export const enum TlbEntry {
  readTag = 0,
  writeTag = 8,
  executeTag = 16,
  /** Host address of the page's frame. */
  frame = 24,
  sizeShift = 5,
  size = 32,
}

/**
 * Decoded code by place: 16 bytes a slot. Code stands in the slot that its key says or in its neighbour, which is the one
 * with the address ^ `size`.
 *   0  u64 key: host address of the first byte | code mode << 32
 *   8  u32 record
 *  12  u32 region that begins there: RegionWord, or 0
 */
export const enum CodeSlot {
  key = 0,
  record = 8,
  region = 12,
  sizeShift = 4,
  size = 16,
}
/** A kernel and its programs have some 100,000 blocks. */
export const CODE_SLOTS_SHIFT = 18;
/**
 * The slot of a key: its address in units of so many bytes, which few blocks are shorter than (hot code then has its slots
 * together), and bits of the page.
 */
export const CODE_UNIT_SHIFT = 2;
export const CODE_HASH_SHIFT = 13;
