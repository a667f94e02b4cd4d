import { beforeAll, describe, expect, it } from 'vitest';
import { HostileLguest } from './hostile/lguest.ts';

const CALLS = 2_500;

/** Calls that are carried out with some arguments, and end their guest with others. */
const BOTH_WAYS = ['initialize', 'loadGdt', 'loadIdtEntry', 'setStack', 'loadTls', 'notify', 'loadGdtEntry'];

/** Calls that have no bad arguments. */
const CARRIED_OUT = [
  'flushAsync',
  'newPageTable',
  'flushTlb',
  'taskSwitched',
  'setClockEvent',
  'halt',
  'setMiddleEntry',
  'setPte',
  'setTopEntry',
  'sendInterrupts',
];

const ENDINGS =
  /hypercall N|no handler|set a gate|no memory|notifies of|a stack of|twice|not its own|set descriptor|reboot|cannot be written|is none for it|reported a crash|poweroff|descriptors|not all in its memory|system calls at|running/;

describe('hostile guests of lguest, with random tables, shared data and code', () => {
  const guests = new HostileLguest();
  const { record } = guests;
  // Throws for anything but the end of a guest.
  beforeAll(() => guests.attack(CALLS, 1));

  const resultsOf = (call: string) => ['L1', 'L2', 'L3'].flatMap((era) => record.results(`${era} ${call}`));

  it.each(BOTH_WAYS)('%s is carried out and refused', (call) => {
    expect(resultsOf(call)).toContain('carried out');
    expect(resultsOf(call)).toContainEqual(expect.stringMatching(/^ends it/));
  });

  it.each(CARRIED_OUT)('%s is carried out', (call) => {
    expect(resultsOf(call)).toContain('carried out');
  });

  it('a call without a name always ends its guest', () => {
    expect(new Set(resultsOf('without a name'))).toEqual(
      new Set(['ends it (the guest made hypercall N, which there is not)']),
    );
  });

  it('end with a reason, or not at all', () => {
    expect(record.guests).toBeGreaterThan(1);
    for (const ending of record.endings.keys()) expect(ending).toMatch(ENDINGS);
  });

  it('give back all of their memory', () => {
    expect(guests.lostFrames).toBe(0);
  });
});
