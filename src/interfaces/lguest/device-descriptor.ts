import type { VirtioDevice } from '../../devices/virtio/device.ts';
import { DeviceKind, Feature } from '../../devices/virtio/registers.ts';

/**
 * What the guest reads of its devices in the page above its memory: one description behind the other, up to a kind of 0.
 * Those of Linux 2.6.24 are lists of fields, all later ones have counts:
 *
 *   fields  kind u8, bytes of all fields u8, status u8
 *           each field: identifier u8, length u8, and as many bytes; queues are fields
 *   counts  kind u8, queues u8, feature bytes u8, configuration bytes u8, status u8
 *           queues
 *           features: as many bytes as said above, those that are offered; then as many again, those that are accepted
 *           configuration
 *
 *   queue   size u16, interrupt line u16, page of the ring u32
 */
export type DescriptorFormat = 'fields' | 'counts';

/** A queue as the guest is told of it. */
export interface QueuePlace {
  readonly size: number;
  readonly line: number;
  readonly page: number;
}

interface Layout {
  /** Where the status is. */
  readonly status: number;
  bytes(device: VirtioDevice): number;
  write(view: DataView, device: VirtioDevice, queues: readonly QueuePlace[]): void;
  writeConfiguration(view: DataView, device: VirtioDevice): void;
  /** Bits of the features that the driver has accepted. */
  accepted(view: DataView, device: VirtioDevice): number;
}

const QUEUE_BYTES = 8;

function writeQueue(view: DataView, at: number, { size, line, page }: QueuePlace): void {
  view.setUint16(at, size, true);
  view.setUint16(at + 2, line, true);
  view.setUint32(at + 4, page, true);
}

function copyBytes(view: DataView, at: number, bytes: Uint8Array): void {
  for (const [offset, byte] of bytes.entries()) view.setUint8(at + offset, byte);
}

// ─── Counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const enum Counted {
  kind = 0,
  queues = 1,
  featureBytes = 2,
  configurationBytes = 3,
  status = 4,
  firstQueue = 5,
}

const FEATURE_BYTES = 4;
/** What the transport itself can do besides the device's own features. */
const TRANSPORT_FEATURES = [Feature.indirectDescriptors, Feature.eventIndex] as const;

const featuresOf = ({ queueSizes }: VirtioDevice): number => Counted.firstQueue + QUEUE_BYTES * queueSizes.length;
const configurationOf = (device: VirtioDevice): number => featuresOf(device) + 2 * FEATURE_BYTES;

const COUNTS: Layout = {
  status: Counted.status,
  bytes: (device) => configurationOf(device) + device.configuration.length,
  write(view, device, queues) {
    const { kind, features, configuration } = device;
    view.setUint8(Counted.kind, kind);
    view.setUint8(Counted.queues, queues.length);
    view.setUint8(Counted.featureBytes, FEATURE_BYTES);
    view.setUint8(Counted.configurationBytes, configuration.length);
    for (const [index, queue] of queues.entries()) writeQueue(view, Counted.firstQueue + QUEUE_BYTES * index, queue);
    const offered = [...features, ...TRANSPORT_FEATURES].reduce((bits, bit) => bits | (1 << bit), 0);
    view.setUint32(featuresOf(device), offered >>> 0, true);
    copyBytes(view, configurationOf(device), configuration);
  },
  writeConfiguration: (view, device) => copyBytes(view, configurationOf(device), device.configuration),
  accepted: (view, device) => view.getUint32(featuresOf(device) + FEATURE_BYTES, true),
};

// ─── Fields ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const enum Listed {
  kind = 0,
  bytes = 1,
  status = 2,
  firstField = 3,
}

const FIELD_HEAD = 2;
const QUEUE_FIELD = 2;

/** A part of the configuration that is a field of its own. */
interface ConfigurationField {
  readonly identifier: number;
  readonly offset: number;
  readonly length: number;
}

/** By kind of device: capacity and most segments of a disk. */
const CONFIGURATION_FIELDS: Readonly<Partial<Record<DeviceKind, readonly ConfigurationField[]>>> = {
  [DeviceKind.block]: [
    { identifier: 0x41, offset: 0, length: 8 },
    { identifier: 0x43, offset: 12, length: 4 },
  ],
};

const fieldsOf = ({ kind }: VirtioDevice): readonly ConfigurationField[] => CONFIGURATION_FIELDS[kind] ?? [];

const FIELDS: Layout = {
  status: Listed.status,
  bytes: (device) =>
    Listed.firstField +
    device.queueSizes.length * (FIELD_HEAD + QUEUE_BYTES) +
    fieldsOf(device).reduce((sum, { length }) => sum + FIELD_HEAD + length, 0),
  write(view, device, queues) {
    view.setUint8(Listed.kind, device.kind);
    view.setUint8(Listed.bytes, FIELDS.bytes(device) - Listed.firstField);
    let at: number = Listed.firstField;
    const head = (identifier: number, length: number): number => {
      view.setUint8(at, identifier);
      view.setUint8(at + 1, length);
      at += FIELD_HEAD + length;
      return at - length;
    };
    for (const queue of queues) writeQueue(view, head(QUEUE_FIELD, QUEUE_BYTES), queue);
    for (const { identifier, offset, length } of fieldsOf(device)) {
      copyBytes(view, head(identifier, length), device.configuration.subarray(offset, offset + length));
    }
  },
  // The one that can change, a console's, has no fields.
  writeConfiguration: () => {},
  accepted: () => 0,
};

const LAYOUTS: Readonly<Record<DescriptorFormat, Layout>> = { fields: FIELDS, counts: COUNTS };

/** One of them, where it stands in the host's memory. The guest can write all of it; only two fields are ever read. */
export class DeviceDescriptor {
  readonly #device: VirtioDevice;
  readonly #view: () => DataView;
  readonly #written: (view: DataView) => void;
  readonly #format: () => DescriptorFormat;

  /**
   * @param view of the descriptor's bytes, good until control leaves the caller
   * @param written called when bytes of it were written
   */
  constructor(
    device: VirtioDevice,
    view: () => DataView,
    written: (view: DataView) => void,
    format: () => DescriptorFormat,
  ) {
    this.#device = device;
    this.#view = view;
    this.#written = written;
    this.#format = format;
  }

  get #layout(): Layout {
    return LAYOUTS[this.#format()];
  }

  get bytes(): number {
    return this.#layout.bytes(this.#device);
  }

  write(queues: readonly QueuePlace[]): void {
    const view = this.#view();
    this.#layout.write(view, this.#device, queues);
    this.#written(view);
  }

  writeConfiguration(): void {
    const view = this.#view();
    this.#layout.writeConfiguration(view, this.#device);
    this.#written(view);
  }

  get status(): number {
    return this.#view().getUint8(this.#layout.status);
  }

  /** Whether the driver has accepted a feature below 32. */
  isAccepted(bit: number): boolean {
    return bit < 32 && (this.#layout.accepted(this.#view(), this.#device) & (1 << bit)) !== 0;
  }

  /** Disks' requests of 2.6.24 have a field of 8 bytes behind the 16 that a header has otherwise. */
  get hasLongHeaders(): boolean {
    return this.#format() === 'fields' && this.#device.kind === DeviceKind.block;
  }
}
