import { buildFrame, Ethernet, type EthernetPort, type MacAddress } from '../src/devices/network/ethernet.ts';
import { buildIpv4, type Ipv4Packet, parseIpv4 } from '../src/devices/network/ipv4.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';

/** A machine at a switch that keeps what it gets. */
export class Station implements EthernetPort {
  readonly frames: Uint8Array[] = [];
  readonly mac: MacAddress;
  readonly #network: EthernetSwitch;

  constructor(number: number, network = new EthernetSwitch()) {
    this.mac = Uint8Array.of(2, 0, 0, 0, 0, number);
    this.#network = network;
    network.connect(this);
  }

  receive(frame: Uint8Array): void {
    this.frames.push(frame);
  }

  send(frame: Uint8Array): void {
    this.#network.send(this, frame);
  }

  sendTo(destination: MacAddress, type: number, payload: Uint8Array): void {
    this.send(buildFrame(destination, this.mac, type, payload));
  }

  sendPacket(destination: MacAddress, packet: Ipv4Packet): void {
    this.sendTo(destination, 0x0800, buildIpv4(packet));
  }

  /** Payloads of what has come since the last call. */
  payloads(): Uint8Array[] {
    return this.frames.splice(0).map((frame) => frame.subarray(Ethernet.payload));
  }

  packets(): Ipv4Packet[] {
    return this.payloads().flatMap((payload) => parseIpv4(payload) ?? []);
  }
}
