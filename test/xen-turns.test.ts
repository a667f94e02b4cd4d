import { afterEach, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { MOST_EXITS } from '../src/domain/turn.ts';
import { Execution } from '../src/interfaces/xen/execution.ts';
import { destroyGuests, SmallGuest } from './xen-guest.ts';

afterEach(destroyGuests);

test('a turn ends though the guest leaves generated code again and again without completing an instruction', () => {
  const { domain } = new SmallGuest();
  let exits = 0;
  const execution = new Execution(domain, [], () => {
    exits++;
    return Exit.budget;
  });
  const budget = { instructions: 1000, exits: MOST_EXITS };
  expect(execution.run(domain.running, budget)).toEqual({ instructions: 1000, exits: 0, isHeld: false });
  expect(exits).toBe(MOST_EXITS);
});
