import type { VirtioDevice } from '../../devices/virtio/device.ts';
import { TRANSPORT_FEATURES } from './device.ts';

/**
 * What the guest reads of one device in the page above its memory:
 *
 *   type u8, queues u8, feature bytes u8, configuration bytes u8, status u8
 *   queues      size u16, interrupt line u16, page of the ring u32
 *   features    as many bytes as said above: those that are offered; then as many again: those that the driver accepts
 *   configuration
 */
const enum Field {
  kind = 0,
  queues = 1,
  featureBytes = 2,
  configurationBytes = 3,
  status = 4,
  firstQueue = 5,
}
const QUEUE_BYTES = 8;
const FEATURE_BYTES = 4;

/** A queue as the guest is told of it. */
export interface QueuePlace {
  readonly size: number;
  readonly line: number;
  readonly page: number;
}

/** Bytes of the description of a device. */
export function descriptorBytes({ queueSizes, configuration }: VirtioDevice): number {
  return Field.firstQueue + QUEUE_BYTES * queueSizes.length + 2 * FEATURE_BYTES + configuration.length;
}

/** One of them, where it stands in the host's memory. The guest can write all of it; only two fields are ever read. */
export class DeviceDescriptor {
  readonly #device: VirtioDevice;
  readonly #view: () => DataView;

  /** @param view of the descriptor's bytes, good until control leaves the caller */
  constructor(device: VirtioDevice, view: () => DataView) {
    this.#device = device;
    this.#view = view;
  }

  write(queues: readonly QueuePlace[]): void {
    const view = this.#view();
    const { kind, features, configuration } = this.#device;
    view.setUint8(Field.kind, kind);
    view.setUint8(Field.queues, queues.length);
    view.setUint8(Field.featureBytes, FEATURE_BYTES);
    view.setUint8(Field.configurationBytes, configuration.length);
    for (const [index, { size, line, page }] of queues.entries()) {
      const at = Field.firstQueue + QUEUE_BYTES * index;
      view.setUint16(at, size, true);
      view.setUint16(at + 2, line, true);
      view.setUint32(at + 4, page, true);
    }
    const offered = [...features, ...TRANSPORT_FEATURES].reduce((bits, bit) => bits | (1 << bit), 0);
    view.setUint32(this.#features, offered >>> 0, true);
    this.writeConfiguration();
  }

  writeConfiguration(): void {
    const view = this.#view();
    const first = this.#features + 2 * FEATURE_BYTES;
    for (const [offset, byte] of this.#device.configuration.entries()) view.setUint8(first + offset, byte);
  }

  get #features(): number {
    return Field.firstQueue + QUEUE_BYTES * this.#device.queueSizes.length;
  }

  get status(): number {
    return this.#view().getUint8(Field.status);
  }

  /** Whether the driver has accepted a feature below 32. */
  isAccepted(bit: number): boolean {
    const accepted = this.#view().getUint32(this.#features + FEATURE_BYTES, true);
    return bit < 32 && (accepted & (1 << bit)) !== 0;
  }
}
