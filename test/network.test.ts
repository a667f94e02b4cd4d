import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { BROADCAST, buildFrame, guestMac, isGroup, sourceOf } from '../src/devices/network/ethernet.ts';
import { Gateway, GUEST_NETWORK } from '../src/devices/network/gateway.ts';
import {
  buildIpv4,
  checksum,
  formatIpv4,
  type Ipv4Packet,
  ipv4Address,
  Protocol,
  parseIpv4,
} from '../src/devices/network/ipv4.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';
import { buildUdp, parseUdp } from '../src/devices/network/udp.ts';
import { Station } from './network-station.ts';

const bytes = (hexadecimal: string): Uint8Array => Uint8Array.from(Buffer.from(hexadecimal.replaceAll(' ', ''), 'hex'));

describe('a switch', () => {
  let network: EthernetSwitch;
  let stations: Station[];
  beforeEach(() => {
    network = new EthernetSwitch();
    stations = [1, 2, 3].map((number) => new Station(number, network));
  });
  const counts = (): number[] => stations.map(({ frames }) => frames.splice(0).length);

  it('floods what is for all or for a stranger, and sends the rest to one port', () => {
    const [first, second] = stations as [Station, Station];
    first.sendTo(BROADCAST, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([0, 1, 1]);
    first.sendTo(second.mac, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([0, 1, 1]);
    second.sendTo(first.mac, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([1, 0, 0]);
    first.sendTo(second.mac, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([0, 1, 0]);
  });

  it('forgets a port that was unplugged', () => {
    const [first, second] = stations as [Station, Station];
    second.sendTo(BROADCAST, 0x0800, new Uint8Array(46));
    network.disconnect(second);
    counts();
    first.sendTo(second.mac, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([0, 0, 1]);
    second.sendTo(BROADCAST, 0x0800, new Uint8Array(46));
    expect(counts()).toEqual([0, 0, 0]);
  });

  it('drops what is no frame', () => {
    for (const length of [0, 13, 1515]) stations[0]?.send(new Uint8Array(length));
    expect(counts()).toEqual([0, 0, 0]);
  });

  it('still reaches everyone when a guest makes up addresses without end', () => {
    const [first, second, third] = stations as [Station, Station, Station];
    for (let number = 0; number < 5000; number++)
      first.send(buildFrame(BROADCAST, guestMac(number), 0x0800, bytes('')));
    counts();
    second.sendTo(BROADCAST, 0x0800, bytes('00'));
    third.sendTo(second.mac, 0x0800, bytes('00'));
    expect(counts()).toEqual([2, 1, 1]);
  });
});

it('guests get different addresses that name one station each', () => {
  const addresses = [1, 2, 300].map(guestMac);
  expect(new Set(addresses.map(String)).size).toBe(3);
  for (const address of addresses) expect([isGroup(address), (address[0] as number) & 2]).toEqual([false, 2]);
});

describe('IPv4', () => {
  it('computes the checksum of the example in RFC 1071', () => {
    expect(checksum(bytes('0001 f203 f4f5 f6f7'))).toBe(~0xddf2 & 0xffff);
  });

  it('takes a packet written out by hand', () => {
    // An ICMP echo request from 10.0.2.15 to 10.0.2.2.
    const packet = parseIpv4(bytes('4500 001c 1c46 4000 4001 068b 0a00 020f 0a00 0202 0800 f7ff 0000 0000'));
    expect(packet && [formatIpv4(packet.source), formatIpv4(packet.destination), packet.protocol]).toEqual([
      '10.0.2.15',
      '10.0.2.2',
      Protocol.icmp,
    ]);
  });

  const packets = fc.record<Ipv4Packet>({
    source: fc.integer({ min: 0, max: 0xffff_ffff }),
    destination: fc.integer({ min: 0, max: 0xffff_ffff }),
    protocol: fc.nat(255),
    payload: fc.uint8Array({ maxLength: 1480 }),
  });

  it('takes what it builds, with padding behind it, and nothing that is damaged', () => {
    fc.assert(
      fc.property(packets, fc.nat(19), fc.integer({ min: 1, max: 255 }), (packet, place, change) => {
        const built = buildIpv4(packet);
        const padded = new Uint8Array(built.length + 10);
        padded.set(built);
        expect(parseIpv4(padded)).toEqual(packet);
        padded[place] = (padded[place] as number) ^ change;
        expect(parseIpv4(padded)).toBeUndefined();
      }),
    );
  });

  it('survives any bytes, and so does UDP', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), packets, (noise, packet) => {
        parseIpv4(noise);
        parseUdp(packet);
      }),
    );
  });

  it('carries datagrams whose damage is noticed', () => {
    const datagram = { sourcePort: 5000, destinationPort: 53, data: bytes('0102 03') };
    const packet = buildUdp(ipv4Address('10.0.2.15'), ipv4Address('10.0.2.3'), datagram);
    expect(parseUdp(packet)).toEqual(datagram);
    packet.payload[9] = 7;
    expect(parseUdp(packet)).toBeUndefined();
  });
});

describe('the gateway', () => {
  let station: Station;
  beforeEach(() => {
    const network = new EthernetSwitch();
    station = new Station(1, network);
    new Gateway(network);
  });

  function ask(...options: number[]): Uint8Array {
    const message = new Uint8Array(240 + options.length + 1);
    message.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    message.set(station.mac, 28);
    message.set(bytes('63825363'), 236);
    message.set([...options, 255], 240);
    return message;
  }

  /** The reply's options by number, with the address it offers under 0. */
  function dhcp(message: Uint8Array): Map<number, string> | undefined {
    const packet = buildUdp(0, 0xffff_ffff, { sourcePort: 68, destinationPort: 67, data: message });
    station.sendPacket(BROADCAST, packet);
    const [reply, ...others] = station.packets();
    expect(others).toEqual([]);
    const data = reply && parseUdp(reply)?.data;
    if (data === undefined) return undefined;
    expect(Buffer.from(data.subarray(4, 8)).toString('hex')).toBe('deadbeef');
    const found = new Map([[0, data.subarray(16, 20).join('.')]]);
    for (let at = 240; data[at] !== 255; at += 2 + (data[at + 1] as number)) {
      found.set(data[at] as number, data.subarray(at + 2, at + 2 + (data[at + 1] as number)).join('.'));
    }
    return found;
  }

  it('gives addresses by DHCP, with all that a station needs', () => {
    const offer = dhcp(ask(53, 1, 1));
    expect([offer?.get(53), offer?.get(0)]).toEqual(['2', '10.0.2.15']);
    const granted = dhcp(ask(53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2));
    expect(Object.fromEntries(granted ?? [])).toEqual({
      0: '10.0.2.15',
      53: '5',
      54: '10.0.2.2',
      1: '255.255.255.0',
      3: '10.0.2.2',
      6: '10.0.2.3',
      51: '0.1.81.128',
    });
  });

  it('refuses another address than the one it gave, and leaves other servers their clients', () => {
    expect(dhcp(ask(53, 1, 3, 50, 4, 10, 0, 2, 99))?.get(53)).toBe('6');
    expect(dhcp(ask(53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 77))).toBeUndefined();
    expect(dhcp(ask(53, 1, 7))).toBeUndefined();
  });

  it('gives each station its own address, until there are no more', () => {
    const given = new Set<string | undefined>();
    for (let number = 0; number < 201; number++) {
      station.mac[5] = number;
      station.mac[4] = 1;
      given.add(dhcp(ask(53, 1, 1))?.get(0));
    }
    expect(given.size).toBe(201);
    expect(given.has(undefined)).toBe(true);
    expect(given.has(formatIpv4(GUEST_NETWORK.first + 199))).toBe(true);
  });

  it('survives any message', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(255), { maxLength: 40 }), (options) => {
        dhcp(ask(...options, 255));
      }),
    );
  });

  const WHO_HAS = '0001 0800 0604 0001 0200 0000 0001 0a00 020f 0000 0000 0000 0a00 02';

  it('answers ARP for its own addresses only', () => {
    for (const [last, answers] of [
      ['02', 1],
      ['03', 1],
      ['0f', 0],
    ] as const) {
      station.sendTo(BROADCAST, 0x0806, bytes(WHO_HAS + last));
      const replies = station.payloads();
      expect(replies).toHaveLength(answers);
      if (answers) expect(Buffer.from(replies[0]!).toString('hex', 6, 8)).toBe('0002');
    }
  });

  it('answers a ping', () => {
    station.sendTo(BROADCAST, 0x0806, bytes(`${WHO_HAS}02`));
    const gateway = sourceOf(station.frames[0]!).slice();
    station.payloads();
    const request = {
      source: ipv4Address('10.0.2.15'),
      destination: ipv4Address('10.0.2.2'),
      protocol: Protocol.icmp,
      payload: bytes('0800 f2fb 0001 0002 0201'),
    };
    request.payload.set([0, 0], 2);
    new DataView(request.payload.buffer).setUint16(2, checksum(request.payload));
    station.sendPacket(gateway, request);
    const [reply] = station.packets();
    expect(reply?.source).toBe(ipv4Address('10.0.2.2'));
    expect(reply && [reply.payload[0], checksum(reply.payload)]).toEqual([0, 0]);
    expect(reply?.payload.subarray(4)).toEqual(request.payload.subarray(4));
  });
});
