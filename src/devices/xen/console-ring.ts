import type { Archive, Archived } from '../../archive/archive.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { type ByteQueue, copyIn, copyOut, createByteQueue, dequeue, enqueue, fill } from '../ring.ts';

/**
 * The page of the PV console (public/io/console.h):
 *
 *   0x000  in[1024]    host to guest
 *   0x400  out[2048]   guest to host
 *   0xc00  in_cons, in_prod, out_cons, out_prod
 */
const enum Page {
  in = 0x000,
  out = 0x400,
  inConsumer = 0xc00,
  inProducer = 0xc04,
  outConsumer = 0xc08,
  outProducer = 0xc0c,
}
const IN_SIZE = 1024;
const OUT_SIZE = 2048;

/** Back end of a guest's console. It acts only in `poll`. */
export class ConsoleRing implements Archived {
  readonly mfn: Mfn;
  /** Typed, but not yet taken by the guest. */
  readonly input: ByteQueue = createByteQueue();
  readonly #pages: SharedPages;
  readonly #sink: (bytes: Uint8Array) => void;

  /** @param sink takes what the guest prints, in pieces of at most 2048 bytes that it may keep */
  constructor(pages: SharedPages, mfn: Mfn, sink: (bytes: Uint8Array) => void) {
    this.#pages = pages;
    this.mfn = mfn;
    this.#sink = sink;
  }

  archive(archive: Archive): void {
    archive.record('input', this.input);
  }

  /** Queues what the host's user typed; the next `poll` begins to hand it over. */
  type(bytes: Uint8Array): void {
    enqueue(this.input, bytes.slice());
  }

  /**
   * Takes all output and gives as much input as there is room for. Called when the guest has sent an event, when input
   * was queued, and once a slice.
   * @returns whether the guest's port must be raised: output was taken (a blocked writer can go on) or input given
   */
  poll(): boolean {
    const page = this.#pages.addressOf(this.mfn);
    if (page < 0) return false;
    const took = this.#takeOutput(page);
    const gave = this.#giveInput(page);
    if (took || gave) this.#pages.written(page, PAGE_SIZE);
    return took || gave;
  }

  #takeOutput(page: number): boolean {
    const { memory } = this.#pages;
    const producer = memory.view.getUint32(page + Page.outProducer, true);
    const consumer = memory.view.getUint32(page + Page.outConsumer, true);
    if (producer === consumer) return false;
    const count = fill(producer, consumer, OUT_SIZE);
    // Indexes that cannot be: what they announce is lost, the next output is read again.
    if (count > 0) this.#sink(copyOut(memory, page + Page.out, OUT_SIZE, consumer, count));
    memory.view.setUint32(page + Page.outConsumer, producer, true);
    return true;
  }

  #giveInput(page: number): boolean {
    if (this.input.length === 0) return false;
    const { memory } = this.#pages;
    const producer = memory.view.getUint32(page + Page.inProducer, true);
    const consumer = memory.view.getUint32(page + Page.inConsumer, true);
    const used = fill(producer, consumer, IN_SIZE);
    if (used < 0 || used === IN_SIZE) return false;
    const bytes = dequeue(this.input, IN_SIZE - used);
    copyIn(memory, page + Page.in, IN_SIZE, producer, bytes);
    memory.view.setUint32(page + Page.inProducer, (producer + bytes.length) >>> 0, true);
    return true;
  }
}
