import { beforeAll, describe, expect, it } from 'vitest';
import { HostileLguest, type LguestRun } from './hostile/lguest.ts';

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
  let run: LguestRun;
  beforeAll(async () => {
    const guests = new HostileLguest();
    // Throws for anything but the end of a guest.
    await guests.attack(CALLS, 1);
    run = guests.run;
  });

  it.each(BOTH_WAYS)('%s is carried out and refused', (call) => {
    expect(run.carriedOut.get(call)).toBeGreaterThan(0);
    expect(run.refused.get(call)).toBeGreaterThan(0);
  });

  it.each(CARRIED_OUT)('%s is carried out', (call) => {
    expect(run.carriedOut.get(call)).toBeGreaterThan(0);
  });

  it('a call without a name always ends its guest', () => {
    expect(run.refused.get('without a name')).toBeGreaterThan(0);
    expect(run.carriedOut.get('without a name')).toBeUndefined();
  });

  it('end with a reason, or not at all', () => {
    expect(run.guests).toBeGreaterThan(1);
    for (const ending of run.endings.keys()) expect(ending).toMatch(ENDINGS);
  });

  it('give back all of their memory', () => {
    expect(run.lostFrames).toBe(0);
  });
});
