import { type BlockStore, liesWithin, SECTOR } from '../block/store.ts';
import { totalLength } from '../dma/segments.ts';
import type { Chain } from './virtqueue.ts';

/**
 * Requests of a block device (virtio 1.2, 5.2.6). A chain reads as header, data to be written; its writable part is room
 * for data that is read, and in the last byte the request's status. Where a descriptor ends means nothing.
 *
 *   header   type u32, reserved u32, sector u64
 *   segment  sector u64, sectors u32, flags u32: what discards and their like name instead of the header
 */
export const HEADER_BYTES = 16;
export const SEGMENT_BYTES = 16;

/** Bytes of the serial number, zero-padded. */
export const IDENTIFIER_BYTES = 20;

/** Most sectors of one request to write zeroes: 1 GiB. */
export const WRITE_ZEROES_LIMIT = 1 << 21;

export const enum RequestStatus {
  okay = 0,
  ioError = 1,
  unsupported = 2,
}

export type Operation = 'read' | 'write' | 'flush' | 'identify' | 'writeZeroes';

/** A sound request: what is asked lies within the disk. */
export interface BlockRequest {
  readonly operation: Operation;
  /** First sector, and bytes of data in whole sectors. For a serial number, bytes of it. */
  readonly sector: number;
  readonly bytes: number;
}

/** What a header asks: bytes to be read from the guest after it, and room for the answer's data. */
interface Asked {
  readonly sector: number;
  readonly toRead: number;
  readonly room: number;
}

/** By the number of the request's type. */
const PARSERS: Readonly<Record<number, (asked: Asked, store: BlockStore) => BlockRequest | RequestStatus>> = {
  0: ({ sector, room }, store) => checked({ operation: 'read', sector, bytes: room }, store),
  1: ({ sector, toRead }, store) => checked({ operation: 'write', sector, bytes: toRead }, store),
  4: () => ({ operation: 'flush', sector: 0, bytes: 0 }),
  8: ({ room }) => ({ operation: 'identify', sector: 0, bytes: Math.min(room, IDENTIFIER_BYTES) }),
  // The one segment that the configuration allows comes with its own bounds; see parseSegment.
  13: ({ toRead }) =>
    toRead === SEGMENT_BYTES ? { operation: 'writeZeroes', sector: 0, bytes: 0 } : RequestStatus.ioError,
};

/** @param header `HEADER_BYTES` from the guest */
export function parseHeader(header: Uint8Array, chain: Chain, store: BlockStore): BlockRequest | RequestStatus {
  const view = new DataView(header.buffer, header.byteOffset);
  const asked: Asked = {
    sector: sectorAt(view, 8),
    toRead: totalLength(chain.readable) - HEADER_BYTES,
    room: totalLength(chain.writable) - 1,
  };
  return PARSERS[view.getUint32(0, true)]?.(asked, store) ?? RequestStatus.unsupported;
}

/** @param segment `SEGMENT_BYTES` from the guest */
export function parseSegment(segment: Uint8Array, store: BlockStore): BlockRequest | RequestStatus {
  const view = new DataView(segment.buffer, segment.byteOffset);
  const sectors = view.getUint32(8, true);
  // Bit 0 says that the sectors may be given back, which is never done; no other bit means anything.
  if (view.getUint32(12, true) & ~1) return RequestStatus.unsupported;
  if (sectors > WRITE_ZEROES_LIMIT) return RequestStatus.ioError;
  return checked({ operation: 'writeZeroes', sector: sectorAt(view, 0), bytes: sectors * SECTOR }, store);
}

function checked(request: BlockRequest, store: BlockStore): BlockRequest | RequestStatus {
  const { operation, sector, bytes } = request;
  const isAllowed = operation === 'read' || !store.isReadOnly;
  const isSound = bytes % SECTOR === 0 && liesWithin(store, sector, bytes / SECTOR);
  return isAllowed && isSound ? request : RequestStatus.ioError;
}

/** Numbers beyond 2^53 lose bits here, and lie on no disk in any case. */
function sectorAt(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * 0x1_0000_0000 + view.getUint32(offset, true);
}
