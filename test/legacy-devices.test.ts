import { beforeEach, describe, expect, it } from 'vitest';
import { createMultiprocessorTable } from '../src/boot/multiprocessor-table.ts';
import { Bus } from '../src/devices/bus.ts';
import { ApicBus } from '../src/devices/pc/apic-bus.ts';
import type { InterruptPair } from '../src/devices/pc/interrupt-pair.ts';
import { IoApic } from '../src/devices/pc/io-apic.ts';
import { LegacyDevices } from '../src/microvm/legacy-devices.ts';

const FIRST_VECTOR = 0x30;
const SECOND_VECTOR = 0x38;
const TICKS_A_SECOND = 1_193_182;

let time: number;
let resets: number;
let ports: Bus;
let devices: LegacyDevices;
let interrupts: InterruptPair;

beforeEach(() => {
  time = 0;
  resets = 0;
  ports = new Bus();
  devices = new LegacyDevices({
    ports,
    ioApic: new IoApic(new ApicBus(), 1),
    now: () => time,
    reset: () => resets++,
  });
  interrupts = devices.interrupts;
});

const out = (port: number, ...values: number[]): void => {
  for (const value of values) ports.store(port, 1, value);
};
const read = (port: number): number => ports.load(port, 1);

/** As kernels do: edges, vectors, the cascade at line 2, ends by command, nothing masked. */
function initialise(mode = 1): void {
  out(0x20, 0x11);
  out(0x21, FIRST_VECTOR, 4, mode, 0);
  out(0xa0, 0x11);
  out(0xa1, SECOND_VECTOR, 2, mode, 0);
}

describe('the two 8259A', () => {
  it('ask for nothing before they are initialised', () => {
    interrupts.line(4).set(true);
    expect(interrupts.pending).toBe(-1);
  });

  it('give the vectors of both chips, the lower lines first', () => {
    initialise();
    interrupts.line(12).set(true);
    expect(interrupts.pending).toBe(SECOND_VECTOR + 4);
    interrupts.line(1).set(true);
    expect(interrupts.pending).toBe(FIRST_VECTOR + 1);
  });

  it('let a line of the second chip come before the third of the first', () => {
    initialise();
    interrupts.line(3).set(true);
    interrupts.line(15).set(true);
    expect(interrupts.pending).toBe(SECOND_VECTOR + 7);
  });

  it('hold back the lines behind the one that is served, until its end', () => {
    initialise();
    interrupts.line(4).set(true);
    interrupts.line(5).set(true);
    interrupts.acknowledge();
    expect(interrupts.pending).toBe(-1);
    interrupts.line(0).set(true);
    expect(interrupts.pending).toBe(FIRST_VECTOR);
    interrupts.acknowledge();
    out(0x20, 0x20, 0x64);
    expect(interrupts.pending).toBe(FIRST_VECTOR + 5);
  });

  it('serve a second line of the second chip after the ends at both', () => {
    initialise();
    interrupts.line(9).set(true);
    interrupts.line(10).set(true);
    interrupts.acknowledge();
    out(0xa0, 0x20);
    expect(interrupts.pending).toBe(-1);
    out(0x20, 0x20);
    expect(interrupts.pending).toBe(SECOND_VECTOR + 2);
  });

  it('take a line that stays high for one request, or for ever new ones where it is level-triggered', () => {
    initialise(3);
    interrupts.line(5).set(true);
    interrupts.acknowledge();
    expect(interrupts.pending).toBe(-1);
    out(0x4d0, 0x20);
    interrupts.acknowledge();
    expect(interrupts.pending).toBe(FIRST_VECTOR + 5);
    interrupts.line(5).set(false);
    expect(interrupts.pending).toBe(-1);
  });

  it('keep a request while its line is masked', () => {
    initialise();
    out(0x21, 0x10);
    interrupts.line(4).set(true);
    interrupts.line(4).set(false);
    expect(interrupts.pending).toBe(-1);
    out(0x21, 0);
    expect(interrupts.pending).toBe(FIRST_VECTOR + 4);
  });

  it('show what is requested, served and masked', () => {
    initialise();
    interrupts.line(4).set(true);
    interrupts.line(6).set(true);
    interrupts.acknowledge();
    out(0x21, 0x81);
    expect([read(0x20), read(0x21)]).toEqual([0x40, 0x81]);
    out(0x20, 0x0b);
    expect(read(0x20)).toBe(0x10);
  });

  it('put the line that was served behind all others when its end says so', () => {
    initialise();
    interrupts.line(0).set(true);
    interrupts.acknowledge();
    out(0x20, 0xa0);
    interrupts.line(0).set(false);
    interrupts.line(0).set(true);
    interrupts.line(7).set(true);
    expect(interrupts.pending).toBe(FIRST_VECTOR + 7);
  });

  it('let lines behind the one that is served through, while that is masked in special mask mode', () => {
    initialise();
    interrupts.line(3).set(true);
    interrupts.acknowledge();
    interrupts.line(6).set(true);
    out(0x21, 0x08);
    expect(interrupts.pending).toBe(-1);
    out(0x20, 0x68);
    expect(interrupts.pending).toBe(FIRST_VECTOR + 6);
  });

  it('acknowledge by a read behind the poll command', () => {
    initialise();
    interrupts.line(6).set(true);
    out(0x20, 0x0c);
    expect(read(0x20)).toBe(0x86);
    expect(interrupts.pending).toBe(-1);
  });

  it('keep the cascade to themselves, whatever is written to the register of triggers', () => {
    out(0x4d0, 0);
    initialise();
    interrupts.line(8).set(true);
    expect(interrupts.pending).toBe(SECOND_VECTOR);
    out(0x4d0, 0xff);
    expect(read(0x4d0)).toBe(0xfb);
  });
});

describe('the 8254', () => {
  const advance = (ticks: number): void => {
    time += Math.ceil((ticks * 1e9) / TICKS_A_SECOND);
    devices.expire(time);
  };
  const latched = (channel: number): number => {
    out(0x43, channel << 6);
    const low = read(0x40 + channel);
    return low | (read(0x40 + channel) << 8);
  };

  it('interrupts at the end of each period', () => {
    initialise();
    out(0x43, 0x34);
    out(0x40, 0xa9, 0x04); // 1193: about a millisecond
    expect(devices.deadline).toBeCloseTo(1e6, -3);
    advance(1192);
    expect(interrupts.pending).toBe(-1);
    advance(2);
    expect(interrupts.pending).toBe(FIRST_VECTOR);
    interrupts.acknowledge();
    out(0x20, 0x20);
    advance(1193);
    expect(interrupts.pending).toBe(FIRST_VECTOR);
  });

  it('interrupts once where it counts to the end', () => {
    initialise();
    out(0x43, 0x30);
    out(0x40, 100, 0);
    advance(101);
    expect(interrupts.pending).toBe(FIRST_VECTOR);
    expect(devices.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('stops when a mode is set that begins with a rising gate', () => {
    out(0x43, 0x34);
    out(0x40, 0, 0);
    out(0x43, 0x3a);
    out(0x40, 1, 0);
    expect(devices.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('does not tick more often than every 100 microseconds', () => {
    out(0x43, 0x34);
    out(0x40, 1, 0);
    expect(devices.deadline).toBe(100_000);
    devices.expire(250_000);
    expect(devices.deadline).toBe(300_000);
  });

  it('shows counts as they were when they were latched', () => {
    out(0x43, 0x34);
    out(0x40, 0, 0);
    advance(1000);
    out(0x43, 0x00);
    advance(1000);
    expect(read(0x40) | (read(0x40) << 8)).toBe(0x1_0000 - 1000);
    expect(latched(0)).toBe(0x1_0000 - 2000);
  });

  it('shows mode and output behind the read-back command', () => {
    out(0x43, 0xb0);
    out(0x61, 1);
    out(0x42, 10, 0);
    out(0x43, 0xe8);
    expect(read(0x42)).toBe(0x30);
    advance(11);
    out(0x43, 0xe8);
    expect(read(0x42)).toBe(0xb0);
  });

  it('counts at its third channel while the gate of the system port is open, and shows the output there', () => {
    out(0x43, 0xb0);
    out(0x42, 100, 0);
    advance(1000);
    expect(read(0x61) & 0x21).toBe(0);
    out(0x61, 1);
    advance(60);
    out(0x61, 0);
    advance(1000);
    expect(read(0x61) & 0x20).toBe(0);
    expect(latched(2)).toBe(40);
    out(0x61, 1);
    advance(41);
    expect(read(0x61) & 0x21).toBe(0x21);
  });

  it('begins a square wave anew when the gate rises', () => {
    out(0x43, 0xb6);
    out(0x61, 1);
    out(0x42, 100, 0);
    expect(read(0x61) & 0x20).toBe(0x20);
    advance(60);
    expect(read(0x61) & 0x20).toBe(0);
    out(0x61, 0);
    out(0x61, 1);
    expect(read(0x61) & 0x20).toBe(0x20);
  });
});

describe('the timer of ACPI', () => {
  it('counts 3,579,545 a second with 24 bits, and cannot be set', () => {
    time = 1e9;
    out(0x608, 1, 2);
    expect(ports.load(0x608, 4)).toBe(3_579_545);
    time = 5e9;
    expect(ports.load(0x608, 4)).toBe(5 * 3_579_545 - 2 ** 24);
  });

  it('can be read in parts', () => {
    time = 1e9;
    expect([0x608, 0x609, 0x60a, 0x60b].map(read)).toEqual([0x99, 0x9e, 0x36, 0]);
    expect(ports.load(0x609, 2)).toBe(0x369e);
  });
});

describe('the keyboard controller that is not there', () => {
  it('restarts the machine, and does nothing else', () => {
    expect(read(0x64)).toBe(0xff);
    out(0x64, 0xd1, 0xff);
    expect(resets).toBe(0);
    out(0x64, 0xfe);
    expect(resets).toBe(1);
  });
});

describe('the MP table', () => {
  const ADDRESS = 0xf_0400;
  const table = createMultiprocessorTable({
    address: ADDRESS,
    processors: 3,
    signature: 0x6ca,
    features: 0x200,
    localApic: 0xfee0_0000,
    ioApic: { identifier: 3, address: 0xfec0_0000, version: 0x20 },
  });
  const view = new DataView(table.buffer);
  const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

  it('is found by a pointer, and both have their checksums', () => {
    expect(new TextDecoder().decode(table.subarray(0, 4))).toBe('_MP_');
    expect(view.getUint32(4, true)).toBe(ADDRESS + 16);
    expect(view.getUint16(16 + 4, true)).toBe(table.length - 16);
    expect([sum(table.subarray(0, 16)), sum(table.subarray(16))]).toEqual([0, 0]);
  });

  it('has an entry for each processor, the first of them the one that boots', () => {
    const entries = [0, 1, 2].map((index) => Array.from(table.subarray(60 + index * 20, 64 + index * 20)));
    expect(entries).toEqual([
      [0, 0, 0x14, 3],
      [0, 1, 0x14, 1],
      [0, 2, 0x14, 1],
    ]);
  });

  it('has a line of the bus for each pin but that of the cascade', () => {
    const entries = Array.from({ length: view.getUint16(16 + 34, true) - 3 }, (_, index) =>
      Array.from(table.subarray(120 + index * 8, 128 + index * 8)),
    );
    const pins = entries
      .filter(([type]) => type === 3)
      .map(([, kind, , , , line, controller, pin]) => {
        return { kind, line, controller, pin };
      });
    expect(pins).toEqual(
      [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map((line) => ({ kind: 0, line, controller: 3, pin: line })),
    );
  });
});
