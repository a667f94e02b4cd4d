import type { Archive, Archived } from '../../archive/archive.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import { archiveSize, type BlockStore, SECTOR } from '../block/store.ts';
import { homeOf, type Permission, PRIVILEGED_DOMAIN, StoreAccess } from '../xenstore-node.ts';
import {
  attachRing,
  awaitRequests,
  publishResponses,
  putResponse,
  RING_PROTOCOLS,
  type RingSide,
  requestsIn,
  takeRequest,
} from './block-ring.ts';
import { completed, createTransfer, moveData, perform, type RingTransfer } from './block-transfer.ts';
import { BusState, type FrontEnd, type GrantUse } from './frontend.ts';

/** xvda, xvdb …: block major 202, sixteen minors for each disk (docs/misc/vbd-interface). */
const FIRST_DEVICE = 202 << 8;
const MINORS = 16;
export const MOST_DISKS = 16;

/** Of the node `info` (public/io/blkif.h). */
const INFO_READ_ONLY = 4;

/** A ring in use. */
interface Connection {
  readonly ring: GrantUse;
  /** −1 once the guest has closed it. */
  port: number;
  readonly side: RingSide;
}

/**
 * The back end of a Xen guest's disk. The two ends find each other through XenStore: each writes its state and watches
 * the other's, the front end names a page for the ring and a port, this one says what the disk is like.
 *
 * It acts only in `poll`, and keeps nothing of the guest but plain records.
 */
export class BlockBackend implements Archived {
  readonly #disk: BlockStore;
  readonly #guest: FrontEnd;
  readonly #memory: HostMemory;
  readonly #index: number;
  readonly #here: string;
  readonly #there: string;
  #state = BusState.initialising;
  /** The front end's state may have changed. */
  #isTold = false;
  /**
   * The guest has sent an event. Only then are requests looked for, so that with virtual time they are not found
   * earlier in one run than in another.
   */
  #isNotified = false;
  #connection: Connection | undefined;
  /** In the order in which they were taken. */
  #transfers: RingTransfer[] = [];

  /**
   * Waits for a front end; that of a guest which goes on has what `introduce` writes in its store already.
   * @param index among the guest's disks, from 0
   */
  constructor(disk: BlockStore, index: number, guest: FrontEnd, memory: HostMemory) {
    const device = deviceOf(index);
    this.#disk = disk;
    this.#index = index;
    this.#guest = guest;
    this.#memory = memory;
    this.#here = `${homeOf(PRIVILEGED_DOMAIN)}/backend/vbd/${guest.domain}/${device}`;
    this.#there = `${homeOf(guest.domain)}/device/vbd/${device}`;
    guest.store.watch(`${this.#there}/state`, () => {
      this.#isTold = true;
      guest.wake();
    });
  }

  archive(archive: Archive): void {
    archiveSize(archive, this.#disk);
    this.#state = archive.value('state', this.#state);
    this.#isTold = archive.value('isTold', this.#isTold);
    this.#isNotified = archive.value('isNotified', this.#isNotified);
    this.#connection = archive.value('connection', this.#connection);
    this.#transfers = archive.value('transfers', this.#transfers);
  }

  /** Writes into the store of a guest that is built that it has the disk. */
  introduce(): void {
    const { store, domain } = this.#guest;
    const index = this.#index;
    const host = { domain: PRIVILEGED_DOMAIN, access: StoreAccess.none };
    const guest = { domain, access: StoreAccess.none };
    const ends: readonly (readonly [string, readonly Permission[], Readonly<Record<string, string>>])[] = [
      [
        this.#here,
        [host, { ...guest, access: StoreAccess.read }],
        {
          frontend: this.#there,
          'frontend-id': String(domain),
          online: '1',
          dev: `xvd${String.fromCharCode('a'.charCodeAt(0) + index)}`,
          mode: this.#disk.isReadOnly ? 'r' : 'w',
          removable: '0',
          'feature-flush-cache': '1',
          state: String(BusState.initialising),
        },
      ],
      [
        this.#there,
        [guest, { ...host, access: StoreAccess.read }],
        {
          backend: this.#here,
          'backend-id': String(PRIVILEGED_DOMAIN),
          'virtual-device': String(deviceOf(index)),
          'device-type': 'disk',
          state: String(BusState.initialising),
        },
      ],
    ];
    for (const [path, permissions, nodes] of ends) {
      store.write(path, '', permissions);
      for (const [name, value] of Object.entries(nodes)) store.write(`${path}/${name}`, value);
    }
    this.#become(BusState.initWait);
  }

  /** Whether the disk is at work, so that with virtual time the guest must wait. */
  get isBusy(): boolean {
    return this.#transfers.some(({ phase }) => phase === 'submitted');
  }

  /** @throws PageAbsent when a page for the ring must be brought in first; nothing has changed then */
  poll(): void {
    if (this.#isTold) this.#follow();
    const connection = this.#connection;
    if (connection === undefined) return;
    if (this.#isNotified) this.#takeRequests(connection);
    this.#isNotified = false;
    for (const transfer of this.#transfers) this.#advance(transfer, connection);
    this.#transfers = this.#transfers.filter(({ phase }) => phase !== 'over');
    const page = this.#guest.pinnedAddress(connection.ring);
    const isAwaited = publishResponses(this.#memory, page, connection.side);
    this.#guest.written(connection.ring);
    if (isAwaited && connection.port >= 0) this.#guest.raise(connection.port);
  }

  notified(): void {
    this.#isNotified = true;
  }

  /** The guest has closed a port. */
  portClosed(port: number): void {
    if (this.#connection?.port === port) this.#connection.port = -1;
  }

  // ─── The two ends ──────────────────────────────────────────────────────────────────────────────────────────────────

  #become(state: BusState): void {
    this.#state = state;
    this.#guest.store.write(`${this.#here}/state`, String(state));
  }

  #follow(): void {
    switch (this.#number('state')) {
      case BusState.initialising:
        // A driver that was unloaded comes back.
        if (this.#state === BusState.closed) this.#become(BusState.initWait);
        break;
      case BusState.initialised:
        if (this.#state === BusState.initWait) {
          const problem = this.#connect();
          if (problem !== undefined) this.#fail(problem);
        }
        break;
      case BusState.closing:
        if (this.#state !== BusState.closing) this.#become(BusState.closing);
        break;
      case BusState.closed:
        // What the disk still does for the guest has its pages.
        if (this.isBusy) return;
        this.#disconnect();
        break;
    }
    this.#isTold = false;
  }

  /** What the front end says under a name; −1 when that is no number. */
  #number(name: string): number {
    const text = this.#guest.store.read(`${this.#there}/${name}`) ?? '';
    const value = /^\d{1,10}$/.test(text) ? Number(text) : -1;
    return value <= 0xffff_ffff ? value : -1;
  }

  /** @returns what the front end has done wrong */
  #connect(): string | undefined {
    const { store } = this.#guest;
    const named = store.read(`${this.#there}/protocol`);
    const protocol = RING_PROTOCOLS.find((known) => known === named);
    if (protocol === undefined) return `the front end speaks none of ${RING_PROTOCOLS.join(', ')}`;
    const reference = this.#number('ring-ref');
    const ring = reference < 0 ? undefined : this.#guest.begin(reference, true);
    if (ring === undefined) return 'the front end has granted no page for the ring';
    try {
      this.#guest.pin(ring);
    } catch (absent) {
      this.#guest.end(ring);
      throw absent;
    }
    const port = this.#number('event-channel');
    if (!this.#guest.bind(port)) {
      this.#release(ring);
      return 'the front end has opened no event channel';
    }
    this.#connection = { ring, port, side: attachRing(this.#memory, this.#guest.pinnedAddress(ring), protocol) };
    for (const [name, value] of [
      ['sectors', this.#disk.sectors],
      ['sector-size', SECTOR],
      ['physical-sector-size', SECTOR],
      ['info', this.#disk.isReadOnly ? INFO_READ_ONLY : 0],
    ] as const) {
      store.write(`${this.#here}/${name}`, String(value));
    }
    this.#become(BusState.connected);
    return undefined;
  }

  #release(ring: GrantUse): void {
    this.#guest.unpin(ring);
    this.#guest.end(ring);
  }

  #disconnect(): void {
    for (const { grants } of this.#transfers) for (const use of grants) this.#guest.end(use);
    this.#transfers = [];
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection) {
      if (connection.port >= 0) this.#guest.unbind(connection.port);
      this.#release(connection.ring);
    }
    this.#become(BusState.closed);
  }

  /** The front end does what no sound one would: the device is closed until its driver begins anew. */
  #fail(reason: string): void {
    this.#guest.store.write(`${this.#here}/error`, reason);
    this.#become(BusState.closed);
  }

  // ─── Requests ──────────────────────────────────────────────────────────────────────────────────────────────────────

  #takeRequests({ ring, side }: Connection): void {
    const page = this.#guest.pinnedAddress(ring);
    const count = requestsIn(this.#memory, page, side);
    if (count < 0) {
      // What it means cannot be known; the driver that begins anew finds its indexes as it sets them.
      this.#guest.store.write(`${this.#here}/error`, "the front end's index of requests is nonsense");
      return;
    }
    for (let taken = 0; taken < count; taken++) {
      this.#transfers.push(createTransfer(takeRequest(this.#memory, page, side), this.#disk, this.#guest));
    }
    awaitRequests(this.#memory, page, side);
  }

  #advance(transfer: RingTransfer, { ring, side }: Connection): void {
    moveData(transfer, this.#guest);
    if (transfer.phase === 'submit') this.#submit(transfer);
    if (transfer.phase !== 'answer') return;
    // The guest takes its pages back when it sees the response.
    for (const use of transfer.grants) this.#guest.end(use);
    putResponse(this.#memory, this.#guest.pinnedAddress(ring), side, transfer.request, transfer.status);
    transfer.phase = 'over';
  }

  #submit(transfer: RingTransfer): void {
    transfer.phase = 'submitted';
    void perform(this.#disk, transfer)
      .catch(() => 'failed' as const)
      .then((result) => {
        completed(transfer, result);
        this.#guest.wake();
      });
  }
}

/** Number of a disk's device. */
function deviceOf(index: number): number {
  return FIRST_DEVICE + index * MINORS;
}
