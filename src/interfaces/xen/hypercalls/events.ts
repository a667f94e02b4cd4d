import type { PortKind } from '../event-channels.ts';
import { GrantStatus } from '../grant-table.ts';
import { type Call, FAULT, type Handler, INVALID, NOT_IMPLEMENTED } from './call.ts';

/** Bytes of each event_channel_op structure, by command. */
const EVENT_BYTES = [12, 12, 12, 4, 4, 24, 8, 8, 8, 4, 2, 24, 8, 8] as const;

/** Commands that answer in the structure. */
const ANSWERING: ReadonlySet<number> = new Set([0, 1, 5, 6, 7]);

/** Writes a port number that an operation gave back, or passes its error on. */
function givePort(call: Call, view: DataView, offset: number, port: number): number {
  if (port < 0) return port;
  view.setUint32(offset, port, true);
  return call.writeView(call.value(1), view) ? 0 : FAULT;
}

const eventChannelOperation: Handler = (call) => {
  const { events } = call.domain;
  const command = call.low[0] as number;
  const bytes = EVENT_BYTES[command];
  if (bytes === undefined) return NOT_IMPLEMENTED;
  if (command >= 11) return command === 11 ? events.initControl() : NOT_IMPLEMENTED;
  if (ANSWERING.has(command)) call.prepareWrite(call.value(1), bytes);
  const view = call.view(call.value(1), bytes);
  if (!view) return FAULT;
  const word = (offset: number) => view.getUint32(offset, true);
  switch (command) {
    case 0:
      return givePort(call, view, 8, events.bindInterdomain(view.getUint16(0, true), word(4)));
    case 1:
      return givePort(call, view, 8, events.bindVirq(word(0), word(4)));
    case 2:
      return -1; // EPERM: no physical interrupts
    case 3:
      return events.close(word(0));
    case 4:
      return events.send(word(0));
    case 5: {
      const status = events.status(view.getUint16(0, true), word(4));
      if (typeof status === 'number') return status;
      view.setUint32(8, status.kind as PortKind, true);
      view.setUint32(12, status.vcpu, true);
      view.setUint32(16, 0, true);
      view.setUint32(20, 0, true);
      if (status.kind === 2) {
        view.setUint16(16, status.domain, true);
        view.setUint32(20, status.remotePort, true);
      } else if (status.kind === 1) view.setUint16(16, status.domain, true);
      else if (status.kind === 4) view.setUint32(16, status.virq, true);
      return call.writeView(call.value(1), view) ? 0 : FAULT;
    }
    case 6:
      return givePort(call, view, 4, events.allocUnbound(view.getUint16(0, true), view.getUint16(2, true)));
    case 7:
      return givePort(call, view, 4, events.bindIpi(word(0)));
    case 8:
      return events.bindVcpu(word(0), word(4));
    case 9:
      return events.unmask(word(0));
    case 10:
      return events.reset(view.getUint16(0, true));
    default:
      return NOT_IMPLEMENTED;
  }
};

/** Operations in one grant_table_op call; the guest's own limit is far below. */
const GRANT_BATCH = 1024;

type GrantOperation = (call: Call, view: DataView) => boolean;
type Structures = Call['abi']['structures'];

const grantOperations: Readonly<
  Record<number, { bytes: number | ((structures: Structures) => number); run: GrantOperation }>
> = {
  0: {
    bytes: 32,
    run: ({ domain }, view) => {
      const status = domain.grants.mapGrantReference(view.getUint16(16, true), view.getUint32(12, true));
      view.setInt16(18, status, true);
      return true;
    },
  },
  1: {
    bytes: 24,
    run: ({ domain }, view) => {
      view.setInt16(20, domain.grants.unmapGrantReference(view.getUint32(16, true)), true);
      return true;
    },
  },
  2: {
    bytes: ({ grantSetup }) => grantSetup.size,
    run: (call, view) => {
      const { status, frames } = call.domain.grants.setupTable(view.getUint16(0, true), view.getUint32(4, true));
      view.setInt16(8, status, true);
      if (status !== GrantStatus.okay) return true;
      const list = call.longAt(view, call.abi.structures.grantSetup.list);
      return frames.every((mfn, index) => call.writeLong(list + index * call.abi.longSize, mfn));
    },
  },
  5: {
    bytes: ({ grantCopy }) => grantCopy.size,
    run: ({ domain, abi }, view) => {
      const layout = abi.structures.grantCopy;
      const flags = view.getUint16(layout.flags, true);
      const end = (at: number, isReference: boolean) => ({
        reference: view.getUint32(at, true),
        domain: view.getUint16(at + layout.domain, true),
        offset: view.getUint16(at + layout.offset, true),
        isReference,
      });
      const status = domain.grants.copy(
        end(0, (flags & 1) !== 0),
        end(layout.target, (flags & 2) !== 0),
        view.getUint16(layout.length, true),
      );
      view.setInt16(layout.status, status, true);
      return true;
    },
  },
  6: {
    bytes: 16,
    run: ({ domain }, view) => {
      const size = domain.grants.querySize(view.getUint16(0, true));
      view.setUint32(4, size.frames, true);
      view.setUint32(8, size.maximumFrames, true);
      view.setInt16(12, size.status, true);
      return true;
    },
  },
  10: {
    bytes: 8,
    run: ({ domain }, view) => {
      const { version } = domain.grants.getVersion(view.getUint16(0, true));
      view.setUint32(4, version, true);
      return true;
    },
  },
};

const grantTableOperation: Handler = (call) => {
  const command = call.low[0] as number;
  const list = call.value(1);
  const count = call.low[2] as number;
  if (command === 8) {
    const view = call.view(list, 4);
    if (!view) return FAULT;
    const result = call.domain.grants.setVersion(view.getUint32(0, true));
    view.setUint32(0, 1, true);
    return call.writeView(list, view) ? result : FAULT;
  }
  const operation = grantOperations[command];
  if (!operation) return NOT_IMPLEMENTED;
  if (count > GRANT_BATCH) return INVALID;
  const bytes = typeof operation.bytes === 'number' ? operation.bytes : operation.bytes(call.abi.structures);
  for (let index = 0; index < count; index++) {
    const address = list + index * bytes;
    // What is left, if this one must wait for a page.
    call.setValue(1, address);
    call.setValue(2, count - index);
    call.prepareWrite(address, bytes);
    const view = call.view(address, bytes);
    if (!view || !operation.run(call, view) || !call.writeView(address, view)) return FAULT;
  }
  return 0;
};

export const EVENT_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [20, grantTableOperation],
  [32, eventChannelOperation],
];
