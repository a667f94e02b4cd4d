import { beforeEach, describe, expect, it } from 'vitest';
import { ApicBus } from '../src/devices/pc/apic-bus.ts';
import { IoApic } from '../src/devices/pc/io-apic.ts';
import { type ApicProcessor, LocalApic } from '../src/devices/pc/local-apic.ts';

const TASK_PRIORITY = 0x80;
const END_OF_INTERRUPT = 0xb0;
const LOGICAL_DESTINATION = 0xd0;
const SPURIOUS = 0xf0;
const IN_SERVICE = 0x100;
const REQUESTED = 0x200;
const ERROR_STATUS = 0x280;
const COMMAND = 0x300;
const COMMAND_HIGH = 0x310;
const TIMER = 0x320;
const INITIAL_COUNT = 0x380;
const CURRENT_COUNT = 0x390;
const DIVIDE = 0x3e0;

const ENABLED = 0x1ff;
const MASKED = 0x1_0000;
const PERIODIC = 0x2_0000;
const DEADLINE = 0x4_0000;
const DIVIDE_BY_1 = 0xb;

class Processor implements ApicProcessor {
  readonly events: string[] = [];

  nonMaskable(): void {
    this.events.push('nmi');
  }

  reset(): void {
    this.events.push('reset');
  }

  startUp(page: number): void {
    this.events.push(`start ${page}`);
  }
}

let now: number;
let bus: ApicBus;
let processors: Processor[];
let apics: LocalApic[];

beforeEach(() => {
  now = 0;
  bus = new ApicBus();
  processors = [new Processor(), new Processor(), new Processor()];
  apics = processors.map((processor, index) => new LocalApic(index, bus, processor, () => now));
  for (const apic of apics) apic.write(SPURIOUS, 4, ENABLED);
});

const at = (index: number): LocalApic => apics[index] as LocalApic;

function interrupt(apic: LocalApic, vector: number, level = false): void {
  bus.send({ vector, mode: 0, destination: apic.identifier, logical: false, level });
}

/** Takes the interrupt that is due into service. */
function take(apic: LocalApic): number {
  const vector = apic.pending;
  if (vector >= 0) apic.acknowledge(vector);
  return vector;
}

describe('a local APIC', () => {
  it('gives the highest vector first', () => {
    for (const vector of [0x31, 0xef, 0x52]) interrupt(at(0), vector);
    expect(take(at(0))).toBe(0xef);
  });

  it('holds vectors of the same class back until the end of the one in service', () => {
    interrupt(at(0), 0x51);
    take(at(0));
    interrupt(at(0), 0x52);
    expect(at(0).pending).toBe(-1);
    at(0).write(END_OF_INTERRUPT, 4, 0);
    expect(at(0).pending).toBe(0x52);
  });

  it('lets a higher class through', () => {
    interrupt(at(0), 0x51);
    take(at(0));
    interrupt(at(0), 0x61);
    expect(at(0).pending).toBe(0x61);
  });

  it('holds classes back that are not above the task priority', () => {
    at(0).write(TASK_PRIORITY, 4, 0x50);
    interrupt(at(0), 0x5f);
    expect(at(0).pending).toBe(-1);
    at(0).write(TASK_PRIORITY, 4, 0x4f);
    expect(at(0).pending).toBe(0x5f);
  });

  it('shows what is requested and in service', () => {
    interrupt(at(0), 0x41);
    expect(at(0).read(REQUESTED + 0x20)).toBe(2);
    take(at(0));
    expect([at(0).read(REQUESTED + 0x20), at(0).read(IN_SERVICE + 0x20)]).toEqual([0, 2]);
  });

  it('takes nothing while it is switched off', () => {
    at(0).write(SPURIOUS, 4, 0xff);
    interrupt(at(0), 0x41);
    expect(at(0).pending).toBe(-1);
  });

  it('refuses the vectors of exceptions, and says so when asked', () => {
    interrupt(at(0), 14);
    expect(at(0).pending).toBe(-1);
    at(0).write(ERROR_STATUS, 4, 0);
    expect(at(0).read(ERROR_STATUS)).toBe(0x40);
    at(0).write(ERROR_STATUS, 4, 0);
    expect(at(0).read(ERROR_STATUS)).toBe(0);
  });

  it('ignores stores of other sizes', () => {
    at(0).write(TASK_PRIORITY, 1, 0x50);
    expect(at(0).read(TASK_PRIORITY)).toBe(0);
  });
});

describe('a message to processors', () => {
  it('reaches the one that is named', () => {
    at(0).write(COMMAND_HIGH, 4, 2 << 24);
    at(0).write(COMMAND, 4, 0x41);
    expect(apics.map((apic) => apic.pending)).toEqual([-1, -1, 0x41]);
  });

  it.each([
    ['itself', 0x4_0000, [0x41, -1, -1]],
    ['all', 0x8_0000, [0x41, 0x41, 0x41]],
    ['all others', 0xc_0000, [-1, 0x41, 0x41]],
  ])('reaches %s', (_who, shorthand, pending) => {
    at(0).write(COMMAND, 4, shorthand | 0x41);
    expect(apics.map((apic) => apic.pending)).toEqual(pending);
  });

  it('reaches the members of a logical set', () => {
    for (const apic of apics) apic.write(LOGICAL_DESTINATION, 4, 1 << (24 + apic.identifier));
    at(0).write(COMMAND_HIGH, 4, 0b101 << 24);
    at(0).write(COMMAND, 4, 0x800 | 0x41);
    expect(apics.map((apic) => apic.pending)).toEqual([0x41, -1, 0x41]);
  });

  it('goes to the one with the least to do when any will do', () => {
    at(0).write(TASK_PRIORITY, 4, 0x20);
    at(2).write(TASK_PRIORITY, 4, 0x10);
    at(1).write(TASK_PRIORITY, 4, 0x30);
    bus.send({ vector: 0x41, mode: 1, destination: 0xff, logical: true, level: false });
    expect(apics.map((apic) => apic.pending)).toEqual([-1, -1, 0x41]);
  });

  it('resets, starts, and interrupts without asking', () => {
    at(0).write(COMMAND_HIGH, 4, 1 << 24);
    for (const command of [0xc500, 0x8500, 0x608, 0x400]) at(0).write(COMMAND, 4, command);
    expect(processors.map(({ events }) => events)).toEqual([[], ['reset', 'start 8', 'nmi'], []]);
  });
});

describe('the timer of a local APIC', () => {
  beforeEach(() => at(0).write(DIVIDE, 4, DIVIDE_BY_1));

  const expire = (time: number): number => {
    now = time;
    at(0).expire(now);
    return take(at(0));
  };

  it('fires once', () => {
    at(0).write(TIMER, 4, 0x50);
    at(0).write(INITIAL_COUNT, 4, 1000);
    expect(at(0).deadline).toBe(1000);
    expect(expire(999)).toBe(-1);
    expect(expire(1000)).toBe(0x50);
    expect(at(0).deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('counts down by its divider', () => {
    at(0).write(TIMER, 4, 0x50);
    at(0).write(DIVIDE, 4, 0x2);
    at(0).write(INITIAL_COUNT, 4, 1000);
    now = 4000;
    expect(at(0).read(CURRENT_COUNT)).toBe(500);
    expect(at(0).deadline).toBe(8000);
  });

  it('fires again and again, in step with its period', () => {
    at(0).write(TIMER, 4, PERIODIC | 0x50);
    at(0).write(INITIAL_COUNT, 4, 1_000_000);
    expect(expire(1_000_000)).toBe(0x50);
    expect(expire(2_300_000)).toBe(-1);
    at(0).write(END_OF_INTERRUPT, 4, 0);
    expect(take(at(0))).toBe(0x50);
    expect(at(0).deadline).toBe(3_000_000);
  });

  it('slows down a period that would leave nobody else time', () => {
    at(0).write(TIMER, 4, PERIODIC | 0x50);
    at(0).write(INITIAL_COUNT, 4, 1);
    expect(at(0).deadline).toBeGreaterThanOrEqual(100_000);
  });

  it('compares with the time-stamp counter', () => {
    at(0).write(TIMER, 4, DEADLINE | 0x50);
    at(0).timer.tscDeadline = 12_345;
    expect(at(0).timer.tscDeadline).toBe(12_345);
    expect(expire(12_344)).toBe(-1);
    expect(expire(12_345)).toBe(0x50);
    expect(at(0).timer.tscDeadline).toBe(0);
  });

  it('is disarmed by a change of the mode', () => {
    at(0).write(TIMER, 4, 0x50);
    at(0).write(INITIAL_COUNT, 4, 1000);
    at(0).write(TIMER, 4, DEADLINE | 0x50);
    expect(at(0).deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('asks for no attention while it is masked', () => {
    at(0).write(TIMER, 4, MASKED | 0x50);
    at(0).write(INITIAL_COUNT, 4, 1000);
    expect(at(0).deadline).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('an I/O APIC', () => {
  const PIN = 5;
  const LEVEL = 0x8000;
  let io: IoApic;

  beforeEach(() => {
    io = new IoApic(bus, 3);
  });

  function program(low: number, destination: number): void {
    for (const [register, value] of [
      [0x10 + PIN * 2 + 1, destination << 24],
      [0x10 + PIN * 2, low],
    ] as const) {
      io.write(0, 4, register);
      io.write(0x10, 4, value);
    }
  }

  it('has 24 pins, all masked', () => {
    io.write(0, 4, 1);
    expect(io.read(0x10) >>> 16).toBe(23);
    io.write(0, 4, 0x10 + 23 * 2);
    expect(io.read(0x10)).toBe(MASKED);
    io.write(0, 4, 0x10 + 24 * 2);
    expect(io.read(0x10)).toBe(0);
  });

  it('sends an edge once', () => {
    program(0x41, 1);
    const line = io.line(PIN);
    line.set(true);
    expect(take(at(1))).toBe(0x41);
    at(1).write(END_OF_INTERRUPT, 4, 0);
    line.set(true);
    expect(at(1).pending).toBe(-1);
    line.set(false);
    line.set(true);
    expect(at(1).pending).toBe(0x41);
  });

  it('sends a level again after the end of its interrupt for as long as it lasts', () => {
    program(LEVEL | 0x41, 1);
    const line = io.line(PIN);
    line.set(true);
    expect(take(at(1))).toBe(0x41);
    expect(at(1).hasRequests).toBe(false);
    at(1).write(END_OF_INTERRUPT, 4, 0);
    expect(take(at(1))).toBe(0x41);
    line.set(false);
    at(1).write(END_OF_INTERRUPT, 4, 0);
    expect(at(1).pending).toBe(-1);
  });

  it('sends a level that came while the pin was masked', () => {
    program(LEVEL | MASKED | 0x41, 1);
    io.line(PIN).set(true);
    expect(at(1).pending).toBe(-1);
    program(LEVEL | 0x41, 1);
    expect(at(1).pending).toBe(0x41);
  });

  it('loses an edge that came while the pin was masked', () => {
    program(MASKED | 0x41, 1);
    io.line(PIN).set(true);
    program(0x41, 1);
    expect(at(1).pending).toBe(-1);
  });
});
