import type { LocalApic } from './local-apic.ts';

/** What a message does at its destination (SDM vol. 3A, 11.6.1). */
export const enum DeliveryMode {
  fixed = 0,
  lowestPriority = 1,
  nonMaskable = 4,
  reset = 5,
  startUp = 6,
}

/** A message between interrupt controllers. */
export interface ApicMessage {
  readonly vector: number;
  readonly mode: DeliveryMode;
  /** 8 bits: an identifier, or a set of logical ones. */
  readonly destination: number;
  readonly logical: boolean;
  readonly level: boolean;
}

const EVERYBODY = 0xff;

/** Carries messages from the I/O APIC and the processors to local APICs. */
export class ApicBus {
  readonly #apics: LocalApic[] = [];
  /** Told when a level-triggered interrupt has been handled. */
  onEndOfInterrupt: (vector: number) => void = () => {};

  attach(apic: LocalApic): void {
    this.#apics.push(apic);
  }

  send(message: ApicMessage): void {
    const targets = this.#apics.filter((apic) => isAddressed(apic, message));
    if (message.mode !== DeliveryMode.lowestPriority) {
      for (const apic of targets) apic.receive(message);
      return;
    }
    let best: LocalApic | undefined;
    for (const apic of targets) if (!best || apic.priority < best.priority) best = apic;
    best?.receive(message);
  }

  /** To all processors, with or without the sender. */
  broadcast(sender: LocalApic, message: ApicMessage, withSender: boolean): void {
    for (const apic of this.#apics) if (withSender || apic !== sender) apic.receive(message);
  }
}

function isAddressed(apic: LocalApic, { destination, logical }: ApicMessage): boolean {
  if (destination === EVERYBODY) return true;
  return logical ? apic.isInLogical(destination) : apic.identifier === destination;
}
