import type { Archived } from '../../archive/archive.ts';
import type { SegmentCursor } from '../dma/segments.ts';
import type { DeviceKind } from './registers.ts';
import type { Virtqueue } from './virtqueue.ts';

/** What a device sees of the transport that carries it. */
export interface Transport {
  /** In the order of `VirtioDevice.queueSizes`. */
  readonly queues: readonly Virtqueue[];
  /** Whether device and driver have agreed on a feature. */
  hasFeature(bit: number): boolean;
  /**
   * Copies out of guest memory and moves the cursor along.
   * @returns false when a page is missing: `process` goes on where the cursor stands
   */
  gather(cursor: SegmentCursor, target: Uint8Array): boolean;
  /** The same into guest memory. */
  scatter(cursor: SegmentCursor, source: Uint8Array): boolean;
  /** The driver has broken the rules; nothing works until it resets the device. */
  fail(reason: string): void;
  /** `VirtioDevice.configuration` has changed: the driver is told. */
  configurationChanged(): void;
  /** Asks for a call of `process` soon: a back end has finished something. May be called at any time. */
  wake(): void;
}

/**
 * A kind of device behind whatever transport. It touches guest memory and queues only within `process`, and what is
 * under way in it is plain records: back ends are asked and answer outside of those. It is archived only while it is not
 * busy.
 */
export interface VirtioDevice extends Archived {
  readonly kind: DeviceKind;
  /** Feature bits of its own. */
  readonly features: readonly number[];
  /** Largest size of each queue, powers of two. */
  readonly queueSizes: readonly number[];
  /** Its configuration space as the driver reads it at present. */
  readonly configuration: Uint8Array;
  /** Called once, before all else. */
  attach(transport: Transport): void;
  /** Does all that can be done without waiting. Called when the driver notifies, after `wake`, and when pages have come. */
  process(): void;
  /** Forgets the driver and all that was under way. */
  reset(): void;
  /** Lets its back end go: called last, when the guest has ended. */
  close?(): void;
  /** Waits for a back end: with virtual time, the guest must wait as well. */
  readonly isBusy: boolean;
}
