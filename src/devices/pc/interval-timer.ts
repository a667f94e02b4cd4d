import type { Archive, Archived } from '../../archive/archive.ts';
import type { MmioDevice } from '../mmio.ts';
import { TimerChannel, TimerMode } from './timer-channel.ts';

/** The port behind those of the channels. */
const CONTROL = 3;
const CHANNELS = 3;
/** In place of a channel's number: the read-back command. */
const READ_BACK = 3;

/** Which bytes of a count are read and written. */
const enum Access {
  latch = 0,
  low = 1,
  high = 2,
  both = 3,
}

const enum ReadBack {
  noCount = 0x20,
  noStatus = 0x10,
}

const enum Status {
  output = 0x80,
  noCount = 0x40,
  accessShift = 4,
  modeShift = 1,
}

/** One channel with what passes its counts byte by byte. */
class ChannelPort implements Archived {
  readonly channel: TimerChannel;
  #access: Access = Access.both;
  /** The low byte of a count of which the high one is still to come. */
  #written: number | undefined;
  #latched: number | undefined;
  #status: number | undefined;
  #highNext = false;

  constructor(now: () => number, gate: boolean) {
    this.channel = new TimerChannel(now, gate);
  }

  archive(archive: Archive): void {
    archive.part('channel', this.channel);
    this.#access = archive.value('access', this.#access);
    this.#written = archive.value('written', this.#written);
    this.#latched = archive.value('latched', this.#latched);
    this.#status = archive.value('status', this.#status);
    this.#highNext = archive.value('highNext', this.#highNext);
  }

  configure(access: Access, mode: number): void {
    this.#access = access;
    this.#written = undefined;
    this.#latched = undefined;
    this.#status = undefined;
    this.#highNext = false;
    this.channel.mode = (mode > TimerMode.triggeredStrobe ? mode & 3 : mode) as TimerMode;
  }

  latchCount(): void {
    this.#latched ??= this.channel.count;
  }

  latchStatus(): void {
    const { output, hasCount, mode } = this.channel;
    this.#status ??=
      (output ? Status.output : 0) |
      (hasCount ? 0 : Status.noCount) |
      (this.#access << Status.accessShift) |
      (mode << Status.modeShift);
  }

  write(value: number): void {
    switch (this.#access) {
      case Access.low:
        this.channel.load(value);
        break;
      case Access.high:
        this.channel.load(value << 8);
        break;
      default:
        if (this.#written === undefined) this.#written = value;
        else {
          this.channel.load((value << 8) | this.#written);
          this.#written = undefined;
        }
    }
  }

  read(): number {
    if (this.#status !== undefined) {
      const status = this.#status;
      this.#status = undefined;
      return status;
    }
    const count = this.#latched ?? this.channel.count;
    const isHigh = this.#access === Access.high || (this.#access === Access.both && this.#highNext);
    const isLast = this.#access !== Access.both || this.#highNext;
    this.#highNext = !isLast;
    if (isLast) this.#latched = undefined;
    return isHigh ? count >> 8 : count & 0xff;
  }
}

/** The 8254 of a PC: channel 0 is the timer's interrupt, channel 2 what the port of the speaker shows. */
export class IntervalTimer implements MmioDevice, Archived {
  readonly #ports: readonly ChannelPort[];

  /** @param now system time in nanoseconds */
  constructor(now: () => number) {
    this.#ports = Array.from({ length: CHANNELS }, (_, index) => new ChannelPort(now, index !== CHANNELS - 1));
  }

  archive(archive: Archive): void {
    archive.parts('ports', this.#ports);
  }

  #channel(index: 0 | 2): TimerChannel {
    return (this.#ports[index] as ChannelPort).channel; // there are three
  }

  /** The one that interrupts. */
  get tick(): TimerChannel {
    return this.#channel(0);
  }

  /** The one whose gate and output are at the speaker's port. */
  get speaker(): TimerChannel {
    return this.#channel(2);
  }

  read(offset: number): number {
    return this.#ports[offset]?.read() ?? 0xff;
  }

  write(offset: number, _bytes: number, written: number): void {
    const value = written & 0xff;
    if (offset === CONTROL) this.#control(value);
    else this.#ports[offset]?.write(value);
  }

  #control(value: number): void {
    const index = value >> 6;
    if (index === READ_BACK) {
      this.#readBack(value);
      return;
    }
    const port = this.#ports[index] as ChannelPort; // below 3
    const access = ((value >> 4) & 3) as Access;
    if (access === Access.latch) port.latchCount();
    else port.configure(access, (value >> 1) & 7);
  }

  #readBack(value: number): void {
    for (const [index, port] of this.#ports.entries()) {
      if (((value >> (index + 1)) & 1) === 0) continue;
      if ((value & ReadBack.noCount) === 0) port.latchCount();
      if ((value & ReadBack.noStatus) === 0) port.latchStatus();
    }
  }
}
