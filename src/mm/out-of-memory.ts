import type { AddressSpace } from './address-space.ts';
import type { MemoryError } from './errors.ts';

/** Who waits for a frame; one object for each time. */
export interface Asker {
  /** Whose lock is held meanwhile: the space that needs the frame, or the parent of one that is being made. */
  readonly space: AddressSpace | undefined;
  /** The frame is for a space that is being made. */
  readonly isNew: boolean;
}

/** What an asker hears when no frame can be had: why, or nothing once it may try again. */
export type Verdict = (asker: Asker) => Promise<MemoryError | undefined>;

/**
 * Who is told when no frame can be had. To end one guest is enough, since what it has lets the others go on. So spaces
 * that are only being made are refused first; and when all who ask are running, it is the one with most pages, and the
 * others wait until it has ended.
 */
export class OutOfMemory {
  readonly #askers = new Set<Asker>();
  /** The space that was told, until it has ended. */
  #condemned: { readonly space: AddressSpace; readonly ended: Promise<void>; readonly end: () => void } | undefined;

  /** Until `leave`, the asker is one of those to choose from. */
  enter(asker: Asker): void {
    this.#askers.add(asker);
  }

  leave(asker: Asker): void {
    this.#askers.delete(asker);
  }

  /** An address space is no more. */
  ended(space: AddressSpace): void {
    if (this.#condemned?.space !== space) return;
    this.#condemned.end();
    this.#condemned = undefined;
  }

  /** Chooses among those who ask. */
  decide(error: MemoryError): Verdict {
    if (this.#condemned === undefined) {
      const newcomers = new Set([...this.#askers].filter(({ isNew }) => isNew));
      if (newcomers.size > 0) return async (asker) => (newcomers.has(asker) ? error : undefined);
      const space = this.#largest();
      if (space === undefined) return async () => undefined;
      let end = (): void => {};
      const ended = new Promise<void>((resolve) => {
        end = resolve;
      });
      this.#condemned = { space, ended, end };
    }
    const { space, ended } = this.#condemned;
    // All who hold the lock of the one that is told have to let it go, or it could not end.
    return async (asker) => {
      if (asker.space === space) return error;
      await ended;
      return undefined;
    };
  }

  #largest(): AddressSpace | undefined {
    let largest: AddressSpace | undefined;
    let most = -1;
    for (const space of new Set([...this.#askers].map((asker) => asker.space))) {
      const pages = space?.workingSet().resident ?? -1;
      if (pages <= most) continue;
      most = pages;
      largest = space;
    }
    return largest;
  }
}
