import { afterEach, describe, expect, test } from 'vitest';
import type { Domain, DomainState } from '../src/domain/domain.ts';
import { Scheduler } from '../src/domain/scheduler.ts';

/** What the scheduler sees of a domain: work in units, one a turn. */
class Work
  implements
    Pick<Domain, 'state' | 'idle' | 'isSettled' | 'outputIsFull' | 'catchUp' | 'turn' | 'millisecondsToDeadline'>
{
  state: DomainState = { kind: 'running' };
  isSettled = true;
  outputIsFull = (): boolean => false;
  turns = 0;
  units: number;
  onWork = (): void => {};
  onTurn = (): void => {};
  /** Where the clock of the host must be for the next unit. */
  deadline = Number.POSITIVE_INFINITY;
  /** How often its clock can be moved on. */
  jumps = 0;

  constructor(units: number) {
    this.units = units;
  }

  get idle(): boolean {
    return this.units === 0;
  }

  catchUp(): boolean {
    if (this.jumps > 0) {
      this.jumps--;
      return true;
    }
    if (performance.now() >= this.deadline) {
      this.deadline = Number.POSITIVE_INFINITY;
      this.units++;
    }
    return false;
  }

  turn(): void {
    this.turns++;
    this.units--;
    this.onTurn();
  }

  millisecondsToDeadline(): number {
    return this.deadline - performance.now();
  }
}

const schedulers: Scheduler[] = [];

function start(...works: Work[]) {
  const scheduler = new Scheduler();
  schedulers.push(scheduler);
  const ended: Work[] = [];
  for (const work of works) {
    const observer = {
      turnBegins: () => {},
      turnEnds: () => {},
      ended: () => {
        ended.push(work);
        scheduler.remove(work as Partial<Domain> as Domain);
      },
    };
    scheduler.add(work as Partial<Domain> as Domain, observer);
  }
  return { scheduler, ended };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resume) => setTimeout(resume, 1));
}

afterEach(() => {
  for (const scheduler of schedulers.splice(0)) scheduler.close();
});

describe('domains that all have work', () => {
  test('take turns: none is ever more than one ahead of another', async () => {
    const works = [new Work(500), new Work(500), new Work(500)];
    let widest = 0;
    for (const work of works) {
      work.onTurn = () => {
        const turns = works.map((other) => other.turns);
        widest = Math.max(widest, Math.max(...turns) - Math.min(...turns));
      };
    }
    start(...works);
    await until(() => works.every(({ idle }) => idle));
    expect(works.map(({ turns }) => turns)).toEqual([500, 500, 500]);
    expect(widest).toBe(1);
  });

  test('leave the event loop to others between their slices', async () => {
    const busy = new Work(Number.POSITIVE_INFINITY);
    busy.onTurn = () => {
      const end = performance.now() + 1;
      while (performance.now() < end);
    };
    start(busy, new Work(Number.POSITIVE_INFINITY));
    let ticks = 0;
    for (; ticks < 5; ticks++) await new Promise((resume) => setTimeout(resume, 0));
    expect(ticks).toBe(5);
    expect(busy.turns).toBeGreaterThan(0);
  });

  test('go on when one of them ends, and it is reported once', async () => {
    const [ending, other] = [new Work(500), new Work(500)];
    ending.onTurn = () => {
      if (ending.turns === 3) ending.state = { kind: 'poweroff' };
    };
    const { ended } = start(ending, other);
    await until(() => other.idle);
    expect([ending.turns, other.turns, ended]).toEqual([3, 500, [ending]]);
  });
});

describe('a domain without work', () => {
  test('has no turn until something gives it some', async () => {
    const work = new Work(0);
    start(work, new Work(20));
    await new Promise((resume) => setTimeout(resume, 5));
    expect(work.turns).toBe(0);
    work.units = 1;
    work.onWork();
    await until(() => work.turns === 1);
  });

  test('does not sleep as long as its clock is moved on', async () => {
    const work = new Work(0);
    work.jumps = 10_000;
    work.deadline = performance.now() + 60_000;
    start(work);
    const begin = performance.now();
    await until(() => work.jumps === 0);
    expect(performance.now() - begin).toBeLessThan(5000);
    expect(work.turns).toBe(0);
  });

  test('is woken for its deadline', async () => {
    const work = new Work(0);
    work.deadline = performance.now() + 10;
    start(work);
    await until(() => work.turns === 1);
  });
});

describe('a domain that is to stand still', () => {
  test('has no turn meanwhile, though others have, and goes on afterwards', async () => {
    const [work, other] = [new Work(Number.POSITIVE_INFINITY), new Work(Number.POSITIVE_INFINITY)];
    const { scheduler } = start(work, other);
    await scheduler.whileStanding(work as Partial<Domain> as Domain, async () => {
      const [before, others] = [work.turns, other.turns];
      await until(() => other.turns > others + 10);
      expect(work.turns).toBe(before);
    });
    const before = work.turns;
    await until(() => work.turns > before);
  });

  test('is waited for until nothing is under way in it', async () => {
    const work = new Work(0);
    work.isSettled = false;
    const { scheduler } = start(work, new Work(Number.POSITIVE_INFINITY));
    let stands = false;
    const standing = scheduler.whileStanding(work as Partial<Domain> as Domain, async () => {
      stands = true;
    });
    await new Promise((resume) => setTimeout(resume, 5));
    expect(stands).toBe(false);
    work.isSettled = true;
    await standing;
    expect(stands).toBe(true);
  });

  test('is given up when the domain ends before', async () => {
    const work = new Work(0);
    work.isSettled = false;
    const { scheduler } = start(work);
    const standing = scheduler.whileStanding(work as Partial<Domain> as Domain, async () => {});
    work.state = { kind: 'crash', reason: 'the host is short of memory' };
    work.onWork();
    await expect(standing).rejects.toThrow('has ended');
  });
});
