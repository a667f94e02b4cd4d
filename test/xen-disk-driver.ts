import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import type { BlockStore } from '../src/devices/block/store.ts';
import { BlockBackend } from '../src/devices/xen/block-backend.ts';
import type { RingSegment } from '../src/devices/xen/block-ring.ts';
import type { FrontEnd, GrantUse } from '../src/devices/xen/frontend.ts';
import { Xenstore } from '../src/devices/xenstore.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { type Gfn, type GuestPhysical, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { SwappedMemory } from './dma-machine.ts';

const DOMAIN = 5;
const HERE = `/local/domain/${DOMAIN}/device/vbd/51712`;
const BACKEND = `/local/domain/0/backend/vbd/${DOMAIN}/51712`;
const PORT = 3;
const SECTOR = 512;

/** The page of the ring, and its grant reference; pages 1 to 8 are granted by their own numbers. */
const RING = 0;
const DATA_PAGES = 8;

/** Offsets of the ring's page (public/io/ring.h, blkif.h). */
const REQUEST_PRODUCER = 0;
const REQUEST_EVENT = 4;
const RESPONSE_PRODUCER = 8;
const RESPONSE_EVENT = 12;
const SLOTS = 0x40;
/** A slot, and where the id, the sector and the segments of a request stand in it, by the width of the driver's kernel. */
const REQUEST = {
  64: { bytes: 112, id: 8, sector: 16, segment: 24 },
  32: { bytes: 108, id: 4, sector: 12, segment: 20 },
} as const;

interface DriverRequest {
  readonly operation: number;
  readonly sector: number;
  readonly segments: readonly RingSegment[];
  /** What the request says of its segments, where that differs. */
  readonly count?: number;
}

interface Response {
  readonly id: number;
  readonly operation: number;
  readonly status: number;
}

/** The driver of a disk in a guest whose pages come and go, as far as its back end sees it. */
export class XenDiskDriver {
  /** Accesses to granted pages that have not ended. */
  accesses = 0;
  pins = 0;
  events = 0;
  readonly #memory = new SwappedMemory();
  /** The ring's page as somebody knows it who is shown each store to it. */
  readonly #ring = new DataView(new ArrayBuffer(PAGE_SIZE));
  readonly #store = new Xenstore();
  readonly #disk: BlockStore;
  #backend: BlockBackend;
  readonly #readOnly = new Set<number>();
  #isRingThere = true;
  #producer = 0;
  #consumer = 0;
  readonly #bits: 64 | 32;

  constructor(disk: BlockStore, bits: 64 | 32 = 64) {
    this.#bits = bits;
    this.#disk = disk;
    this.#backend = this.#createBackend();
    this.#backend.introduce();
  }

  #createBackend(): BlockBackend {
    return new BlockBackend(this.#disk, 0, this.#frontEnd(), this.#memory.pool.memory);
  }

  /** The guest is saved as soon as neither disk nor pages are waited for, and another back end goes on. */
  async replaceBackend(): Promise<void> {
    this.poll();
    while (this.#backend.isBusy || this.#memory.isWaiting) {
      this.#memory.bringIn();
      await new Promise((resume) => setImmediate(resume));
    }
    const saved = decodeCbor(encodeCbor(save(this.#backend))) as PlainRecord;
    this.#backend = this.#createBackend();
    restore(this.#backend, saved);
  }

  #frontEnd(): FrontEnd {
    const frameOf = ({ mfn }: GrantUse) => this.#memory.frameOf(mfn as number as Gfn);
    return {
      domain: DOMAIN,
      store: this.#store,
      memory: this.#memory.table,
      begin: (reference, write) => {
        if (reference > DATA_PAGES || (write && this.#readOnly.has(reference))) return undefined;
        this.accesses++;
        return { reference, mfn: reference as Mfn, write };
      },
      end: () => {
        this.accesses--;
      },
      addressOf: ({ mfn }) => (mfn * PAGE_SIZE) as GuestPhysical,
      pin: ({ mfn }) => {
        if (!this.#isRingThere) throw new PageAbsent(mfn, true);
        this.pins++;
      },
      unpin: () => {
        this.pins--;
      },
      pinnedAddress: (use) => this.#memory.pool.addressOf(frameOf(use)),
      written: () => new Uint8Array(this.#ring.buffer).set(this.#memory.read(RING * PAGE_SIZE, PAGE_SIZE)),
      bind: (port) => port === PORT,
      unbind: () => {},
      raise: () => {
        this.events++;
      },
      wake: () => {},
    };
  }

  // The store

  backendNode(name: string): string | undefined {
    return this.#store.read(`${BACKEND}/${name}`);
  }

  setState(state: number): void {
    this.#store.write(`${HERE}/state`, String(state));
    this.poll();
  }

  /** @param nodes what the driver says otherwise */
  connect(nodes: Readonly<Record<string, string>> = {}): void {
    this.#producer = 0;
    this.#consumer = 0;
    for (const [offset, value] of [
      [REQUEST_PRODUCER, 0],
      [REQUEST_EVENT, 1],
      [RESPONSE_PRODUCER, 0],
      [RESPONSE_EVENT, 1],
    ] as const) {
      this.#setWord(offset, value);
    }
    if (!this.#isRingThere) this.#memory.evict(RING as Gfn);
    const said = { 'ring-ref': `${RING}`, 'event-channel': `${PORT}`, protocol: `x86_${this.#bits}-abi`, ...nodes };
    for (const [name, value] of Object.entries(said)) this.#store.write(`${HERE}/${name}`, value);
    this.setState(3);
  }

  // Pages

  evictRing(): void {
    this.#isRingThere = false;
  }

  bringRing(): void {
    this.#isRingThere = true;
  }

  evict(page: number): void {
    this.#memory.evict(page as Gfn);
  }

  grantReadOnly(page: number): void {
    this.#readOnly.add(page);
  }

  fill(page: number, value: number): void {
    this.#memory.write(page * PAGE_SIZE, new Uint8Array(PAGE_SIZE).fill(value));
  }

  /** The value of each sector of a page, all of whose bytes are equal. */
  sectorsOf(page: number): number[] {
    const bytes = this.#memory.read(page * PAGE_SIZE, PAGE_SIZE);
    return Array.from({ length: PAGE_SIZE / SECTOR }, (_none, index) => {
      const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
      return sector.every((byte) => byte === sector[0]) ? (sector[0] as number) : -1;
    });
  }

  // The ring

  #word(offset: number): number {
    return this.#ring.getUint32(offset, true);
  }

  #setWord(offset: number, value: number): void {
    this.#memory.writeU32(RING * PAGE_SIZE + offset, value);
    this.#ring.setUint32(offset, value, true);
  }

  segment(page: number, first = 0, last = 7): RingSegment {
    return { reference: page, first, last };
  }

  request({ operation, sector, segments, count = segments.length }: DriverRequest): void {
    const layout = REQUEST[this.#bits];
    const slot = SLOTS + (this.#producer & 31) * layout.bytes;
    this.#setWord(slot, operation | (count << 8));
    this.#setWord(slot + layout.id, this.#producer);
    this.#setWord(slot + layout.id + 4, 0);
    this.#setWord(slot + layout.sector, sector);
    this.#setWord(slot + layout.sector + 4, 0);
    for (const [index, { reference, first, last }] of segments.entries()) {
      this.#setWord(slot + layout.segment + index * 8, reference);
      this.#setWord(slot + layout.segment + 4 + index * 8, first | (last << 8));
    }
    this.setProducer(this.#producer + 1);
  }

  setProducer(producer: number): void {
    const before = this.#producer;
    this.#producer = producer;
    this.#setWord(REQUEST_PRODUCER, producer);
    const wanted = this.#word(REQUEST_EVENT);
    if ((producer - wanted) >>> 0 < (producer - before) >>> 0) this.#backend.notified();
  }

  poll(): void {
    this.#backend.poll();
  }

  /** Lets the back end work until it has nothing more to do. */
  async settle(): Promise<void> {
    for (let idleRounds = 0; idleRounds < 2; idleRounds++) {
      this.poll();
      if (this.#backend.isBusy || this.#memory.isWaiting) idleRounds = 0;
      this.#memory.bringIn();
      await new Promise((resume) => setImmediate(resume));
    }
  }

  /** All responses that have not been taken yet, when nothing more comes. */
  async responses(): Promise<Response[]> {
    await this.settle();
    const responses: Response[] = [];
    for (; this.#consumer !== this.#word(RESPONSE_PRODUCER); this.#consumer++) {
      const slot = SLOTS + (this.#consumer & 31) * REQUEST[this.#bits].bytes;
      const tail = this.#word(slot + 8);
      responses.push({ id: this.#word(slot), operation: tail & 0xff, status: tail >> 16 });
    }
    this.#setWord(RESPONSE_EVENT, this.#consumer + 1);
    return responses;
  }
}
