import type { Archive } from '../../archive/archive.ts';
import { cursorAt, type SegmentCursor, totalLength } from '../dma/segments.ts';
import { Ethernet, type EthernetPort, LONGEST_FRAME, type MacAddress } from '../network/ethernet.ts';
import type { EthernetSwitch } from '../network/switch.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { DeviceKind } from './registers.ts';

const enum NetworkFeature {
  mac = 5,
  status = 16,
}

/** Configuration space (5.1.4). */
const enum Configuration {
  mac = 0,
  status = 6,
  bytes = 8,
}
const LINK_UP = 1;

/**
 * In front of each frame (5.1.6): flags u8, segmentation u8, four u16 for offloads that are not offered, number of
 * buffers u16 at 10, which is always 1 in frames for the guest.
 */
const HEADER = 12;
const NUMBER_OF_BUFFERS = 10;

const RECEIVE = 0;
const TRANSMIT = 1;
const QUEUE_SIZE = 256;
/** Frames that wait for the guest; more are dropped, as by a real adapter. */
const WAITING_LIMIT = 256;
/** Frames sent before others get their turn. */
const TURN = QUEUE_SIZE;

interface FrameTransfer {
  readonly head: number;
  readonly cursor: SegmentCursor;
  /** Header and frame; empty for what is no frame and only given back. */
  readonly bytes: Uint8Array;
}

interface NetworkState {
  /** Frames for the guest, in order. */
  readonly waiting: Uint8Array[];
  receiving: FrameTransfer | undefined;
  transmitting: FrameTransfer | undefined;
  /** Frames that came when there was no room. */
  dropped: number;
}

/** A network adapter (virtio 1.2, 5.1) at a switch. */
export class NetworkDevice implements VirtioDevice, EthernetPort {
  readonly kind = DeviceKind.network;
  readonly features = [NetworkFeature.mac, NetworkFeature.status];
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly configuration = new Uint8Array(Configuration.bytes);
  readonly isBusy = false;
  readonly state: NetworkState = { waiting: [], receiving: undefined, transmitting: undefined, dropped: 0 };
  readonly #network: EthernetSwitch;
  #transport: Transport | undefined;

  constructor(mac: MacAddress, network: EthernetSwitch) {
    this.configuration.set(mac, Configuration.mac);
    this.configuration[Configuration.status] = LINK_UP;
    this.#network = network;
    network.connect(this);
  }

  archive(archive: Archive): void {
    archive.record('state', this.state);
  }

  attach(transport: Transport): void {
    this.#transport = transport;
  }

  receive(frame: Uint8Array): void {
    const { state } = this;
    if (state.waiting.length === WAITING_LIMIT) {
      state.dropped++;
      return;
    }
    state.waiting.push(frame);
    this.#transport?.wake();
  }

  process(): void {
    const transport = this.#transport;
    if (transport === undefined) return;
    this.#transmit(transport);
    this.#receive(transport);
  }

  reset(): void {
    const { state } = this;
    state.waiting.length = 0;
    state.receiving = undefined;
    state.transmitting = undefined;
  }

  close(): void {
    this.#network.disconnect(this);
  }

  #transmit(transport: Transport): void {
    const { state } = this;
    for (let sent = 0; sent < TURN; sent++) {
      state.transmitting ??= this.#nextOutput(transport);
      if (state.transmitting === undefined) return;
      const { head, cursor, bytes } = state.transmitting;
      if (!transport.gather(cursor, bytes.subarray(cursor.position))) return;
      if (!transport.queues[TRANSMIT]?.push(head, 0)) return;
      state.transmitting = undefined;
      if (bytes.length > 0) this.#network.send(this, bytes.subarray(HEADER));
    }
    transport.wake();
  }

  #nextOutput(transport: Transport): FrameTransfer | undefined {
    const chain = transport.queues[TRANSMIT]?.pop();
    if (chain === undefined) return undefined;
    const length = totalLength(chain.readable);
    const isFrame = length >= HEADER + Ethernet.payload && length <= HEADER + LONGEST_FRAME;
    return { head: chain.head, cursor: cursorAt(chain.readable), bytes: new Uint8Array(isFrame ? length : 0) };
  }

  #receive(transport: Transport): void {
    const { state } = this;
    for (;;) {
      state.receiving ??= this.#nextInput(transport);
      if (state.receiving === undefined) return;
      const { head, cursor, bytes } = state.receiving;
      if (!transport.scatter(cursor, bytes.subarray(cursor.position))) return;
      if (!transport.queues[RECEIVE]?.push(head, bytes.length)) return;
      state.receiving = undefined;
    }
  }

  #nextInput(transport: Transport): FrameTransfer | undefined {
    const { waiting } = this.state;
    const chain = waiting.length === 0 ? undefined : transport.queues[RECEIVE]?.pop();
    const frame = chain && waiting.shift();
    if (chain === undefined || frame === undefined) return undefined;
    // A driver must leave room for any frame; one that does not gets its buffer back with nothing in it.
    const fits = HEADER + frame.length <= totalLength(chain.writable);
    const bytes = new Uint8Array(fits ? HEADER + frame.length : 0);
    if (fits) {
      bytes[NUMBER_OF_BUFFERS] = 1;
      bytes.set(frame, HEADER);
    }
    return { head: chain.head, cursor: cursorAt(chain.writable), bytes };
  }
}
