import type { Archive } from '../../archive/archive.ts';
import { cursorAt, type SegmentCursor, totalLength } from '../dma/segments.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { DeviceKind } from './registers.ts';

/** Most bytes for one request; a driver that wants more asks again. */
const REQUEST_LIMIT = 4096;

/** Fills an array with random bits. */
export type RandomSource = (out: Uint32Array<ArrayBuffer>) => void;

interface EntropyTransfer {
  readonly head: number;
  readonly bytes: number;
  readonly cursor: SegmentCursor;
}

/** A source of randomness (virtio 1.2, 5.4). */
export class EntropyDevice implements VirtioDevice {
  readonly kind = DeviceKind.entropy;
  readonly features = [];
  readonly queueSizes = [8];
  readonly configuration = new Uint8Array(0);
  readonly isBusy = false;
  readonly state: { transfer: EntropyTransfer | undefined } = { transfer: undefined };
  readonly #random: RandomSource;
  #transport: Transport | undefined;

  constructor(random: RandomSource) {
    this.#random = random;
  }

  archive(archive: Archive): void {
    archive.record('state', this.state);
  }

  attach(transport: Transport): void {
    this.#transport = transport;
  }

  process(): void {
    const transport = this.#transport;
    const requests = transport?.queues[0];
    if (transport === undefined || requests === undefined) return;
    for (;;) {
      if (this.state.transfer === undefined) {
        const chain = requests.pop();
        if (chain === undefined) return;
        const bytes = Math.min(totalLength(chain.writable), REQUEST_LIMIT);
        this.state.transfer = { head: chain.head, bytes, cursor: cursorAt(chain.writable) };
      }
      const { head, bytes, cursor } = this.state.transfer;
      const words = new Uint32Array(Math.ceil((bytes - cursor.position) / 4));
      this.#random(words);
      if (!transport.scatter(cursor, new Uint8Array(words.buffer, 0, bytes - cursor.position))) return;
      if (!requests.push(head, bytes)) return;
      this.state.transfer = undefined;
    }
  }

  reset(): void {
    this.state.transfer = undefined;
  }
}
