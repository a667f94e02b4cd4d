import type { Archive, Archived } from '../../archive/archive.ts';
import type { MmioDevice } from '../mmio.ts';

/** Offsets of the two ports. */
const enum Port {
  command = 0,
  data = 1,
}

const LINES = 8;

/** What a write to the command port is (Intel 8259A, figures 7 and 8); without either it ends interrupts. */
const enum Command {
  initialise = 0x10,
  settings = 0x08,
}

/** Bits of the first initialisation word. */
const enum Initial {
  needsFourthWord = 0x01,
  single = 0x02,
}

/** Bit of the fourth initialisation word. */
const AUTOMATIC_END = 0x02;

/** Bits of the third operation command word. */
const enum Setting {
  inService = 0x01,
  chooseRegister = 0x02,
  poll = 0x04,
  specialMask = 0x20,
  chooseSpecialMask = 0x40,
}

/** The upper three bits of the second operation command word. */
const enum End {
  automaticStays = 0,
  current = 1,
  named = 3,
  automaticRotates = 4,
  currentRotates = 5,
  setLowest = 6,
  namedRotates = 7,
}

const END_SHIFT = 5;

/** Steps of the initialisation, by the word that comes next. */
const enum Expected {
  nothing = 0,
  vector = 2,
  cascade = 3,
  mode = 4,
}

const POLLED = 0x80;

/**
 * One 8259A: eight lines with priorities. Not there are the modes of the 8085, buffers, and special fully nested mode,
 * which no kernel of this age sets.
 */
export class InterruptChip implements MmioDevice, Archived {
  #levels = 0;
  #requested = 0;
  #inService = 0;
  /** A BIOS leaves all lines masked. */
  #mask = 0xff;
  #levelTriggered = 0;
  #firstVector = 0;
  #lowest = LINES - 1;
  #expected: Expected = Expected.nothing;
  #isSingle = false;
  #needsMode = false;
  #endsAutomatically = false;
  #rotates = false;
  #showsInService = false;
  #specialMask = false;
  #polled = false;

  archive(archive: Archive): void {
    this.#levels = archive.value('levels', this.#levels);
    this.#requested = archive.value('requested', this.#requested);
    this.#inService = archive.value('inService', this.#inService);
    this.#mask = archive.value('mask', this.#mask);
    this.#levelTriggered = archive.value('levelTriggered', this.#levelTriggered);
    this.#firstVector = archive.value('firstVector', this.#firstVector);
    this.#lowest = archive.value('lowest', this.#lowest);
    this.#expected = archive.value('expected', this.#expected);
    this.#isSingle = archive.value('isSingle', this.#isSingle);
    this.#needsMode = archive.value('needsMode', this.#needsMode);
    this.#endsAutomatically = archive.value('endsAutomatically', this.#endsAutomatically);
    this.#rotates = archive.value('rotates', this.#rotates);
    this.#showsInService = archive.value('showsInService', this.#showsInService);
    this.#specialMask = archive.value('specialMask', this.#specialMask);
    this.#polled = archive.value('polled', this.#polled);
  }

  // Lines

  /** A line that asks once each time that it rises, or for as long as it is high. */
  set(line: number, level: boolean): void {
    const bit = 1 << line;
    const rises = level && (this.#levels & bit) === 0;
    this.#levels = level ? this.#levels | bit : this.#levels & ~bit;
    if ((this.#levelTriggered & bit) !== 0) this.#follow(bit);
    else if (rises) this.#requested |= bit;
  }

  #follow(lines: number): void {
    this.#requested = (this.#requested & ~lines) | (this.#levels & lines);
  }

  get levelTriggered(): number {
    return this.#levelTriggered;
  }

  /** Which lines ask for as long as they are high, a bit for each. */
  set levelTriggered(lines: number) {
    this.#levelTriggered = lines;
    this.#follow(lines);
  }

  /** The line that is to be served next, or −1. */
  get pending(): number {
    const candidates = this.#requested & ~this.#mask;
    if (candidates === 0) return -1;
    const blocking = this.#specialMask ? this.#inService & ~this.#mask : this.#inService;
    for (let step = 1; step <= LINES; step++) {
      const line = (this.#lowest + step) & 7;
      if (((blocking >> line) & 1) !== 0) return -1;
      if (((candidates >> line) & 1) !== 0) return line;
    }
    return -1;
  }

  vectorOf(line: number): number {
    return this.#firstVector + line;
  }

  /** Takes the line that `pending` gave into service. */
  acknowledge(line: number): void {
    const bit = 1 << line;
    if ((this.#levelTriggered & bit) === 0) this.#requested &= ~bit;
    if (!this.#endsAutomatically) this.#inService |= bit;
    else if (this.#rotates) this.#lowest = line;
  }

  // Ports

  read(offset: number): number {
    if (this.#polled) {
      this.#polled = false;
      const line = this.pending;
      if (line < 0) return 0;
      this.acknowledge(line);
      return POLLED | line;
    }
    if (offset === Port.data) return this.#mask;
    return this.#showsInService ? this.#inService : this.#requested;
  }

  write(offset: number, _bytes: number, written: number): void {
    const value = written & 0xff;
    if (offset === Port.data) this.#writeData(value);
    else if ((value & Command.initialise) !== 0) this.#initialise(value);
    else if ((value & Command.settings) !== 0) this.#writeSettings(value);
    else this.#end(value >> END_SHIFT, value & 7);
  }

  #initialise(value: number): void {
    this.#requested = this.#levels & this.#levelTriggered;
    this.#inService = 0;
    this.#mask = 0;
    this.#lowest = LINES - 1;
    this.#endsAutomatically = false;
    this.#rotates = false;
    this.#showsInService = false;
    this.#specialMask = false;
    this.#polled = false;
    this.#isSingle = (value & Initial.single) !== 0;
    this.#needsMode = (value & Initial.needsFourthWord) !== 0;
    this.#expected = Expected.vector;
  }

  #writeData(value: number): void {
    const mode = this.#needsMode ? Expected.mode : Expected.nothing;
    switch (this.#expected) {
      case Expected.vector:
        this.#firstVector = value & ~7;
        this.#expected = this.#isSingle ? mode : Expected.cascade;
        break;
      case Expected.cascade:
        // The pair's wiring is fixed.
        this.#expected = mode;
        break;
      case Expected.mode:
        this.#endsAutomatically = (value & AUTOMATIC_END) !== 0;
        this.#expected = Expected.nothing;
        break;
      default:
        this.#mask = value;
    }
  }

  #writeSettings(value: number): void {
    this.#polled = (value & Setting.poll) !== 0;
    if ((value & Setting.chooseRegister) !== 0) this.#showsInService = (value & Setting.inService) !== 0;
    if ((value & Setting.chooseSpecialMask) !== 0) this.#specialMask = (value & Setting.specialMask) !== 0;
  }

  #end(how: End, named: number): void {
    switch (how) {
      case End.current:
      case End.currentRotates: {
        const line = this.#served;
        if (line >= 0) this.#finish(line, how === End.currentRotates);
        break;
      }
      case End.named:
      case End.namedRotates:
        this.#finish(named, how === End.namedRotates);
        break;
      case End.setLowest:
        this.#lowest = named;
        break;
      case End.automaticStays:
      case End.automaticRotates:
        this.#rotates = how === End.automaticRotates;
        break;
      default:
        break;
    }
  }

  /** The line in service that comes first, or −1; one that is masked does not count in special mask mode. */
  get #served(): number {
    const serving = this.#specialMask ? this.#inService & ~this.#mask : this.#inService;
    for (let step = 1; step <= LINES; step++) {
      const line = (this.#lowest + step) & 7;
      if (((serving >> line) & 1) !== 0) return line;
    }
    return -1;
  }

  #finish(line: number, rotates: boolean): void {
    this.#inService &= ~(1 << line);
    if (rotates) this.#lowest = line;
  }
}
