import type { GuestVirtual } from '../../x86/brand.ts';

/** Where something comes from that enters ring 0 through the IDT. */
export const enum EventSource {
  /** From an interrupt controller, or an NMI. */
  external = 0,
  /** A fault or trap of the processor. */
  exception = 1,
  /** INT n, INT3, INTO: the gate must be for the program's ring. */
  software = 2,
}

/** An exception or interrupt on its way into the kernel. */
export interface Event {
  readonly vector: number;
  /** Error code that the frame gets; null for none. */
  readonly error: number | null;
  readonly source: EventSource;
  /** Whether the resume flag is set in the flags that are saved. */
  readonly resumes: boolean;
  /** The instruction to return to. */
  readonly returnTo: GuestVirtual;
}

/** Of error codes that name a gate or a selector: what came was no instruction of the program (SDM vol. 3A, 6.13). */
export function externalBit({ source }: Event): 0 | 1 {
  return source === EventSource.software ? 0 : 1;
}
