/**
 * Exits of one turn, many times what any kernel has: a guest can fault for ever, or repeat an access to a port, without
 * completing an instruction.
 */
export const MOST_EXITS = 20_000;

/** What a virtual processor may still do in its turn. */
export interface TurnBudget {
  readonly instructions: number;
  readonly exits: number;
}

/** What is left of it when the processor stops. */
export interface TurnRest extends TurnBudget {
  /** It stopped because nobody reads what its guest prints. */
  readonly isHeld: boolean;
}
