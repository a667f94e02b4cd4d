import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEVICES, Model, type Operation } from './mm-model.ts';

const RUNS = 3000;
const ACTORS = 4;
/** Milliseconds after which a run that does not end is one that cannot. */
const DEADLOCK = 20_000;

const guest = fc.nat(2);
const index = fc.nat(7);
const length = fc.integer({ min: 1, max: 8 });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('write' as const), guest, device: fc.nat(DEVICES - 1), index }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('read' as const), guest, device: fc.nat(DEVICES - 1), index }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('pin' as const, 'clone' as const, 'exit' as const), guest, index }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('discard' as const, 'move' as const, 'register' as const),
      guest,
      index,
      length,
    }),
  },
);

test('memory of all guests is what the model says, however faults, reclaim, clones, moves, transfers and ends interleave', async () => {
  let writes = 0;
  let reads = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(fc.array(operation, { maxLength: 20, size: 'max' }), { minLength: 1, maxLength: ACTORS, size: 'max' }),
      async (scheduler, actors) => {
        const model = new Model(scheduler);
        const run = async () => {
          await model.createGuest();
          await model.createGuest();
          await Promise.all(
            actors.map(async (operations) => {
              for (const step of operations) await model.perform(step);
            }),
          );
          await model.finish();
        };
        let timer: ReturnType<typeof setTimeout> | undefined;
        const deadlock = new Promise<never>((_resolve, reject) => {
          timer = setTimeout(() => reject(new Error('deadlock')), DEADLOCK);
        });
        try {
          await Promise.race([scheduler.waitFor(run()), deadlock]);
        } finally {
          clearTimeout(timer);
        }
        writes += model.store.writes;
        reads += model.store.reads;
      },
    ),
    { numRuns: RUNS },
  );
  expect(writes).toBeGreaterThan(RUNS / 10);
  expect(reads).toBeGreaterThan(RUNS / 10);
});
