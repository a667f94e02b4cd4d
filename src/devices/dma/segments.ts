import { type GuestPhysical, PAGE_SIZE } from '../../x86/brand.ts';
import { DmaStatus, type DmaTable } from './table.ts';

/** A range of guest-physical memory that belongs to a transfer. */
export interface Segment {
  readonly address: GuestPhysical;
  readonly length: number;
}

/** A place in a list of segments, as if they were one buffer. A plain record: a transfer may wait anywhere in it. */
export interface SegmentCursor {
  readonly segments: readonly Segment[];
  /** Segment, and byte in it, where the cursor stands. */
  index: number;
  offset: number;
  /** Bytes passed so far. */
  position: number;
}

export function cursorAt(segments: readonly Segment[], position = 0): SegmentCursor {
  const cursor = { segments, index: 0, offset: 0, position: 0 };
  advance(cursor, position);
  return cursor;
}

export function totalLength(segments: readonly Segment[]): number {
  return segments.reduce((sum, segment) => sum + segment.length, 0);
}

/**
 * Copies out of guest memory into `target` until it is full or a page is missing; the cursor moves by what was copied,
 * so that a repeated call with the rest of `target` goes on. The segments hold at least `target.length` more bytes.
 */
export function gather(table: DmaTable, cursor: SegmentCursor, target: Uint8Array): DmaStatus {
  return eachChunk(table, cursor, target, false, (address, chunk) => table.read(address, chunk));
}

/** The same into guest memory, from `source`. */
export function scatter(table: DmaTable, cursor: SegmentCursor, source: Uint8Array): DmaStatus {
  return eachChunk(table, cursor, source, true, (address, chunk) => table.write(address, chunk));
}

/** A page at a time: a transfer never needs more than one page at once, so it always gets on. */
function eachChunk(
  table: DmaTable,
  cursor: SegmentCursor,
  bytes: Uint8Array,
  write: boolean,
  touch: (address: GuestPhysical, chunk: Uint8Array) => void,
): DmaStatus {
  for (let done = 0; done < bytes.length; ) {
    const segment = cursor.segments[cursor.index];
    if (segment === undefined) throw new RangeError('a transfer is longer than its segments');
    const address = (segment.address + cursor.offset) as GuestPhysical;
    const count = Math.min(bytes.length - done, segment.length - cursor.offset, PAGE_SIZE - (address % PAGE_SIZE));
    const status = table.prepare(address, count, write);
    if (status !== DmaStatus.ready) return status;
    touch(address, bytes.subarray(done, done + count));
    advance(cursor, count);
    done += count;
  }
  return DmaStatus.ready;
}

function advance(cursor: SegmentCursor, count: number): void {
  cursor.position += count;
  cursor.offset += count;
  for (;;) {
    const length = cursor.segments[cursor.index]?.length;
    if (length === undefined || cursor.offset < length) return;
    cursor.offset -= length;
    cursor.index++;
  }
}
