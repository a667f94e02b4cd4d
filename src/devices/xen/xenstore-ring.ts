import type { Archive, Archived } from '../../archive/archive.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { copyIn, copyOut, fill } from '../ring.ts';
import type { XenstoreSession } from '../xenstore-session.ts';

/**
 * The XenStore page (public/io/xs_wire.h):
 *
 *   0x000  req[1024]   guest to host
 *   0x400  rsp[1024]   host to guest
 *   0x800  req_cons, req_prod, rsp_cons, rsp_prod
 *   0x810  server_features, connection, error
 */
const enum Page {
  requests = 0x000,
  replies = 0x400,
  requestConsumer = 0x800,
  requestProducer = 0x804,
  replyConsumer = 0x808,
  replyProducer = 0x80c,
  error = 0x818,
}
const RING_SIZE = 1024;

/** Why the host has stopped to serve a ring; the value of the page's `error` field (xs_wire.h). */
export const enum RingError {
  none = 0,
  indexes = 2,
  protocol = 3,
}

/** Carries a session's bytes through the guest's page. It acts only in `poll`. */
export class XenstoreRing implements Archived {
  readonly mfn: Mfn;
  error: RingError = RingError.none;
  readonly #pages: SharedPages;
  readonly #session: XenstoreSession;

  constructor(pages: SharedPages, mfn: Mfn, session: XenstoreSession) {
    this.#pages = pages;
    this.mfn = mfn;
    this.#session = session;
  }

  archive(archive: Archive): void {
    this.error = archive.value('error', this.error);
  }

  /**
   * Takes requests and gives replies and events, one ring's worth of each at most. Called when the guest has sent an
   * event, when the host has changed the store, and once a slice.
   * @returns whether the guest's port must be raised
   */
  poll(): boolean {
    const page = this.#pages.addressOf(this.mfn);
    if (page < 0 || this.error !== RingError.none) return false;
    const took = this.#takeRequests(page);
    const gave = this.#giveReplies(page);
    if (this.#session.broken) this.#fail(page, RingError.protocol);
    if (took || gave) this.#pages.written(page, PAGE_SIZE);
    return took || gave;
  }

  #takeRequests(page: number): boolean {
    const { memory } = this.#pages;
    const consumer = memory.view.getUint32(page + Page.requestConsumer, true);
    const count = fill(memory.view.getUint32(page + Page.requestProducer, true), consumer, RING_SIZE);
    if (count < 0) this.#fail(page, RingError.indexes);
    if (count <= 0) return false;
    const taken = this.#session.receive(copyOut(memory, page + Page.requests, RING_SIZE, consumer, count));
    if (taken > 0) memory.view.setUint32(page + Page.requestConsumer, (consumer + taken) >>> 0, true);
    return taken > 0;
  }

  #giveReplies(page: number): boolean {
    if (!this.#session.waiting || this.error !== RingError.none) return false;
    const { memory } = this.#pages;
    const producer = memory.view.getUint32(page + Page.replyProducer, true);
    const used = fill(producer, memory.view.getUint32(page + Page.replyConsumer, true), RING_SIZE);
    if (used < 0) this.#fail(page, RingError.indexes);
    if (used < 0 || used === RING_SIZE) return false;
    const bytes = this.#session.send(RING_SIZE - used);
    copyIn(memory, page + Page.replies, RING_SIZE, producer, bytes);
    memory.view.setUint32(page + Page.replyProducer, (producer + bytes.length) >>> 0, true);
    return bytes.length > 0;
  }

  #fail(page: number, error: RingError): void {
    this.error = error;
    this.#pages.memory.view.setUint32(page + Page.error, error, true);
    this.#pages.written(page + Page.error, 4);
  }
}
