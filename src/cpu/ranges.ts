/** Ranges of offsets, start and end in turn: whether any of them has something in common with start … end. */
export function overlaps(ranges: readonly number[], start: number, end: number): boolean {
  for (let index = 0; index < ranges.length; index += 2) {
    if (start < (ranges[index + 1] as number) && (ranges[index] as number) < end) return true;
  }
  return false;
}
