import type { Archive, Archived } from '../../archive/archive.ts';
import type { MmioDevice } from '../mmio.ts';
import { type ApicBus, type ApicMessage, DeliveryMode } from './apic-bus.ts';
import { ApicTimer, type TimerMode } from './apic-timer.ts';

/** Offsets of the registers in the APIC's page (SDM vol. 3A, table 11-1); each has 16 bytes to itself. */
const enum Register {
  identifier = 0x20,
  version = 0x30,
  taskPriority = 0x80,
  processorPriority = 0xa0,
  endOfInterrupt = 0xb0,
  logicalDestination = 0xd0,
  destinationFormat = 0xe0,
  spuriousVector = 0xf0,
  inService = 0x100,
  triggerMode = 0x180,
  requested = 0x200,
  errorStatus = 0x280,
  commandLow = 0x300,
  commandHigh = 0x310,
  localTimer = 0x320,
  thermal = 0x330,
  performance = 0x340,
  line0 = 0x350,
  line1 = 0x360,
  error = 0x370,
  initialCount = 0x380,
  currentCount = 0x390,
  divide = 0x3e0,
}

/** An integrated APIC with six local vectors. */
const VERSION = 0x14 | (5 << 16);
const ENABLED = 0x100;
const MASKED = 0x1_0000;
/** The first local line passes on what the 8259A ask for. */
const EXTERNAL = 0x700;
/** Vectors below are for exceptions. */
const FIRST_VECTOR = 16;

const enum ErrorStatus {
  none = 0,
  sendIllegalVector = 0x20,
  receivedIllegalVector = 0x40,
}

/** What may be written into each entry of the local vector table. */
const LOCAL_VECTORS: Readonly<Record<number, number>> = {
  [Register.localTimer]: 0x7_00ff,
  [Register.thermal]: 0x1_07ff,
  [Register.performance]: 0x1_07ff,
  [Register.line0]: 0x1_a7ff,
  [Register.line1]: 0x1_a7ff,
  [Register.error]: 0x1_00ff,
};

const enum Shorthand {
  none = 0,
  self = 1,
  all = 2,
  others = 3,
}

/** What an APIC does to the processor besides interrupts. */
export interface ApicProcessor {
  nonMaskable(): void;
  reset(): void;
  /** @param page where a processor that waits begins, in real mode */
  startUp(page: number): void;
}

/** The local APIC of one virtual processor, in its memory-mapped form. */
export class LocalApic implements MmioDevice, Archived {
  readonly identifier: number;
  readonly timer: ApicTimer;
  readonly #bus: ApicBus;
  readonly #processor: ApicProcessor;
  readonly #requested = new Uint32Array(8);
  readonly #inService = new Uint32Array(8);
  readonly #levelTriggered = new Uint32Array(8);
  readonly #localVectors = new Map<number, number>();
  #taskPriority = 0;
  #logicalDestination = 0;
  #flatModel = true;
  #spurious = 0xff;
  #commandHigh = 0;
  #commandLow = 0;
  #errors: number = ErrorStatus.none;
  #shownErrors: number = ErrorStatus.none;

  /** @param now system time in nanoseconds, which is also the time-stamp counter */
  constructor(identifier: number, bus: ApicBus, processor: ApicProcessor, now: () => number) {
    this.identifier = identifier;
    this.#bus = bus;
    this.#processor = processor;
    this.timer = new ApicTimer(now);
    bus.attach(this);
    this.reset();
  }

  reset(): void {
    this.#requested.fill(0);
    this.#inService.fill(0);
    this.#levelTriggered.fill(0);
    for (const register of Object.keys(LOCAL_VECTORS)) this.#localVectors.set(Number(register), MASKED);
    this.#taskPriority = 0;
    this.#logicalDestination = 0;
    this.#flatModel = true;
    this.#spurious = 0xff;
    this.#errors = ErrorStatus.none;
    this.timer.reset();
  }

  archive(archive: Archive): void {
    archive.words('requested', this.#requested);
    archive.words('inService', this.#inService);
    archive.words('levelTriggered', this.#levelTriggered);
    archive.map('localVectors', this.#localVectors);
    this.#taskPriority = archive.value('taskPriority', this.#taskPriority);
    this.#logicalDestination = archive.value('logicalDestination', this.#logicalDestination);
    this.#flatModel = archive.value('flatModel', this.#flatModel);
    this.#spurious = archive.value('spurious', this.#spurious);
    this.#commandHigh = archive.value('commandHigh', this.#commandHigh);
    this.#commandLow = archive.value('commandLow', this.#commandLow);
    this.#errors = archive.value('errors', this.#errors);
    this.#shownErrors = archive.value('shownErrors', this.#shownErrors);
    archive.part('timer', this.timer);
  }

  get #isEnabled(): boolean {
    return (this.#spurious & ENABLED) !== 0;
  }

  // Interrupts

  /** The priority below which nothing is delivered. */
  get priority(): number {
    const serving = Math.max(highest(this.#inService), 0) & 0xf0;
    return serving > (this.#taskPriority & 0xf0) ? serving : this.#taskPriority;
  }

  /** The vector that is to be delivered next, or −1. */
  get pending(): number {
    const vector = highest(this.#requested);
    return vector >= 0 && (vector & 0xf0) > (this.priority & 0xf0) ? vector : -1;
  }

  /** As a BIOS leaves the first processor: virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2). */
  takeExternal(): void {
    this.#localVectors.set(Register.line0, EXTERNAL);
  }

  /** Whether interrupts of the 8259A come by the first local line. */
  get takesExternal(): boolean {
    const entry = this.#localVectors.get(Register.line0) as number; // every register of the table has an entry
    return (entry & (MASKED | EXTERNAL)) === EXTERNAL;
  }

  /** Whether any interrupt can come, as long as nobody writes a register. */
  get canInterrupt(): boolean {
    return this.#isEnabled || this.takesExternal || this.hasRequests;
  }

  /** Whether any interrupt waits, whatever its priority. */
  get hasRequests(): boolean {
    return highest(this.#requested) >= 0;
  }

  /** Takes the vector that `pending` gave into service. */
  acknowledge(vector: number): void {
    clear(this.#requested, vector);
    set(this.#inService, vector);
  }

  /** Whether the end of a vector's service is of no interest to anybody else. */
  isEdgeTriggered(vector: number): boolean {
    return !has(this.#levelTriggered, vector);
  }

  endOfInterrupt(): void {
    const vector = highest(this.#inService);
    if (vector < 0) return;
    clear(this.#inService, vector);
    if (has(this.#levelTriggered, vector)) this.#bus.onEndOfInterrupt(vector);
  }

  receive(message: ApicMessage): void {
    switch (message.mode) {
      case DeliveryMode.fixed:
      case DeliveryMode.lowestPriority:
        this.#request(message.vector, message.level);
        break;
      case DeliveryMode.nonMaskable:
        this.#processor.nonMaskable();
        break;
      case DeliveryMode.reset:
        this.reset();
        this.#processor.reset();
        break;
      case DeliveryMode.startUp:
        this.#processor.startUp(message.vector);
        break;
      default:
        break;
    }
  }

  #request(vector: number, level: boolean): void {
    if (!this.#isEnabled) return;
    if (vector < FIRST_VECTOR) {
      this.#errors |= ErrorStatus.receivedIllegalVector;
      return;
    }
    set(this.#requested, vector);
    if (level) set(this.#levelTriggered, vector);
    else clear(this.#levelTriggered, vector);
  }

  /** Whether a set of logical identifiers has this one's. */
  isInLogical(destination: number): boolean {
    const own = this.#logicalDestination >>> 24;
    if (this.#flatModel) return (own & destination) !== 0;
    return own >> 4 === destination >> 4 && (own & destination & 0x0f) !== 0;
  }

  // Timer

  /** Raises the timer's interrupt when it is due. */
  expire(now: number): void {
    if (this.timer.expire(now)) this.raiseTimer();
  }

  /** The timer's interrupt, or what the host has in its place. */
  raiseTimer(): void {
    const entry = this.#localVectors.get(Register.localTimer) as number; // every register of the table has an entry
    if ((entry & MASKED) === 0) this.#request(entry & 0xff, false);
  }

  /** When `expire` has something to do; Infinity for never. */
  get deadline(): number {
    const entry = this.#localVectors.get(Register.localTimer) as number;
    return (entry & MASKED) === 0 ? this.timer.deadline : Number.POSITIVE_INFINITY;
  }

  // Registers

  read(offset: number): number {
    const register = offset & ~0xf;
    switch (register) {
      case Register.identifier:
        return this.identifier << 24;
      case Register.version:
        return VERSION;
      case Register.taskPriority:
        return this.#taskPriority;
      case Register.processorPriority:
        return this.priority;
      case Register.logicalDestination:
        return this.#logicalDestination;
      case Register.destinationFormat:
        return this.#flatModel ? 0xffff_ffff : 0x0fff_ffff;
      case Register.spuriousVector:
        return this.#spurious;
      case Register.errorStatus:
        return this.#shownErrors;
      case Register.commandLow:
        return this.#commandLow;
      case Register.commandHigh:
        return this.#commandHigh;
      case Register.initialCount:
        return this.timer.initialCount;
      case Register.currentCount:
        return this.timer.currentCount;
      case Register.divide:
        return this.timer.divide;
      default:
        return this.#localVectors.get(register) ?? this.#setWord(register) ?? 0;
    }
  }

  /** A word of one of the three sets of 256 bits. */
  #setWord(register: number): number | undefined {
    const word = (register >> 4) & 7;
    switch (register & ~0x7f) {
      case Register.inService:
        return this.#inService[word];
      case Register.triggerMode:
        return this.#levelTriggered[word];
      case Register.requested:
        return this.#requested[word];
      default:
        return undefined;
    }
  }

  write(offset: number, bytes: number, value: number): void {
    // Other sizes and places are not defined; nothing happens.
    if (bytes !== 4 || (offset & 0xf) !== 0) return;
    switch (offset as Register) {
      case Register.taskPriority:
        this.#taskPriority = value & 0xff;
        break;
      case Register.endOfInterrupt:
        this.endOfInterrupt();
        break;
      case Register.logicalDestination:
        this.#logicalDestination = (value & 0xff00_0000) >>> 0;
        break;
      case Register.destinationFormat:
        this.#flatModel = value >>> 28 === 0xf;
        break;
      case Register.spuriousVector:
        this.#spurious = value & 0x1ff;
        if (!this.#isEnabled)
          for (const [register, entry] of this.#localVectors) this.#localVectors.set(register, entry | MASKED);
        break;
      case Register.errorStatus:
        this.#shownErrors = this.#errors;
        this.#errors = ErrorStatus.none;
        break;
      case Register.commandHigh:
        this.#commandHigh = (value & 0xff00_0000) >>> 0;
        break;
      case Register.commandLow:
        this.#commandLow = value & 0xc_cfff;
        this.#command(this.#commandLow);
        break;
      case Register.initialCount:
        this.timer.start(value);
        break;
      case Register.divide:
        this.timer.divide = value;
        break;
      default:
        this.#writeLocalVector(offset, value);
    }
  }

  #writeLocalVector(register: number, value: number): void {
    const writable = LOCAL_VECTORS[register];
    if (writable === undefined) return;
    this.#localVectors.set(register, (value & writable) | (this.#isEnabled ? 0 : MASKED));
    if (register === Register.localTimer) this.timer.mode = ((value >>> 17) & 3) as TimerMode;
  }

  /** Sends a message to other processors, or to this one. */
  #command(low: number): void {
    const mode = ((low >>> 8) & 7) as DeliveryMode;
    const vector = low & 0xff;
    const isInterrupt = mode === DeliveryMode.fixed || mode === DeliveryMode.lowestPriority;
    if (isInterrupt && vector < FIRST_VECTOR) {
      this.#errors |= ErrorStatus.sendIllegalVector;
      return;
    }
    // The release of INIT means nothing to processors since the Pentium 4.
    const released = mode === DeliveryMode.reset && (low & 0xc000) === 0x8000;
    if (released) return;
    const message: ApicMessage = {
      vector,
      mode,
      destination: this.#commandHigh >>> 24,
      logical: (low & 0x800) !== 0,
      level: false,
    };
    switch ((low >>> 18) & 3) {
      case Shorthand.none:
        this.#bus.send(message);
        break;
      case Shorthand.self:
        this.receive(message);
        break;
      default:
        this.#bus.broadcast(this, message, ((low >>> 18) & 3) === Shorthand.all);
    }
  }
}

// Sets of 256 vectors

function has(bits: Uint32Array, vector: number): boolean {
  return (((bits[vector >> 5] as number) >>> (vector & 31)) & 1) !== 0;
}

function set(bits: Uint32Array, vector: number): void {
  bits[vector >> 5] = (bits[vector >> 5] as number) | (1 << (vector & 31));
}

function clear(bits: Uint32Array, vector: number): void {
  bits[vector >> 5] = (bits[vector >> 5] as number) & ~(1 << (vector & 31));
}

/** The highest vector of a set, or −1. */
function highest(bits: Uint32Array): number {
  for (let word = 7; word >= 0; word--) {
    const value = bits[word] as number;
    if (value !== 0) return word * 32 + 31 - Math.clz32(value);
  }
  return -1;
}
