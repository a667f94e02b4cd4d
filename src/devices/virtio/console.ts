import type { Archive } from '../../archive/archive.ts';
import { cursorAt, type SegmentCursor, totalLength } from '../dma/segments.ts';
import { type ByteQueue, createByteQueue, dequeue, enqueue } from '../ring.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { DeviceKind } from './registers.ts';

const enum ConsoleFeature {
  size = 0,
}

/** Configuration space (5.3.4). */
const enum Configuration {
  columns = 0,
  rows = 2,
  bytes = 12,
}

const RECEIVE = 0;
const TRANSMIT = 1;
/** Bytes of output handed on at a time. */
const PIECE = 4096;
/** Most output taken before others get their turn: a chain of buffers may announce up to 4 GiB. */
const TURN = 64 * 1024;

/** A chain that is being filled or emptied. */
interface ConsoleTransfer {
  readonly head: number;
  readonly cursor: SegmentCursor;
  /** Bytes of the whole transfer. */
  readonly length: number;
  /** Input that goes there. */
  readonly bytes: Uint8Array;
}

interface ConsoleState {
  /** Typed, but not yet taken by the guest. */
  readonly input: ByteQueue;
  receiving: ConsoleTransfer | undefined;
  transmitting: ConsoleTransfer | undefined;
}

/** A console of one port (virtio 1.2, 5.3). */
export class ConsoleDevice implements VirtioDevice {
  readonly kind = DeviceKind.console;
  readonly features = [ConsoleFeature.size];
  readonly queueSizes = [64, 64];
  readonly configuration = new Uint8Array(Configuration.bytes);
  readonly isBusy = false;
  readonly state: ConsoleState = { input: createByteQueue(), receiving: undefined, transmitting: undefined };
  readonly #sink: (bytes: Uint8Array) => void;
  #transport: Transport | undefined;

  /** @param sink takes what the guest prints, in pieces that it may keep */
  constructor(sink: (bytes: Uint8Array) => void) {
    this.#sink = sink;
  }

  archive(archive: Archive): void {
    archive.words('configuration', this.configuration);
    archive.record('state', this.state);
  }

  attach(transport: Transport): void {
    this.#transport = transport;
  }

  /** Queues what the host's user typed. */
  type(bytes: Uint8Array): void {
    enqueue(this.state.input, bytes.slice());
    this.#transport?.wake();
  }

  /** Tells the guest the size of the terminal, in characters. */
  resize(columns: number, rows: number): void {
    const view = new DataView(this.configuration.buffer);
    view.setUint16(Configuration.columns, columns, true);
    view.setUint16(Configuration.rows, rows, true);
    this.#transport?.configurationChanged();
  }

  process(): void {
    const transport = this.#transport;
    if (transport === undefined) return;
    this.#transmit(transport);
    this.#receive(transport);
  }

  reset(): void {
    this.state.receiving = undefined;
    this.state.transmitting = undefined;
  }

  #transmit(transport: Transport): void {
    const { state } = this;
    for (let taken = 0; taken < TURN; ) {
      state.transmitting ??= this.#nextOutput(transport);
      if (state.transmitting === undefined) return;
      const { head, cursor, length } = state.transmitting;
      const piece = new Uint8Array(Math.min(PIECE, length - cursor.position));
      const before = cursor.position;
      const isWhole = transport.gather(cursor, piece);
      const count = cursor.position - before;
      if (count > 0) this.#sink(piece.subarray(0, count));
      if (!isWhole) return;
      taken += count;
      if (cursor.position < length) continue;
      if (!transport.queues[TRANSMIT]?.push(head, 0)) return;
      state.transmitting = undefined;
    }
    transport.wake();
  }

  #nextOutput(transport: Transport): ConsoleTransfer | undefined {
    const chain = transport.queues[TRANSMIT]?.pop();
    if (chain === undefined) return undefined;
    const cursor = cursorAt(chain.readable);
    return { head: chain.head, cursor, length: totalLength(chain.readable), bytes: new Uint8Array(0) };
  }

  #receive(transport: Transport): void {
    const { state } = this;
    for (;;) {
      state.receiving ??= this.#nextInput(transport);
      if (state.receiving === undefined) return;
      const { head, cursor, length, bytes } = state.receiving;
      if (!transport.scatter(cursor, bytes.subarray(cursor.position))) return;
      if (!transport.queues[RECEIVE]?.push(head, length)) return;
      state.receiving = undefined;
    }
  }

  #nextInput(transport: Transport): ConsoleTransfer | undefined {
    const { input } = this.state;
    const chain = input.length === 0 ? undefined : transport.queues[RECEIVE]?.pop();
    if (chain === undefined) return undefined;
    const bytes = dequeue(input, totalLength(chain.writable));
    return { head: chain.head, cursor: cursorAt(chain.writable), length: bytes.length, bytes };
  }
}
