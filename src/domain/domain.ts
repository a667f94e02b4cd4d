import type { DirtyPages } from '../paging/dirty-pages.ts';
import type { Clock } from './clock.ts';

/** How a domain stands. `reason` is one line for its user. */
export type DomainState =
  | { readonly kind: 'running' }
  | { readonly kind: 'poweroff' }
  | { readonly kind: 'reboot' }
  | { readonly kind: 'crash'; readonly reason: string };

/** A guest as the scheduler and its user see it, whatever interface it speaks. */
export interface Domain {
  readonly state: DomainState;
  readonly clock: Clock;
  /** Nothing can run until a deadline passes or `onWork` is called. */
  readonly idle: boolean;
  /** Nothing is under way that has to come to its end before the state is saved. */
  readonly isSettled: boolean;
  /** What it printed waits for a reader: it stands still, and so does its time, until that is no more so. */
  readonly outputIsFull: () => boolean;
  /** Called by the domain when something from outside gives it work. */
  onWork: () => void;
  /**
   * Fires what is due. An idle domain goes on to its next deadline, with virtual time and while it is behind its host.
   * @returns whether it did: the next look may find it with work, or another deadline
   */
  catchUp(): boolean;
  /** Lets each runnable virtual processor execute for about a millisecond. */
  turn(): void;
  /** Host time until something is due; Infinity for never. */
  millisecondsToDeadline(): number;
  /** Bytes typed at the console. */
  type(bytes: Uint8Array): void;
  /** Takes the size of the terminal, where the console can tell it to the guest. */
  resize?(columns: number, rows: number): void;
  /** Which pages of the memory are written. */
  readonly dirtyPages: DirtyPages;
  /** Figures as plain data. */
  figures(wallSeconds: number): object;
  /** Registers and stack of the virtual processor that crashed, several lines. */
  crashReport(): string;
  /** Gives everything back. Called once, last; settles when its memory is free. */
  destroy(): void | Promise<void>;
}
