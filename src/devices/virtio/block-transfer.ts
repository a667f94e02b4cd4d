import { type BlockResult, type BlockStore, SECTOR } from '../block/store.ts';
import { cursorAt, type SegmentCursor, totalLength } from '../dma/segments.ts';
import {
  type BlockRequest,
  HEADER_BYTES,
  IDENTIFIER_BYTES,
  type Operation,
  parseHeader,
  parseSegment,
  RequestStatus,
  SEGMENT_BYTES,
} from './block-request.ts';
import type { Transport } from './device.ts';
import type { Chain } from './virtqueue.ts';

/** Bytes of one request that the host holds at a time. */
const PIECE = 256 * 1024;

/**
 * Where a request stands. Its data goes through a buffer of the host, a piece at a time: a disk takes its time, and no
 * page of the guest is held for it.
 *
 *   header → segment → piece → gather → submit → submitted → scatter → piece … → answer → over
 */
type Phase = 'header' | 'segment' | 'piece' | 'gather' | 'submit' | 'submitted' | 'scatter' | 'answer' | 'over';

/** A request under way, as a plain record. */
export interface BlockTransfer {
  readonly chain: Chain;
  phase: Phase;
  /** Known once the header was read. */
  request: BlockRequest;
  /** Where in the guest's buffers the data stands; counts bytes of data. */
  cursor: SegmentCursor;
  /** The piece that is on its way. */
  buffer: Uint8Array;
  /** Bytes of data in pieces that have arrived. */
  done: number;
  status: RequestStatus;
}

/** What a transfer works with. */
export interface TransferEnvironment {
  readonly transport: Transport;
  readonly store: BlockStore;
  /** Hands the piece to the store, which calls `completed` in the end. Returns false when the store is not free yet. */
  submit(transfer: BlockTransfer): boolean;
}

export function createTransfer(chain: Chain): BlockTransfer {
  return {
    chain,
    phase: 'header',
    request: { operation: 'flush', sector: 0, bytes: 0 },
    cursor: cursorAt([]),
    buffer: new Uint8Array(0),
    done: 0,
    status: RequestStatus.okay,
  };
}

/** Goes from phase to phase until the transfer is over or has to wait. */
export function advance(transfer: BlockTransfer, environment: TransferEnvironment): void {
  for (;;) {
    const next = STEPS[transfer.phase](transfer, environment);
    if (next === undefined) return;
    transfer.phase = next;
  }
}

/** Begins the store's part. */
export function perform(store: BlockStore, { request, buffer, done }: BlockTransfer): Promise<BlockResult> {
  const sector = request.sector + done / SECTOR;
  if (request.operation === 'flush') return store.flush();
  return request.operation === 'read' ? store.read(sector, buffer) : store.write(sector, buffer);
}

/** Takes note of what the store has done. */
export function completed(transfer: BlockTransfer, result: BlockResult): void {
  if (result === 'failed') {
    transfer.status = RequestStatus.ioError;
    transfer.phase = 'answer';
  } else if (transfer.request.operation === 'read') {
    transfer.phase = 'scatter';
  } else {
    transfer.done += transfer.buffer.length;
    transfer.phase = 'piece';
  }
}

/** What the phases have to know of each operation. */
interface Way {
  /** The phase after the header. */
  readonly first: Phase;
  /** The phase after a buffer for a piece is there. */
  readonly piece: Phase;
  /** Whether data goes to the guest. */
  readonly isInput: boolean;
}

const WAYS: Readonly<Record<Operation, Way>> = {
  read: { first: 'piece', piece: 'submit', isInput: true },
  write: { first: 'piece', piece: 'gather', isInput: false },
  flush: { first: 'submit', piece: 'submit', isInput: false },
  identify: { first: 'scatter', piece: 'scatter', isInput: true },
  writeZeroes: { first: 'piece', piece: 'submit', isInput: false },
};

function begin(transfer: BlockTransfer, request: BlockRequest | RequestStatus, store: BlockStore): Phase {
  if (typeof request === 'number') {
    transfer.status = request;
    return 'answer';
  }
  const { readable, writable } = transfer.chain;
  const way = WAYS[request.operation];
  transfer.request = request;
  transfer.cursor = { ...cursorAt(way.isInput ? writable : readable, way.isInput ? 0 : HEADER_BYTES), position: 0 };
  if (request.operation === 'identify') {
    const identifier = new Uint8Array(IDENTIFIER_BYTES);
    identifier.set(new TextEncoder().encode(store.identifier).subarray(0, IDENTIFIER_BYTES));
    transfer.buffer = identifier.subarray(0, request.bytes);
  }
  return way.first;
}

/** Each gives the next phase, or undefined to wait. */
type Step = (transfer: BlockTransfer, environment: TransferEnvironment) => Phase | undefined;

const STEPS: Readonly<Record<Phase, Step>> = {
  header(transfer, { transport, store }) {
    const { readable, writable } = transfer.chain;
    if (totalLength(readable) < HEADER_BYTES || totalLength(writable) < 1) {
      transport.fail('the driver offers a disk request without header or status');
      return undefined;
    }
    const header = new Uint8Array(HEADER_BYTES);
    if (!transport.gather(cursorAt(readable), header)) return undefined;
    const request = parseHeader(header, transfer.chain, store);
    if (typeof request !== 'number' && request.operation === 'writeZeroes') return 'segment';
    return begin(transfer, request, store);
  },

  segment(transfer, { transport, store }) {
    const segment = new Uint8Array(SEGMENT_BYTES);
    if (!transport.gather(cursorAt(transfer.chain.readable, HEADER_BYTES), segment)) return undefined;
    return begin(transfer, parseSegment(segment, store), store);
  },

  piece(transfer) {
    const { request, done } = transfer;
    if (done === request.bytes) return 'answer';
    transfer.buffer = new Uint8Array(Math.min(PIECE, request.bytes - done));
    return WAYS[request.operation].piece;
  },

  gather(transfer, { transport }) {
    const { cursor, buffer, done } = transfer;
    return transport.gather(cursor, buffer.subarray(cursor.position - done)) ? 'submit' : undefined;
  },

  submit(transfer, environment) {
    return environment.submit(transfer) ? 'submitted' : undefined;
  },

  submitted: () => undefined,

  scatter(transfer, { transport }) {
    const { cursor, buffer, done } = transfer;
    if (!transport.scatter(cursor, buffer.subarray(cursor.position - done))) return undefined;
    transfer.done += buffer.length;
    return 'piece';
  },

  answer(transfer, { transport }) {
    const { head, writable } = transfer.chain;
    const last = cursorAt(writable, totalLength(writable) - 1);
    if (!transport.scatter(last, Uint8Array.of(transfer.status))) return undefined;
    const written = (WAYS[transfer.request.operation].isInput ? transfer.done : 0) + 1;
    return transport.queues[0]?.push(head, written) ? 'over' : undefined;
  },

  over: () => undefined,
};
