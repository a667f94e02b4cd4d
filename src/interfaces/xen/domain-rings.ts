import { ConsoleRing } from '../../devices/xen/console-ring.ts';
import { XenstoreRing } from '../../devices/xen/xenstore-ring.ts';
import type { XenstoreSession } from '../../devices/xenstore-session.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Mfn } from '../../x86/brand.ts';
import type { EventChannels } from './event-channels.ts';

const SERVICE_STORE = 1;
const SERVICE_CONSOLE = 2;

/**
 * The two rings that every domain has, console and XenStore, with their event channels. The channels are open before
 * the domain is built, since start_info names them; the rings come to be in the frames that the builder chooses.
 */
export class DomainRings {
  readonly consolePort: number;
  readonly storePort: number;
  readonly #events: EventChannels;
  #console: ConsoleRing | undefined;
  #store: XenstoreRing | undefined;
  #pollConsole = false;
  #pollStore = false;

  constructor(events: EventChannels) {
    this.#events = events;
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

  /** @param sink takes what the guest prints */
  open(
    space: MachineSpace,
    frames: { readonly console: Mfn; readonly store: Mfn },
    session: XenstoreSession,
    sink: (bytes: Uint8Array) => void,
  ): void {
    this.#console = new ConsoleRing(space, frames.console, sink);
    this.#store = new XenstoreRing(space, frames.store, session);
  }

  type(bytes: Uint8Array): void {
    this.#console?.type(bytes);
    this.#pollConsole = true;
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
