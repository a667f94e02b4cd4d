import { beforeEach, describe, expect, it } from 'vitest';
import { RealTimeClock } from '../src/devices/pc/real-time-clock.ts';
import { SerialPort } from '../src/devices/pc/serial-port.ts';

const DATA = 0;
const INTERRUPT_ENABLE = 1;
const IDENTIFICATION = 2;
const LINE_CONTROL = 3;
const MODEM_CONTROL = 4;
const LINE_STATUS = 5;
const MODEM_STATUS = 6;

const RECEIVED = 1;
const EMPTY = 2;
const REQUEST_TO_SEND = 2;
const LOOPBACK = 0x10;
const DATA_READY = 1;

let printed: number[];
let levels: boolean[];
let port: SerialPort;

beforeEach(() => {
  printed = [];
  levels = [];
  port = new SerialPort(
    {
      set: (level) => {
        if (level !== (levels.at(-1) ?? false)) levels.push(level);
      },
    },
    (bytes) => printed.push(...bytes),
  );
});

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const write = (register: number, value: number): void => port.write(register, 1, value);

function readAll(): string {
  let text = '';
  while ((port.read(LINE_STATUS) & DATA_READY) !== 0) text += String.fromCharCode(port.read(DATA));
  return text;
}

describe('a serial port', () => {
  it('prints what is written, at the next flush', () => {
    for (const byte of bytes('hello')) write(DATA, byte);
    expect(printed).toEqual([]);
    port.flush();
    expect(printed).toEqual([...bytes('hello')]);
  });

  it('keeps the divisor apart from the data', () => {
    write(LINE_CONTROL, 0x80);
    write(DATA, 1);
    write(INTERRUPT_ENABLE, 2);
    expect([port.read(DATA), port.read(INTERRUPT_ENABLE)]).toEqual([1, 2]);
    write(LINE_CONTROL, 3);
    port.flush();
    expect([printed, port.read(INTERRUPT_ENABLE)]).toEqual([[], 0]);
  });

  it('takes what is typed when the guest requests it, and not before', () => {
    port.type(bytes('typed'));
    expect(readAll()).toBe('');
    write(MODEM_CONTROL, REQUEST_TO_SEND);
    expect(readAll()).toBe('typed');
  });

  it('loses nothing of more than its queue holds', () => {
    const text = 'x'.repeat(100) + 'y'.repeat(1000);
    write(MODEM_CONTROL, REQUEST_TO_SEND);
    port.type(bytes(text));
    expect(readAll()).toBe(text);
  });

  it('forgets its queue, and no more, when it is told to', () => {
    write(MODEM_CONTROL, REQUEST_TO_SEND);
    port.type(bytes('0123456789abcdefREST'));
    write(IDENTIFICATION, 3);
    port.type(bytes('.'));
    expect(readAll()).toBe('REST.');
  });

  it('raises its line for received bytes until they are read', () => {
    write(MODEM_CONTROL, REQUEST_TO_SEND);
    write(IDENTIFICATION, 1);
    write(INTERRUPT_ENABLE, RECEIVED);
    port.type(bytes('ab'));
    expect([levels, port.read(IDENTIFICATION)]).toEqual([[true], 0xcc]);
    readAll();
    expect([levels, port.read(IDENTIFICATION)]).toEqual([[true, false], 0xc1]);
  });

  it('says once that the transmitter is empty', () => {
    write(INTERRUPT_ENABLE, EMPTY);
    expect([port.read(IDENTIFICATION), port.read(IDENTIFICATION)]).toEqual([2, 1]);
    expect(levels).toEqual([true, false]);
  });

  it('gives an edge for each byte that is sent', () => {
    write(INTERRUPT_ENABLE, EMPTY);
    write(DATA, 65);
    write(DATA, 66);
    expect(levels).toEqual([true, false, true, false, true]);
  });

  it('hears itself in loopback, and sends nothing', () => {
    write(MODEM_CONTROL, LOOPBACK | 0x0a);
    expect(port.read(MODEM_STATUS)).toBe(0x90);
    write(DATA, 65);
    port.flush();
    expect([readAll(), printed]).toEqual(['A', []]);
  });
});

describe('a real-time clock', () => {
  it('gives the date in decimals', () => {
    const clock = new RealTimeClock(() => Date.UTC(2026, 10, 21, 9, 58, 7) / 1000);
    const read = (register: number): string => {
      clock.write(0, 1, register);
      return clock.read(1).toString(16).padStart(2, '0');
    };
    expect([0x32, 9, 8, 7, 4, 2, 0].map(read)).toEqual(['20', '26', '11', '21', '09', '58', '07']);
  });
});
