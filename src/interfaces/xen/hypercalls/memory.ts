import { type Mfn, PAGE_SIZE, type Pfn } from '../../../x86/brand.ts';
import { domainMeant } from '../domain-id.ts';
import { Errno } from '../errno.ts';
import { type Call, FAULT, type Handler, INVALID, NOT_IMPLEMENTED, Special } from './call.ts';

/** memory_op: what belongs to the domain, and where. */

/** Offsets of xen_memory_reservation. */
interface Reservation {
  readonly list: number;
  readonly count: number;
  readonly order: number;
  readonly self: boolean;
}

function reservationOf(call: Call): Reservation | null {
  const layout = call.abi.structures.reservation;
  const view = call.view(call.value(1), layout.size);
  if (!view) return null;
  return {
    list: call.longAt(view, 0),
    count: call.longAt(view, layout.count),
    order: view.getUint32(layout.order, true),
    self: domainMeant(view.getUint16(layout.domain, true), call.domain.id) === 'self',
  };
}

/** Extents in one call before the vCPU may do something else. */
const EXTENT_LIMIT = 512;
/** The command's high bits carry the start of a preempted call, as in Xen's own ABI. */
const START_SHIFT = 6;
const COMMAND_MASK = (1 << START_SHIFT) - 1;

/** How many extents earlier parts of a call have done: any number from 0 to 2^58, since guests can say what they like. */
function startOf(call: Call): number {
  return (call.high[0] as number) * 2 ** (32 - START_SHIFT) + ((call.low[0] as number) >>> START_SHIFT);
}

function changeReservation(call: Call, populate: boolean): number {
  const reservation = reservationOf(call);
  if (!reservation) return FAULT;
  const { paging } = call.domain;
  const { longSize } = call.abi;
  const start = startOf(call);
  if (!reservation.self) return start;
  if (reservation.order !== 0) return start;
  const command = (call.low[0] as number) & COMMAND_MASK;
  let done = start;
  for (; done < reservation.count; done++) {
    call.setValue(0, done * (1 << START_SHIFT) + command);
    if (done - start === EXTENT_LIMIT) return Special.preempted;
    if (populate) call.prepareWrite(reservation.list + done * longSize, longSize);
    const number = call.readLong(reservation.list + done * longSize);
    if (number === undefined || number < 0) return done;
    if (populate) {
      const mfn = paging.populatePhysmap(number as Pfn);
      if (mfn < 0 || !call.writeLong(reservation.list + done * longSize, mfn)) return done;
    } else if (paging.decreaseReservation(number as Mfn) !== 0) return done;
  }
  return done;
}

const memoryOperation: Handler = (call) => {
  const { domain } = call;
  switch ((call.low[0] as number) & COMMAND_MASK) {
    case 1:
      return changeReservation(call, false);
    case 2:
      return domain.paging.types.limit - 1;
    case 3:
    case 4:
      return domain.pages;
    case 6:
      return changeReservation(call, true);
    case 7:
      return addToPhysmap(call);
    case 9:
      return memoryMap(call);
    case 12: {
      const { machineToPhysical } = domain.paging;
      if (!machineToPhysical) return NOT_IMPLEMENTED;
      const layout = call.abi.structures.machineToPhysical;
      const view = new DataView(new ArrayBuffer(layout.size));
      call.setLongAt(view, 0, domain.paging.rules.hostWindow.start);
      call.setLongAt(view, layout.end, machineToPhysical.end);
      call.setLongAt(view, layout.maximum, machineToPhysical.limit - 1);
      return call.writeView(call.value(1), view) ? 0 : FAULT;
    }
    default:
      return NOT_IMPLEMENTED;
  }
};

/** What XENMEM_add_to_physmap can place (public/memory.h). */
const enum PlacedSpace {
  sharedInfo = 0,
  grantTable = 1,
}

/** Moves a page of the host's to where a guest wants it whose frames are translated for it. */
function addToPhysmap(call: Call): number {
  const { domain } = call;
  const layout = call.abi.structures.addToPhysmap;
  const view = call.view(call.value(1), layout.size);
  if (!view) return FAULT;
  if (domainMeant(view.getUint16(0, true), domain.id) !== 'self') return -Errno.ESRCH;
  const to = call.longAt(view, layout.gpfn);
  if (!domain.isTranslated || to < 0) return INVALID;
  switch (view.getUint32(layout.space, true) as PlacedSpace) {
    case PlacedSpace.sharedInfo:
      return domain.moveSharedInfo(to as Mfn);
    case PlacedSpace.grantTable:
      return domain.moveGrantFrame(call.longAt(view, layout.index), to as Mfn);
    default:
      return INVALID;
  }
}

const E820_RAM = 1;
const E820_BYTES = 20;

function memoryMap(call: Call): number {
  const layout = call.abi.structures.memoryMap;
  const view = call.view(call.value(1), layout.size);
  if (!view) return FAULT;
  if (view.getUint32(0, true) < 1) return INVALID;
  const entry = new DataView(new ArrayBuffer(E820_BYTES));
  const bytes = call.domain.pages * PAGE_SIZE;
  entry.setUint32(8, bytes >>> 0, true);
  entry.setUint32(12, Math.floor(bytes / 0x1_0000_0000), true);
  entry.setUint32(16, E820_RAM, true);
  if (!call.writeView(call.longAt(view, layout.buffer), entry)) return FAULT;
  view.setUint32(0, 1, true);
  return call.writeView(call.value(1), view) ? 0 : FAULT;
}

export const MEMORY_HYPERCALLS: readonly (readonly [number, Handler])[] = [[12, memoryOperation]];
