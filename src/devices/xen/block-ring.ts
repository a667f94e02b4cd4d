import type { HostMemory } from '../../memory/host-memory.ts';
import type { HostAddress } from '../../x86/brand.ts';

/**
 * The ring of a block device (public/io/ring.h and blkif.h, x86_64-abi): one page, requests and responses in the same
 * slots, indexes free-running.
 *
 *   0x00  req_prod, req_event, rsp_prod, rsp_event
 *   0x40  slot[32], 112 bytes each
 *
 *   request   operation u8, segments u8, handle u16, –, id u64 @8, sector u64 @16, segment[11] @24
 *   segment   grant reference u32, first sector u8, last sector u8, –        8 bytes
 *   response  id u64, operation u8, –, status s16 @10
 */
const enum Page {
  requestProducer = 0x00,
  requestEvent = 0x04,
  responseProducer = 0x08,
  responseEvent = 0x0c,
  slots = 0x40,
}
const SLOTS = 32;
const SLOT_BYTES = 112;

const enum RequestField {
  operation = 0,
  segments = 1,
  id = 8,
  sector = 16,
  segment = 24,
}
const SEGMENT_BYTES = 8;
export const MOST_SEGMENTS = 11;

const enum ResponseField {
  id = 0,
  operation = 8,
  status = 10,
}

/** What the front end names when it speaks this layout. */
export const PROTOCOL = 'x86_64-abi';

export interface RingSegment {
  readonly reference: number;
  /** Sectors of the page, both included. */
  readonly first: number;
  readonly last: number;
}

/** A request as it stands in the ring; nothing of it has been judged. */
export interface RingRequest {
  readonly idLow: number;
  readonly idHigh: number;
  readonly operation: number;
  readonly sector: number;
  /** As many as the request says that it has, which can be more than there are. */
  readonly count: number;
  readonly segments: readonly RingSegment[];
}

/** The back end's own indexes: plain data. */
export interface RingIndexes {
  requestConsumer: number;
  responseProducer: number;
}

/** The indexes to begin with, in a ring that an earlier back end may have served. */
export function attachRing(memory: HostMemory, page: HostAddress): RingIndexes {
  const served = memory.view.getUint32(page + Page.responseProducer, true);
  return { requestConsumer: served, responseProducer: served };
}

/** Requests that wait, or −1 when the guest's index is nonsense: more than the slots that no response is due for. */
export function requestsIn(memory: HostMemory, page: HostAddress, indexes: RingIndexes): number {
  const producer = memory.view.getUint32(page + Page.requestProducer, true);
  if ((producer - indexes.responseProducer) >>> 0 > SLOTS) return -1;
  const count = (producer - indexes.requestConsumer) | 0;
  return count < 0 ? -1 : count;
}

/** Copies the next request out of the ring; there is one. */
export function takeRequest({ view }: HostMemory, page: HostAddress, indexes: RingIndexes): RingRequest {
  const slot = slotAt(page, indexes.requestConsumer);
  indexes.requestConsumer = (indexes.requestConsumer + 1) >>> 0;
  const count = view.getUint8(slot + RequestField.segments);
  const segments = Array.from({ length: Math.min(count, MOST_SEGMENTS) }, (_none, index): RingSegment => {
    const at = slot + RequestField.segment + index * SEGMENT_BYTES;
    return { reference: view.getUint32(at, true), first: view.getUint8(at + 4), last: view.getUint8(at + 5) };
  });
  return {
    idLow: view.getUint32(slot + RequestField.id, true),
    idHigh: view.getUint32(slot + RequestField.id + 4, true),
    operation: view.getUint8(slot + RequestField.operation),
    // Beyond 2^53 bits are lost; such a sector lies on no disk in any case.
    sector:
      view.getUint32(slot + RequestField.sector + 4, true) * 0x1_0000_0000 +
      view.getUint32(slot + RequestField.sector, true),
    count,
    segments,
  };
}

/** Asks for an event with the next request. */
export function awaitRequests({ view }: HostMemory, page: HostAddress, indexes: RingIndexes): void {
  view.setUint32(page + Page.requestEvent, (indexes.requestConsumer + 1) >>> 0, true);
}

/** Puts a response into a slot whose request was taken. The guest does not see it before `publishResponses`. */
export function putResponse(
  { view }: HostMemory,
  page: HostAddress,
  indexes: RingIndexes,
  { idLow, idHigh, operation }: RingRequest,
  status: number,
): void {
  const slot = slotAt(page, indexes.responseProducer);
  indexes.responseProducer = (indexes.responseProducer + 1) >>> 0;
  view.setUint32(slot + ResponseField.id, idLow, true);
  view.setUint32(slot + ResponseField.id + 4, idHigh, true);
  view.setUint8(slot + ResponseField.operation, operation);
  view.setInt16(slot + ResponseField.status, status, true);
}

/** Shows the guest all responses. @returns whether it wants an event for them */
export function publishResponses({ view }: HostMemory, page: HostAddress, { responseProducer }: RingIndexes): boolean {
  const before = view.getUint32(page + Page.responseProducer, true);
  view.setUint32(page + Page.responseProducer, responseProducer, true);
  const event = view.getUint32(page + Page.responseEvent, true);
  return (responseProducer - event) >>> 0 < (responseProducer - before) >>> 0;
}

function slotAt(page: HostAddress, index: number): number {
  return page + Page.slots + (index & (SLOTS - 1)) * SLOT_BYTES;
}
