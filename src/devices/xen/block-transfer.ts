import { type GuestPhysical, PAGE_SIZE } from '../../x86/brand.ts';
import { type BlockResult, type BlockStore, liesWithin, SECTOR } from '../block/store.ts';
import { cursorAt, gather, type Segment, type SegmentCursor, scatter, totalLength } from '../dma/segments.ts';
import { DmaStatus } from '../dma/table.ts';
import { MOST_SEGMENTS, type RingRequest } from './block-ring.ts';
import type { FrontEnd, GrantUse } from './frontend.ts';

const SECTORS_PER_PAGE = PAGE_SIZE / SECTOR;

/** Status of a response (public/io/blkif.h). */
export const enum BlockStatus {
  okay = 0,
  error = -1,
  unsupported = -2,
}

type Operation = 'read' | 'write' | 'flush';

/** By their numbers in the ring. */
const OPERATIONS: Readonly<Record<number, Operation>> = { 0: 'read', 1: 'write', 3: 'flush' };

/** Where a request stands. Those of one kind go straight to the answer when they are not sound. */
export type Phase = 'gather' | 'submit' | 'submitted' | 'scatter' | 'answer' | 'over';

const FIRST_PHASE: Readonly<Record<Operation, Phase>> = { read: 'submit', write: 'gather', flush: 'submit' };

/**
 * A request under way, as a plain record. Its grants are held from beginning to end, so that the guest does not reuse
 * the pages; but these come and go meanwhile as the host's memory needs it, and are reached through the DMA table.
 */
export interface RingTransfer {
  readonly request: RingRequest;
  readonly operation: Operation;
  readonly grants: readonly GrantUse[];
  readonly cursor: SegmentCursor;
  readonly buffer: Uint8Array;
  phase: Phase;
  status: BlockStatus;
}

/** Judges a request, and begins the accesses to the pages that it names. */
export function createTransfer(request: RingRequest, store: BlockStore, guest: FrontEnd): RingTransfer {
  const operation = OPERATIONS[request.operation];
  if (operation === undefined) return refused(request, BlockStatus.unsupported);
  if (!isSound(request, operation, store)) return refused(request, BlockStatus.error);
  const grants: GrantUse[] = [];
  const segments: Segment[] = [];
  for (const { reference, first, last } of request.segments) {
    const use = guest.begin(reference, operation === 'read');
    if (use === undefined) {
      for (const begun of grants) guest.end(begun);
      return refused(request, BlockStatus.error);
    }
    grants.push(use);
    const address = (guest.addressOf(use) + first * SECTOR) as GuestPhysical;
    segments.push({ address, length: (last - first + 1) * SECTOR });
  }
  return {
    request,
    operation,
    grants,
    cursor: cursorAt(segments),
    buffer: new Uint8Array(totalLength(segments)),
    phase: FIRST_PHASE[operation],
    status: BlockStatus.okay,
  };
}

function refused(request: RingRequest, status: BlockStatus): RingTransfer {
  const cursor = cursorAt([]);
  return { request, operation: 'flush', grants: [], cursor, buffer: new Uint8Array(0), phase: 'answer', status };
}

function isSound({ sector, count, segments }: RingRequest, operation: Operation, store: BlockStore): boolean {
  if (operation === 'flush') return count === 0;
  if (count === 0 || count > MOST_SEGMENTS || (operation === 'write' && store.isReadOnly)) return false;
  let sectors = 0;
  for (const { first, last } of segments) {
    if (first > last || last >= SECTORS_PER_PAGE) return false;
    sectors += last - first + 1;
  }
  return liesWithin(store, sector, sectors);
}

/** Moves data between the guest and the buffer, until it is done or has to wait for a page. */
export function moveData(transfer: RingTransfer, { memory }: FrontEnd): void {
  const { cursor, buffer, phase } = transfer;
  if (phase !== 'gather' && phase !== 'scatter') return;
  const move = phase === 'gather' ? gather : scatter;
  const status = move(memory, cursor, buffer.subarray(cursor.position));
  if (status === DmaStatus.absent) return;
  if (status === DmaStatus.refused) transfer.status = BlockStatus.error;
  transfer.phase = status === DmaStatus.ready && phase === 'gather' ? 'submit' : 'answer';
}

/** Begins the store's part. */
export function perform(store: BlockStore, { operation, request, buffer }: RingTransfer): Promise<BlockResult> {
  if (operation === 'flush') return store.flush();
  return operation === 'read' ? store.read(request.sector, buffer) : store.write(request.sector, buffer);
}

/** Takes note of what the store has done. */
export function completed(transfer: RingTransfer, result: BlockResult): void {
  if (result === 'failed') transfer.status = BlockStatus.error;
  transfer.phase = result === 'done' && transfer.operation === 'read' ? 'scatter' : 'answer';
}
