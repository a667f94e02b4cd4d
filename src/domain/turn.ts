/**
 * Exits of one turn, many times what any kernel has: a guest can fault for ever, or repeat an access to a port, without
 * completing an instruction.
 */
export const MOST_EXITS = 20_000;
