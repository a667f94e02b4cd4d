import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { HostClock, VirtualClock } from '../src/domain/clock.ts';

describe('clocks', () => {
  it('of the host count nanoseconds from the start and never go back', () => {
    let milliseconds = 1000;
    const clock = new HostClock(() => milliseconds);
    expect(clock.now()).toBe(0);
    milliseconds = 1001.25;
    expect(clock.now()).toBe(1_250_000);
    expect(clock.tsc()).toBe(1_250_000);
    milliseconds = 1000.5;
    expect(clock.now()).toBe(1_250_000);
  });

  it('of the host go on from where a snapshot was taken, behind by what has passed since', () => {
    let milliseconds = 1;
    const before = new HostClock(() => milliseconds);
    milliseconds = 3;
    const saved = save(before);
    const after = new HostClock(() => milliseconds, 40_000_000);
    milliseconds = 500;
    restore(after, saved);
    expect(after.now()).toBe(2_000_000);
    expect(after.behind).toBe(537_000_000);
    milliseconds = 501;
    expect(after.now()).toBe(3_000_000);
    expect(after.behind).toBe(537_000_000);
  });

  it('of the host keep their date when more has passed than they can count', () => {
    const clock = new HostClock(() => 0, 2 ** 53);
    restore(clock, save(new HostClock(() => 0)));
    expect(clock.advanceTo(Number.POSITIVE_INFINITY)).toBe(false);
    expect(clock.now()).toBe(0);
    expect(clock.behind).toBe(2 ** 53);
  });

  it('of the host never go back, beyond a deadline or beyond the host, whenever they were saved', () => {
    const nanoseconds = fc.integer({ min: 0, max: 10 ** 10 });
    const step = fc.oneof(
      fc.record({ kind: fc.constant('pass' as const), time: nanoseconds }),
      fc.record({ kind: fc.constant('advance' as const), time: fc.oneof(nanoseconds, fc.constant(Infinity)) }),
      fc.record({ kind: fc.constant('save' as const), time: nanoseconds }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let host = 0;
        let clock = new HostClock(() => host / 1e6);
        let total = 0;
        for (const { kind, time } of steps) {
          const before = clock.now();
          if (kind === 'pass') {
            host += time;
            total += time;
            expect(clock.now()).toBeCloseTo(before + time, -1);
          } else if (kind === 'advance') {
            const behind = clock.behind;
            expect(clock.advanceTo(before + time)).toBe(behind > 0 && time > 0);
            expect(clock.now()).toBe(before + Math.min(behind, time));
          } else {
            const saved = save(clock);
            host = 7;
            clock = new HostClock(() => host / 1e6, time);
            restore(clock, saved);
            total += time;
            expect(clock.now()).toBe(before);
          }
          expect(clock.tsc()).toBe(clock.now());
          expect(clock.now()).toBeGreaterThanOrEqual(before);
          expect(clock.behind).toBeGreaterThanOrEqual(0);
          expect(clock.now() + clock.behind).toBeCloseTo(total, -2);
        }
      }),
    );
  });

  it('of instructions stand still without them until they are moved', () => {
    let instructions = 10;
    const clock = new VirtualClock(() => instructions, 2);
    expect(clock.now()).toBe(20);
    expect(clock.advanceTo(100)).toBe(true);
    expect(clock.now()).toBe(100);
    expect(clock.advanceTo(50)).toBe(false);
    expect(clock.advanceTo(Number.POSITIVE_INFINITY)).toBe(false);
    expect(clock.now()).toBe(100);
    instructions = 11;
    expect(clock.tsc()).toBe(102);
  });

  it('of instructions reach a deadline with the instructions they announce', () => {
    let instructions = 0;
    const clock = new VirtualClock(() => instructions, 3);
    instructions = clock.instructionsUntil(100);
    expect(clock.now()).toBeGreaterThanOrEqual(100);
    expect(clock.now()).toBeLessThan(103);
    expect(clock.instructionsUntil(5)).toBe(1);
    expect(clock.instructionsUntil(Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
  });
});
