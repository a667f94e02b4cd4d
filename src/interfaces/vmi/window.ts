/**
 * The window: a page at the same linear address in every address space, which each virtual processor has for itself. No
 * table of the guest's maps it. The ROM's code writes it; the kernel keeps clear of everything from there up.
 *
 *     0    records of changed entries that wait
 *     64   records: the linear address of an entry each
 */
export const WINDOW = 0xffc0_0000;

export const enum WindowField {
  count = 0,
  records = 64,
}

/** Records that fit; then the host is called. */
export const MOST_RECORDS = 256;
