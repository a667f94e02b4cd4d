import type { HostMemory } from '../../memory/host-memory.ts';
import type { HostAddress } from '../../x86/brand.ts';

/**
 * The ring of a block device (public/io/ring.h and blkif.h): one page, requests and responses in the same slots, indexes
 * free-running. Where a request's fields stand depends on how the front end aligns numbers of 64 bits.
 *
 *   0x00  req_prod, req_event, rsp_prod, rsp_event
 *   0x40  slot[32]
 *
 *   request   operation u8, segments u8, handle u16, id u64, sector u64, segment[11]
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

interface RingLayout {
  readonly slot: number;
  readonly id: number;
  readonly sector: number;
  readonly segment: number;
}

/** By the name that the front end gives its layout. */
const LAYOUTS = {
  'x86_64-abi': { slot: 112, id: 8, sector: 16, segment: 24 },
  'x86_32-abi': { slot: 108, id: 4, sector: 12, segment: 20 },
} as const satisfies Record<string, RingLayout>;

export type RingProtocol = keyof typeof LAYOUTS;

export const RING_PROTOCOLS = Object.keys(LAYOUTS) as readonly RingProtocol[];

/** Fields that no layout moves. */
const enum RequestField {
  operation = 0,
  segments = 1,
}
const SEGMENT_BYTES = 8;
export const MOST_SEGMENTS = 11;

const enum ResponseField {
  id = 0,
  operation = 8,
  status = 10,
}

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

/** The back end's own side of a ring: plain data. */
export interface RingSide {
  readonly protocol: RingProtocol;
  requestConsumer: number;
  responseProducer: number;
}

/** What to begin with, in a ring that an earlier back end may have served. */
export function attachRing(memory: HostMemory, page: HostAddress, protocol: RingProtocol): RingSide {
  const served = memory.view.getUint32(page + Page.responseProducer, true);
  return { protocol, requestConsumer: served, responseProducer: served };
}

/** Requests that wait, or −1 when the guest's index is nonsense: more than the slots that no response is due for. */
export function requestsIn(memory: HostMemory, page: HostAddress, side: RingSide): number {
  const producer = memory.view.getUint32(page + Page.requestProducer, true);
  if ((producer - side.responseProducer) >>> 0 > SLOTS) return -1;
  const count = (producer - side.requestConsumer) | 0;
  return count < 0 ? -1 : count;
}

/** Copies the next request out of the ring; there is one. */
export function takeRequest({ view }: HostMemory, page: HostAddress, side: RingSide): RingRequest {
  const layout = LAYOUTS[side.protocol];
  const slot = slotAt(page, layout, side.requestConsumer);
  side.requestConsumer = (side.requestConsumer + 1) >>> 0;
  const count = view.getUint8(slot + RequestField.segments);
  const segments = Array.from({ length: Math.min(count, MOST_SEGMENTS) }, (_none, index): RingSegment => {
    const at = slot + layout.segment + index * SEGMENT_BYTES;
    return { reference: view.getUint32(at, true), first: view.getUint8(at + 4), last: view.getUint8(at + 5) };
  });
  return {
    idLow: view.getUint32(slot + layout.id, true),
    idHigh: view.getUint32(slot + layout.id + 4, true),
    operation: view.getUint8(slot + RequestField.operation),
    // Beyond 2^53 bits are lost; such a sector lies on no disk in any case.
    sector: view.getUint32(slot + layout.sector + 4, true) * 0x1_0000_0000 + view.getUint32(slot + layout.sector, true),
    count,
    segments,
  };
}

/** Asks for an event with the next request. */
export function awaitRequests({ view }: HostMemory, page: HostAddress, side: RingSide): void {
  view.setUint32(page + Page.requestEvent, (side.requestConsumer + 1) >>> 0, true);
}

/** Puts a response into a slot whose request was taken. The guest does not see it before `publishResponses`. */
export function putResponse(
  { view }: HostMemory,
  page: HostAddress,
  side: RingSide,
  { idLow, idHigh, operation }: RingRequest,
  status: number,
): void {
  const slot = slotAt(page, LAYOUTS[side.protocol], side.responseProducer);
  side.responseProducer = (side.responseProducer + 1) >>> 0;
  view.setUint32(slot + ResponseField.id, idLow, true);
  view.setUint32(slot + ResponseField.id + 4, idHigh, true);
  view.setUint8(slot + ResponseField.operation, operation);
  view.setInt16(slot + ResponseField.status, status, true);
}

/** Shows the guest all responses. @returns whether it wants an event for them */
export function publishResponses({ view }: HostMemory, page: HostAddress, { responseProducer }: RingSide): boolean {
  const before = view.getUint32(page + Page.responseProducer, true);
  view.setUint32(page + Page.responseProducer, responseProducer, true);
  const event = view.getUint32(page + Page.responseEvent, true);
  return (responseProducer - event) >>> 0 < (responseProducer - before) >>> 0;
}

function slotAt(page: HostAddress, { slot }: RingLayout, index: number): number {
  return page + Page.slots + (index & (SLOTS - 1)) * slot;
}
