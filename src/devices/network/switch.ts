import { destinationOf, Ethernet, type EthernetPort, isGroup, LONGEST_FRAME, sourceOf } from './ethernet.ts';

/** Addresses that a switch remembers; where a guest makes up more, frames go to everyone. */
const TABLE_LIMIT = 1024;

/** Connects the network adapters of one host: it learns from each frame behind which port its sender is. */
export class EthernetSwitch {
  readonly #ports = new Set<EthernetPort>();
  /** Port by address, as text. */
  readonly #table = new Map<string, EthernetPort>();

  connect(port: EthernetPort): void {
    this.#ports.add(port);
  }

  disconnect(port: EthernetPort): void {
    this.#ports.delete(port);
    for (const [address, known] of this.#table) if (known === port) this.#table.delete(address);
  }

  /** Takes a frame from one of its ports; what is no frame is dropped. */
  send(from: EthernetPort, frame: Uint8Array): void {
    if (frame.length < Ethernet.payload || frame.length > LONGEST_FRAME || !this.#ports.has(from)) return;
    const source = sourceOf(frame);
    const key = String(source);
    if (!isGroup(source) && (this.#table.has(key) || this.#table.size < TABLE_LIMIT)) this.#table.set(key, from);
    const destination = destinationOf(frame);
    const known = isGroup(destination) ? undefined : this.#table.get(String(destination));
    for (const port of known === undefined ? this.#ports : [known]) if (port !== from) port.receive(frame);
  }
}
