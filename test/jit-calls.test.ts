/** Calls of regions for calls of the guest: deeper than their limit, and returning elsewhere than to where they came from. */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { listing } from './listing.ts';
import { AGAIN, FORMATS, INTERPRETER, RegionMachine, statesOf } from './region-machine.ts';

const PROGRAMS: readonly (readonly [name: string, code: string])[] = [
  [
    'a recursion of a hundred calls whose flags live on behind them',
    `
      bd 05000000         mov ebp, 5
      b9 64000000         mov ecx, 100
      e8 08000000         call: to xor
      01 c3               add ebx, eax
      83 ed 01            sub ebp, 1
      75 ef               jne: to mov ecx
      f4                  hlt
      31 c0               xor eax, eax
      85 c9               test ecx, ecx
      74 0f               je: to the last ret
      51                  push ecx
      83 e9 01            sub ecx, 1
      e8 f1ffffff         call: to xor
      59                  pop ecx
      01 c8               add eax, ecx
      11 c2               adc edx, eax
      c3                  ret
      c3                  ret
    `,
  ],
  [
    'a function that changes where it returns to',
    `
      bd 50000000         mov ebp, 80
      e8 0c000000         call: to test
      83 c3 64            add ebx, 100
      83 c3 01            add ebx, 1
      83 ed 01            sub ebp, 1
      75 f0               jne: to call
      f4                  hlt
      f7 c5 01000000      test ebp, 1
      74 04               je: to ret
      83 04 24 03         add dword [esp], 3
      c3                  ret
    `,
  ],
  [
    'a function that returns for its caller',
    `
      bd 50000000         mov ebp, 80
      e8 09000000         call: to the next call
      83 c3 01            add ebx, 1
      83 ed 01            sub ebp, 1
      75 f3               jne: to call
      f4                  hlt
      e8 04000000         call: to test
      83 c3 0a            add ebx, 10
      c3                  ret
      f7 c5 01000000      test ebp, 1
      74 01               je: to ret
      58                  pop eax
      c3                  ret
    `,
  ],
];

describe.each(FORMATS)('with %s page tables', (format) => {
  test.each(PROGRAMS)('%s does what it does in the interpreter, up to every stop', (_name, code) => {
    const program = listing(code);
    const states = statesOf(new RegionMachine(format, INTERPRETER, program));
    const machine = new RegionMachine(format, AGAIN, program);
    const { processor } = machine;
    for (let count = 1; count < states.length; count++) {
      machine.restart();
      expect(processor.runExactly(count)).toBe(Exit.budget);
      expect(machine.stateNow()).toEqual(states[count]);
    }
    expect(machine.instructionsInRegions).toBeGreaterThan(processor.instructions / 2);
  });
});
