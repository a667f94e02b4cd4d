import type { Archive } from '../../archive/archive.ts';
import { archiveSize, type BlockStore } from '../block/store.ts';
import { WRITE_ZEROES_LIMIT } from './block-request.ts';
import { advance, type BlockTransfer, completed, createTransfer, perform } from './block-transfer.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { DeviceKind } from './registers.ts';

const enum BlockFeature {
  segmentMaximum = 2,
  readOnly = 5,
  flush = 9,
  writeZeroes = 14,
}

/** Configuration space (5.2.4); fields of features that are not offered stay 0. */
const enum Configuration {
  capacity = 0,
  segmentMaximum = 12,
  writeZeroesMaximum = 48,
  writeZeroesSegments = 52,
  size = 60,
}

const QUEUE_SIZE = 256;
/** Requests under way at once: with the pieces that they hold, the bound of a device's memory. */
const TRANSFERS = 16;

/** A disk (virtio 1.2, 5.2) over any store. */
export class BlockDevice implements VirtioDevice {
  readonly kind = DeviceKind.block;
  readonly features: readonly number[];
  readonly queueSizes = [QUEUE_SIZE];
  readonly configuration: Uint8Array;
  /** In the order in which they were taken. */
  readonly state: { transfers: BlockTransfer[] } = { transfers: [] };
  readonly #store: BlockStore;
  #transport: Transport | undefined;
  /** Counts resets: what the store finishes for an earlier driver concerns nobody. */
  #life = 0;
  /** Operations at the store, and those among them that were begun for an earlier driver. */
  #pending = 0;
  #stale = 0;

  constructor(store: BlockStore) {
    this.#store = store;
    this.features = [
      BlockFeature.segmentMaximum,
      BlockFeature.flush,
      store.isReadOnly ? BlockFeature.readOnly : BlockFeature.writeZeroes,
    ];
    this.configuration = new Uint8Array(Configuration.size);
    const view = new DataView(this.configuration.buffer);
    view.setUint32(Configuration.capacity, store.sectors >>> 0, true);
    view.setUint32(Configuration.capacity + 4, Math.floor(store.sectors / 0x1_0000_0000), true);
    // Header and status take a descriptor each.
    view.setUint32(Configuration.segmentMaximum, QUEUE_SIZE - 2, true);
    if (!store.isReadOnly) {
      view.setUint32(Configuration.writeZeroesMaximum, WRITE_ZEROES_LIMIT, true);
      view.setUint32(Configuration.writeZeroesSegments, 1, true);
    }
  }

  archive(archive: Archive): void {
    archiveSize(archive, this.#store);
    archive.record('state', this.state);
  }

  get isBusy(): boolean {
    return this.#pending > 0;
  }

  attach(transport: Transport): void {
    this.#transport = transport;
  }

  reset(): void {
    this.state.transfers = [];
    this.#life++;
    this.#stale = this.#pending;
  }

  process(): void {
    const transport = this.#transport;
    const requests = transport?.queues[0];
    if (transport === undefined || requests === undefined) return;
    const environment = { transport, store: this.#store, submit: this.#submit };
    const { state } = this;
    for (const transfer of state.transfers) advance(transfer, environment);
    state.transfers = state.transfers.filter((transfer) => transfer.phase !== 'over');
    while (state.transfers.length < TRANSFERS) {
      const chain = requests.pop();
      if (chain === undefined) return;
      const transfer = createTransfer(chain);
      advance(transfer, environment);
      if (transfer.phase !== 'over') state.transfers.push(transfer);
    }
  }

  /** What an earlier driver began might still change the disk, so nothing is begun before its end. */
  readonly #submit = (transfer: BlockTransfer): boolean => {
    if (this.#stale > 0) return false;
    const life = this.#life;
    this.#pending++;
    void perform(this.#store, transfer)
      .catch(() => 'failed' as const)
      .then((result) => {
        this.#pending--;
        if (life === this.#life) completed(transfer, result);
        else this.#stale--;
        this.#transport?.wake();
      });
    return true;
  };
}
