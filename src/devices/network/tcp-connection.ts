import { type ByteQueue, createByteQueue, dequeue, enqueue } from '../ring.ts';
import type { HostSockets, StreamEvents, StreamSocket } from './sockets.ts';
import { TcpFlag, type TcpSegment } from './tcp-segment.ts';

/** Largest segment: an Ethernet frame without the headers of IPv4 and TCP. */
const LARGEST_SEGMENT = 1460;
/** Bytes from the guest that the host holds; without the window scale option no window is larger. */
const RECEIVE_WINDOW = 65_535;
/** Bytes for the guest that the host holds before it lets the world wait. */
const SEND_LIMIT = 256 * 1024;

/** Milliseconds until what was not acknowledged is sent again; doubled each time, and given up after so many. */
const FIRST_TIMEOUT = 200;
const ATTEMPTS = 8;

const NOTHING = new Uint8Array(0);

/**
 * One TCP connection that a guest has opened to the world: the gateway's end of it, which pretends to be the other end
 * (RFC 9293), joined to a socket of the host.
 *
 * The cable between gateway and guest neither reorders nor delays, and loses frames only when the guest's adapter is
 * full. So segments out of order are dropped, and what was lost is sent again after a fixed time; congestion is the
 * affair of the host's own TCP.
 */
export class TcpConnection {
  readonly #send: (segment: TcpSegment) => void;
  readonly #closed: () => void;
  readonly #socket: StreamSocket;
  readonly #opening: TcpSegment;
  /** Next byte expected of the guest. */
  #receiveNext: number;
  /** First byte that the guest has not acknowledged, and the next one to send. */
  #sendOldest: number;
  #sendNext: number;
  #guestWindow: number;
  readonly #segmentLimit: number;
  /** Not sent yet. */
  readonly #unsent: ByteQueue = createByteQueue();
  /** Sent from `#sendOldest` on, and not acknowledged. */
  #unacknowledged: Uint8Array = NOTHING;
  #isConnected = false;
  /** The guest has acknowledged our SYN. */
  #isEstablished = false;
  #worldEnded = false;
  #finSent = false;
  #finReceived = false;
  #isPaused = false;
  #isOver = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #attempts = 0;

  /**
   * @param opening the guest's SYN
   * @param send sends a segment to the guest
   * @param closed called when the connection is no more
   */
  constructor(
    opening: TcpSegment,
    sockets: HostSockets,
    send: (segment: TcpSegment) => void,
    closed: () => void,
    initialSequence: number,
  ) {
    this.#opening = opening;
    this.#send = send;
    this.#closed = closed;
    this.#receiveNext = add(opening.sequence, 1);
    this.#sendOldest = initialSequence;
    this.#sendNext = initialSequence;
    this.#guestWindow = opening.window;
    this.#segmentLimit = Math.max(1, Math.min(opening.maximumSegment, LARGEST_SEGMENT));
    const events: StreamEvents = {
      connected: () => this.#connected(),
      received: (bytes) => this.#received(bytes),
      drained: () => this.#drained(),
      ended: () => this.#ended(),
      failed: () => this.reset(),
    };
    this.#socket = sockets.connect(opening.destination, events);
  }

  /** Takes a segment of this connection from the guest. */
  receive(segment: TcpSegment): void {
    if (this.#isOver) return;
    const { flags } = segment;
    if (flags & TcpFlag.rst) {
      // Only one in the window counts (RFC 5961, 3.2); here, the very next byte.
      if (segment.sequence === this.#receiveNext || !this.#isConnected) this.#finish();
      return;
    }
    if (flags & TcpFlag.syn) {
      // Heard again, our answer was lost; any other is of a guest that has forgotten this connection, and will say so.
      if (!this.#isConnected) return;
      if (!this.#isEstablished && add(segment.sequence, 1) === this.#receiveNext) this.#sendSynchronization();
      else this.#emit(TcpFlag.ack, this.#sendNext);
      return;
    }
    if (!this.#isConnected || !(flags & TcpFlag.ack)) return;
    if (!this.#acknowledged(segment)) return;
    this.#takeData(segment);
    this.#transmit();
    this.#finishWhenDone();
  }

  /** Ends the connection; the guest is told. */
  reset(): void {
    if (this.#isOver) return;
    this.#emit(TcpFlag.rst | TcpFlag.ack, this.#sendNext);
    this.#finish();
  }

  #finish(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
    this.#closed();
  }

  #finishWhenDone(): void {
    const isAllAcknowledged = this.#finSent && this.#sendOldest === this.#sendNext;
    if (this.#finReceived && isAllAcknowledged && !this.#isOver) this.#finish();
  }

  // The world's side

  #connected(): void {
    if (this.#isOver) return;
    this.#isConnected = true;
    this.#sendNext = add(this.#sendOldest, 1);
    this.#sendSynchronization();
    this.#startTimer();
  }

  #received(bytes: Uint8Array): void {
    if (this.#isOver) return;
    enqueue(this.#unsent, bytes);
    this.#transmit();
    if (!this.#isPaused && this.#unsent.length > SEND_LIMIT) {
      this.#isPaused = true;
      this.#socket.pause();
    }
  }

  #drained(): void {
    // The window has grown; without a segment the guest would not know.
    if (!this.#isOver && this.#isEstablished) this.#emit(TcpFlag.ack, this.#sendNext);
  }

  #ended(): void {
    if (this.#isOver) return;
    this.#worldEnded = true;
    this.#transmit();
  }

  // The guest's side

  /** @returns false for an acknowledgement of what was never sent */
  #acknowledged(segment: TcpSegment): boolean {
    const count = subtract(segment.acknowledgement, this.#sendOldest);
    if (count > subtract(this.#sendNext, this.#sendOldest)) return false;
    this.#guestWindow = segment.window;
    if (count === 0) return true;
    // SYN and FIN count as a byte each, but are none of the data.
    const data = Math.min(this.#isEstablished ? count : count - 1, this.#unacknowledged.length);
    this.#isEstablished = true;
    this.#unacknowledged = this.#unacknowledged.slice(data);
    this.#sendOldest = segment.acknowledgement;
    this.#attempts = 0;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#sendOldest !== this.#sendNext) this.#startTimer();
    return true;
  }

  #takeData(segment: TcpSegment): void {
    const { data, flags } = segment;
    const isFin = (flags & TcpFlag.fin) !== 0;
    if (data.length === 0 && !isFin) return;
    const fits = data.length <= this.#window;
    if (segment.sequence === this.#receiveNext && fits && !this.#finReceived) {
      if (data.length > 0) this.#socket.write(data.slice());
      this.#receiveNext = add(this.#receiveNext, data.length);
      if (isFin) {
        this.#finReceived = true;
        this.#receiveNext = add(this.#receiveNext, 1);
        this.#socket.end();
      }
    }
    this.#emit(TcpFlag.ack, this.#sendNext);
  }

  get #window(): number {
    return Math.max(0, RECEIVE_WINDOW - this.#socket.backlog);
  }

  #transmit(): void {
    if (!this.#isEstablished) return;
    for (;;) {
      const inFlight = subtract(this.#sendNext, this.#sendOldest);
      const room = Math.min(this.#guestWindow - inFlight, this.#segmentLimit);
      if (room <= 0 || this.#unsent.length === 0) break;
      const bytes = dequeue(this.#unsent, room);
      this.#emit(TcpFlag.ack | TcpFlag.psh, this.#sendNext, bytes);
      this.#unacknowledged = joined(this.#unacknowledged, bytes);
      this.#sendNext = add(this.#sendNext, bytes.length);
      this.#startTimer();
    }
    if (this.#worldEnded && this.#unsent.length === 0 && !this.#finSent) {
      this.#emit(TcpFlag.ack | TcpFlag.fin, this.#sendNext);
      this.#finSent = true;
      this.#sendNext = add(this.#sendNext, 1);
      this.#startTimer();
    }
    if (this.#isPaused && this.#unsent.length < SEND_LIMIT / 2) {
      this.#isPaused = false;
      this.#socket.resume();
    }
  }

  #startTimer(): void {
    this.#timer ??= setTimeout(() => this.#timeOut(), FIRST_TIMEOUT * 2 ** this.#attempts);
  }

  /** Sends everything again that was not acknowledged, as far as the guest has room. */
  #timeOut(): void {
    this.#timer = undefined;
    if (++this.#attempts > ATTEMPTS) {
      this.reset();
      return;
    }
    if (!this.#isEstablished) this.#sendSynchronization();
    const bytes = this.#unacknowledged;
    for (let done = 0; done < bytes.length; done += this.#segmentLimit) {
      const piece = bytes.subarray(done, done + this.#segmentLimit);
      this.#emit(TcpFlag.ack | TcpFlag.psh, add(this.#sendOldest, done), piece);
    }
    if (this.#finSent) this.#emit(TcpFlag.ack | TcpFlag.fin, add(this.#sendNext, -1));
    this.#startTimer();
  }

  #sendSynchronization(): void {
    this.#emit(TcpFlag.syn | TcpFlag.ack, this.#sendOldest);
  }

  #emit(flags: number, sequence: number, data: Uint8Array = NOTHING): void {
    const { source, destination } = this.#opening;
    this.#send({
      source: destination,
      destination: source,
      sequence,
      acknowledgement: this.#receiveNext,
      flags,
      window: this.#window,
      maximumSegment: LARGEST_SEGMENT,
      data,
    });
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}

/** Sequence numbers wrap at 2^32. */
function add(sequence: number, count: number): number {
  return (sequence + count) >>> 0;
}

function subtract(a: number, b: number): number {
  return (a - b) >>> 0;
}
