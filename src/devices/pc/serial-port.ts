import type { Archive, Archived } from '../../archive/archive.ts';
import type { InterruptLine, MmioDevice } from '../mmio.ts';

/** Registers of a 16550A by their offsets; with the divisor latch open the first two are the divisor. */
const enum Register {
  data = 0,
  interruptEnable = 1,
  /** Reads identify the interrupt, writes control the queues. */
  identification = 2,
  lineControl = 3,
  modemControl = 4,
  lineStatus = 5,
  modemStatus = 6,
  scratch = 7,
}

const enum Enable {
  received = 1,
  transmitterEmpty = 2,
  lineStatus = 4,
  modemStatus = 8,
}

const enum Identification {
  none = 1,
  transmitterEmpty = 2,
  received = 4,
  /** Bytes wait that are fewer than the trigger level. */
  timeout = 12,
  queuesEnabled = 0xc0,
}

const enum QueueControl {
  enable = 1,
  clearReceiver = 2,
}

const DIVISOR_LATCH = 0x80;

const enum ModemControl {
  requestToSend = 0x02,
  loopback = 0x10,
  bits = 0x1f,
}

const enum LineStatus {
  dataReady = 1,
  transmitterEmpty = 0x60,
}

/** Clear to send, data set ready, carrier detect: somebody listens. */
const CONNECTED = 0xb0;

/** Bytes of the receiver's queue. */
const QUEUE_SIZE = 16;
/** Bytes that wait on the line for a guest that does not read: what a user can paste. */
const MOST_WAITING = 1 << 20;

/**
 * A serial port with a 16550A (National Semiconductor PC16550D). Bytes are sent at once, whatever the divisor says. The
 * other side sends when the guest requests it (RTS) and the queue has room: nothing is lost while a kernel starts.
 */
export class SerialPort implements MmioDevice, Archived {
  readonly #line: InterruptLine;
  readonly #sink: (bytes: Uint8Array) => void;
  #output: number[] = [];
  /** What the guest can read. */
  #queue: number[] = [];
  /** What the other side has not sent yet. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #enabled = 0;
  #lineControl = 0;
  #modemControl = 0;
  #scratch = 0;
  #divisor = 12;
  #queuesEnabled = false;
  /** The transmitter became empty, and nobody has been told yet. */
  #emptied = false;

  /** @param sink takes what the guest prints, at each `flush` */
  constructor(line: InterruptLine, sink: (bytes: Uint8Array) => void) {
    this.#line = line;
    this.#sink = sink;
  }

  archive(archive: Archive): void {
    this.#output = archive.value('output', this.#output);
    this.#queue = archive.value('queue', this.#queue);
    this.#waiting = archive.value('waiting', this.#waiting);
    this.#waitingBytes = archive.value('waitingBytes', this.#waitingBytes);
    this.#enabled = archive.value('enabled', this.#enabled);
    this.#lineControl = archive.value('lineControl', this.#lineControl);
    this.#modemControl = archive.value('modemControl', this.#modemControl);
    this.#scratch = archive.value('scratch', this.#scratch);
    this.#divisor = archive.value('divisor', this.#divisor);
    this.#queuesEnabled = archive.value('queuesEnabled', this.#queuesEnabled);
    this.#emptied = archive.value('emptied', this.#emptied);
  }

  /** Bytes from outside; those beyond a bound are lost. */
  type(bytes: Uint8Array): void {
    const taken = bytes.slice(0, MOST_WAITING - this.#waitingBytes);
    this.#waiting.push(taken);
    this.#waitingBytes += taken.length;
    this.#refill();
    this.#update();
  }

  #refill(): void {
    const sends = ModemControl.requestToSend;
    if ((this.#modemControl & (sends | ModemControl.loopback)) !== sends) return;
    while (this.#queue.length < QUEUE_SIZE) {
      const [first] = this.#waiting;
      if (!first) return;
      const part = first.subarray(0, QUEUE_SIZE - this.#queue.length);
      this.#queue.push(...part);
      this.#waitingBytes -= part.length;
      if (part.length === first.length) this.#waiting.shift();
      else this.#waiting[0] = first.subarray(part.length);
    }
  }

  /** Hands over what was printed since the last time. */
  flush(): void {
    if (this.#output.length === 0) return;
    this.#sink(Uint8Array.from(this.#output));
    this.#output = [];
  }

  get #latchOpen(): boolean {
    return (this.#lineControl & DIVISOR_LATCH) !== 0;
  }

  read(offset: number): number {
    switch (offset as Register) {
      case Register.data:
        return this.#latchOpen ? this.#divisor & 0xff : this.#receive();
      case Register.interruptEnable:
        return this.#latchOpen ? this.#divisor >> 8 : this.#enabled;
      case Register.identification:
        return this.#identify();
      case Register.lineControl:
        return this.#lineControl;
      case Register.modemControl:
        return this.#modemControl;
      case Register.lineStatus:
        return LineStatus.transmitterEmpty | (this.#queue.length > 0 ? LineStatus.dataReady : 0);
      case Register.modemStatus:
        return this.#modemStatus();
      case Register.scratch:
        return this.#scratch;
      default:
        return 0xff;
    }
  }

  write(offset: number, _bytes: number, word: number): void {
    const value = word & 0xff;
    switch (offset as Register) {
      case Register.data:
        if (this.#latchOpen) this.#divisor = (this.#divisor & 0xff00) | value;
        else this.#send(value);
        break;
      case Register.interruptEnable:
        if (this.#latchOpen) {
          this.#divisor = (this.#divisor & 0xff) | (value << 8);
        } else {
          // To ask for the interrupt while the transmitter is empty is to get it.
          if ((value & ~this.#enabled & Enable.transmitterEmpty) !== 0) this.#emptied = true;
          this.#enabled = value & 0x0f;
        }
        break;
      case Register.identification:
        this.#queuesEnabled = (value & QueueControl.enable) !== 0;
        if ((value & QueueControl.clearReceiver) !== 0) this.#queue.length = 0;
        break;
      case Register.lineControl:
        this.#lineControl = value;
        break;
      case Register.modemControl:
        this.#modemControl = value & ModemControl.bits;
        this.#refill();
        break;
      case Register.scratch:
        this.#scratch = value;
        break;
      default:
        break;
    }
    this.#update();
  }

  #send(byte: number): void {
    if ((this.#modemControl & ModemControl.loopback) !== 0) {
      if (this.#queue.length < QUEUE_SIZE) this.#queue.push(byte);
    } else {
      this.#output.push(byte);
    }
    // The transmitter was busy for a moment: the line falls, so that its rise can be seen.
    this.#emptied = false;
    this.#update();
    this.#emptied = true;
  }

  #receive(): number {
    const byte = this.#queue.shift() ?? 0;
    this.#refill();
    this.#update();
    return byte;
  }

  /** The pending interrupt of the highest priority; to read about the transmitter is to be told. */
  #identify(): number {
    const cause = this.#cause();
    if (cause === Identification.transmitterEmpty) {
      this.#emptied = false;
      this.#update();
    }
    return cause | (this.#queuesEnabled ? Identification.queuesEnabled : 0);
  }

  #cause(): Identification {
    if ((this.#enabled & Enable.received) !== 0 && this.#queue.length > 0) {
      return this.#queuesEnabled ? Identification.timeout : Identification.received;
    }
    const told = this.#emptied && (this.#enabled & Enable.transmitterEmpty) !== 0;
    return told ? Identification.transmitterEmpty : Identification.none;
  }

  /** In loopback the modem's outputs are its inputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
  #modemStatus(): number {
    const control = this.#modemControl;
    if ((control & ModemControl.loopback) === 0) return CONNECTED;
    return ((control & 2) << 3) | ((control & 1) << 5) | ((control & 4) << 4) | ((control & 8) << 4);
  }

  #update(): void {
    this.#line.set(this.#cause() !== Identification.none);
  }
}
