import { gather, type SegmentCursor, scatter } from '../dma/segments.ts';
import { DmaStatus, type DmaTable } from '../dma/table.ts';
import { Feature } from './registers.ts';
import type { QueueOwner } from './virtqueue.ts';

/** What all transports do alike: buffers of the guest are reached through its DMA table, and features say how queues work. */
export abstract class VirtioTransport implements QueueOwner {
  abstract readonly memory: DmaTable;
  abstract hasFeature(bit: number): boolean;
  abstract fail(reason: string): void;

  get hasIndirectDescriptors(): boolean {
    return this.hasFeature(Feature.indirectDescriptors);
  }

  get hasEventIndex(): boolean {
    return this.hasFeature(Feature.eventIndex);
  }

  gather(cursor: SegmentCursor, target: Uint8Array): boolean {
    return this.#isDone(gather(this.memory, cursor, target));
  }

  scatter(cursor: SegmentCursor, source: Uint8Array): boolean {
    return this.#isDone(scatter(this.memory, cursor, source));
  }

  #isDone(status: DmaStatus): boolean {
    if (status === DmaStatus.refused) this.fail('the driver offers a buffer that is no RAM');
    return status === DmaStatus.ready;
  }
}
