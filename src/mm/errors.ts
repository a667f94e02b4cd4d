/** Why a page cannot be had. The address space that wanted it cannot go on; others can. */
export interface MemoryError {
  readonly kind: 'no-such-address' | 'out-of-memory' | 'swap-read' | 'file-read';
  /** One line for the user: what was wrong, with the value, and what to do. */
  readonly message: string;
}

/** A rule of PTE notifiers was broken: a defect of a subscriber or of the memory manager, never a guest's doing. */
export class RuleViolation extends Error {}

/** What an unknown thrown value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
