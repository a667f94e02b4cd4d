import type { Archive, Archived } from '../../archive/archive.ts';
import { ConsoleRing } from '../../devices/xen/console-ring.ts';
import { XenstoreRing } from '../../devices/xen/xenstore-ring.ts';
import type { XenstoreSession } from '../../devices/xenstore-session.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import type { Mfn } from '../../x86/brand.ts';
import type { EventChannels } from './event-channels.ts';

/** Where the rings are. */
export interface RingFrames {
  readonly console: Mfn;
  readonly store: Mfn;
}

const NO_FRAME = -1;
const SERVICE_STORE = 1;
const SERVICE_CONSOLE = 2;

/**
 * The two rings that every domain has, console and XenStore, with their event channels. The channels are open before
 * the domain is built, since start_info names them; the rings come to be in the frames that the builder chooses.
 */
export class DomainRings implements Archived {
  readonly consolePort: number;
  readonly storePort: number;
  readonly #events: EventChannels;
  readonly #pages: SharedPages;
  readonly #session: XenstoreSession;
  readonly #sink: (bytes: Uint8Array) => void;
  #console: ConsoleRing | undefined;
  #store: XenstoreRing | undefined;
  #pollConsole = false;
  #pollStore = false;

  /** @param sink takes what the guest prints */
  constructor(events: EventChannels, pages: SharedPages, session: XenstoreSession, sink: (bytes: Uint8Array) => void) {
    this.#events = events;
    this.#pages = pages;
    this.#session = session;
    this.#sink = sink;
    events.registerService(SERVICE_STORE, {
      notify: () => {
        this.#pollStore = true;
      },
    });
    events.registerService(SERVICE_CONSOLE, {
      notify: () => {
        this.#pollConsole = true;
      },
    });
    this.storePort = events.openService(SERVICE_STORE);
    this.consolePort = events.openService(SERVICE_CONSOLE);
  }

  /** @param frames that the builder chose; of a domain that goes on they stand in its archive */
  open({ console, store }: RingFrames): void {
    this.#console = new ConsoleRing(this.#pages, console, this.#sink);
    this.#store = new XenstoreRing(this.#pages, store, this.#session);
  }

  archive(archive: Archive): void {
    const [console, store] = archive.value('frames', [this.#console?.mfn ?? NO_FRAME, this.#store?.mfn ?? NO_FRAME]);
    if (!this.#console || !this.#store) this.open({ console: console as Mfn, store: store as Mfn });
    archive.parts('rings', [this.#console, this.#store] as readonly Archived[]);
    this.#pollConsole = archive.value('pollConsole', this.#pollConsole);
    this.#pollStore = archive.value('pollStore', this.#pollStore);
  }

  type(bytes: Uint8Array): void {
    this.#console?.type(bytes);
    this.#pollConsole = true;
  }

  /** The host has written to the store, and the guest may be watching. */
  storeChanged(): void {
    this.#pollStore = true;
  }

  /** Whether `serve` has something to look at. */
  get hasWork(): boolean {
    return this.#pollConsole || this.#pollStore;
  }

  /** Moves what the guest has left in its rings, and what waits for it. */
  serve(): void {
    if (this.#pollConsole) {
      this.#pollConsole = false;
      if (this.#console?.poll()) this.#events.raise(this.consolePort);
    }
    if (this.#pollStore) {
      this.#pollStore = false;
      if (this.#store?.poll()) {
        this.#events.raise(this.storePort);
        this.#pollStore = true;
      }
    }
  }

  /** Takes what the guest printed last, event or not. */
  drainConsole(): void {
    this.#console?.poll();
  }
}
