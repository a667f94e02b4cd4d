import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BROADCAST } from '../src/devices/network/ethernet.ts';
import { Gateway } from '../src/devices/network/gateway.ts';
import { checksum, type Ipv4Packet, ipv4Address, pseudoHeaderSum } from '../src/devices/network/ipv4.ts';
import type {
  DatagramSocket,
  Endpoint,
  HostSockets,
  StreamEvents,
  StreamSocket,
} from '../src/devices/network/sockets.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';
import { buildTcp, parseTcp, TcpFlag, type TcpSegment } from '../src/devices/network/tcp-segment.ts';
import { buildUdp, type Datagram, parseUdp } from '../src/devices/network/udp.ts';
import { Station } from './network-station.ts';

const GUEST: Endpoint = { address: ipv4Address('10.0.2.15'), port: 40000 };
const WORLD: Endpoint = { address: ipv4Address('198.51.100.7'), port: 80 };

class FakeStream implements StreamSocket {
  readonly to: Endpoint;
  readonly events: StreamEvents;
  backlog = 0;
  readonly written: number[] = [];
  state: 'open' | 'ended' | 'destroyed' = 'open';
  isPaused = false;

  constructor(to: Endpoint, events: StreamEvents) {
    this.to = to;
    this.events = events;
  }

  write(bytes: Uint8Array): void {
    this.written.push(...bytes);
  }
  end(): void {
    this.state = 'ended';
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  destroy(): void {
    this.state = 'destroyed';
  }
}

class FakeDatagrams implements DatagramSocket {
  readonly sent: { to: Endpoint; data: Uint8Array }[] = [];
  readonly receive: (from: Endpoint, data: Uint8Array) => void;
  isClosed = false;

  constructor(receive: (from: Endpoint, data: Uint8Array) => void) {
    this.receive = receive;
  }

  send(to: Endpoint, data: Uint8Array): void {
    this.sent.push({ to, data });
  }
  close(): void {
    this.isClosed = true;
  }
}

class FakeSockets implements HostSockets {
  readonly nameServer = ipv4Address('192.0.2.53');
  readonly streams: FakeStream[] = [];
  readonly datagrams: FakeDatagrams[] = [];

  openDatagram(receive: (from: Endpoint, data: Uint8Array) => void): DatagramSocket {
    this.datagrams.push(new FakeDatagrams(receive));
    return this.datagrams[this.datagrams.length - 1]!;
  }
  connect(to: Endpoint, events: StreamEvents): StreamSocket {
    this.streams.push(new FakeStream(to, events));
    return this.streams[this.streams.length - 1]!;
  }
}

let sockets: FakeSockets;
let gateway: Gateway;
let station: Station;

beforeEach(() => {
  vi.useFakeTimers();
  const network = new EthernetSwitch();
  sockets = new FakeSockets();
  station = new Station(1, network);
  gateway = new Gateway(network, sockets);
});

afterEach(() => {
  gateway.close();
  vi.useRealTimers();
});

describe('datagrams of a guest', () => {
  function send(destination: string, datagram: Datagram): void {
    station.sendPacket(BROADCAST, buildUdp(GUEST.address, ipv4Address(destination), datagram));
  }
  const ask = (data: number, destinationPort = 123): Datagram => ({
    sourcePort: 5000,
    destinationPort,
    data: Uint8Array.of(data),
  });

  it('leave by a socket of their port, and answers come back to it', () => {
    send('198.51.100.7', ask(1));
    send('198.51.100.8', ask(2));
    expect(sockets.datagrams).toHaveLength(1);
    const [socket] = sockets.datagrams as [FakeDatagrams];
    expect(socket.sent.map(({ to, data }) => [to.address, to.port, data[0]])).toEqual([
      [ipv4Address('198.51.100.7'), 123, 1],
      [ipv4Address('198.51.100.8'), 123, 2],
    ]);
    socket.receive({ address: ipv4Address('198.51.100.7'), port: 123 }, Uint8Array.of(9));
    const [packet] = station.packets();
    expect(packet?.source).toBe(ipv4Address('198.51.100.7'));
    expect(parseUdp(packet!)).toEqual({ sourcePort: 123, destinationPort: 5000, data: Uint8Array.of(9) });
  });

  it('for the name server of the network reach that of the host, and the answer seems to come from the former', () => {
    send('10.0.2.3', ask(1, 53));
    const [socket] = sockets.datagrams as [FakeDatagrams];
    expect(socket.sent[0]?.to).toEqual({ address: sockets.nameServer, port: 53 });
    socket.receive({ address: sockets.nameServer, port: 53 }, Uint8Array.of(9));
    expect(station.packets()[0]?.source).toBe(ipv4Address('10.0.2.3'));
  });

  it.each(['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '10.0.2.2', '10.0.2.77'])(
    'for %s go nowhere',
    (destination) => {
      send(destination, ask(1));
      expect(sockets.datagrams).toEqual([]);
    },
  );

  it('take no more sockets than there are for guests, the oldest first', () => {
    for (let port = 1; port <= 300; port++) send('198.51.100.7', { ...ask(1), sourcePort: port });
    expect(sockets.datagrams.map(({ isClosed }) => isClosed).indexOf(false)).toBe(44);
    send('198.51.100.7', { ...ask(1), sourcePort: 299 });
    expect(sockets.datagrams).toHaveLength(300);
  });

  it('leave no socket behind when the gateway is closed', () => {
    send('198.51.100.7', ask(1));
    gateway.close();
    expect(sockets.datagrams[0]?.isClosed).toBe(true);
  });
});

/** A guest's TCP, as simple as it can be: it keeps what comes in order and acknowledges that. */
class Client {
  next = 1000;
  received: number[] = [];
  window = 65_535;
  ended = false;
  wasReset = false;
  isOpen = false;
  /** What the gateway has acknowledged. */
  acknowledged = 0;
  /** What the gateway has room for. */
  room = 0;
  expected = 0;

  send(flags: number, data: Uint8Array = new Uint8Array(0), sequence = this.next): void {
    const segment: TcpSegment = {
      source: GUEST,
      destination: WORLD,
      sequence,
      acknowledgement: this.expected,
      flags,
      window: this.window,
      maximumSegment: 1000,
      data,
    };
    station.sendPacket(BROADCAST, buildTcp(segment));
  }

  open(): void {
    this.send(TcpFlag.syn);
    sockets.streams[0]?.events.connected();
    this.next++;
    this.take();
    expect(this.isOpen).toBe(true);
  }

  /** Takes segments that have arrived, but for those that `isLost` says. */
  take(isLost: (index: number) => boolean = () => false): TcpSegment[] {
    const segments = station.packets().flatMap((packet: Ipv4Packet) => parseTcp(packet) ?? []);
    for (const [index, segment] of segments.entries()) if (!isLost(index)) this.#take(segment);
    return segments;
  }

  #take(segment: TcpSegment): void {
    const { flags, sequence, data } = segment;
    if (flags & TcpFlag.rst) this.wasReset = true;
    this.acknowledged = segment.acknowledgement;
    this.room = segment.window;
    if (flags & TcpFlag.syn) {
      this.isOpen = true;
      this.expected = (sequence + 1) >>> 0;
      this.send(TcpFlag.ack);
      return;
    }
    const isExpected = sequence === this.expected && !this.ended;
    if (isExpected) {
      this.received.push(...data);
      this.expected = (this.expected + data.length) >>> 0;
      if (flags & TcpFlag.fin) {
        this.ended = true;
        this.expected = (this.expected + 1) >>> 0;
      }
    }
    if (data.length > 0 || flags & TcpFlag.fin) this.send(TcpFlag.ack);
  }
}

describe('a TCP connection of a guest', () => {
  let client: Client;
  beforeEach(() => {
    client = new Client();
  });

  it('is open when the world has accepted it', () => {
    client.send(TcpFlag.syn);
    expect(sockets.streams[0]?.to).toEqual(WORLD);
    expect(client.take()).toEqual([]);
    sockets.streams[0]?.events.connected();
    const [answer] = client.take();
    expect(answer).toMatchObject({ flags: TcpFlag.syn | TcpFlag.ack, acknowledgement: 1001, maximumSegment: 1460 });
  });

  it('is reset when the world refuses it', () => {
    client.send(TcpFlag.syn);
    sockets.streams[0]?.events.failed();
    expect(client.take()[0]).toMatchObject({ flags: TcpFlag.rst | TcpFlag.ack, acknowledgement: 1001 });
    expect(sockets.streams[0]?.state).toBe('destroyed');
  });

  it.each(['127.0.0.1', '10.0.2.2', '10.0.2.99'])('to %s is refused', (address) => {
    const opening = { source: GUEST, destination: { address: ipv4Address(address), port: 22 }, window: 0 };
    const rest = { sequence: 7, acknowledgement: 0, flags: TcpFlag.syn, maximumSegment: 1000, data: new Uint8Array(0) };
    station.sendPacket(BROADCAST, buildTcp({ ...opening, ...rest }));
    expect(sockets.streams).toEqual([]);
    expect(client.take()[0]).toMatchObject({ flags: TcpFlag.rst | TcpFlag.ack, acknowledgement: 8 });
  });

  it('is refused beyond the number that a host carries', () => {
    for (let port = 0; port < 513; port++) {
      const segment = { source: { ...GUEST, port }, destination: WORLD, sequence: 0, acknowledgement: 0, window: 0 };
      station.sendPacket(
        BROADCAST,
        buildTcp({ ...segment, flags: TcpFlag.syn, maximumSegment: 1, data: new Uint8Array(0) }),
      );
    }
    expect(sockets.streams).toHaveLength(512);
    expect(client.take()).toHaveLength(1);
    expect(client.wasReset).toBe(true);
  });

  it('carries bytes both ways and ends when both have ended', () => {
    client.open();
    const [stream] = sockets.streams as [FakeStream];
    client.send(TcpFlag.ack, Uint8Array.of(1, 2, 3));
    client.next += 3;
    expect(stream.written).toEqual([1, 2, 3]);
    stream.events.received(Uint8Array.of(4, 5));
    client.take();
    expect(client.acknowledged).toBe(client.next);
    expect(client.received).toEqual([4, 5]);
    stream.events.ended();
    client.take();
    expect(client.ended).toBe(true);
    expect(stream.state).toBe('open');
    client.send(TcpFlag.ack | TcpFlag.fin);
    expect(stream.state).toBe('destroyed');
    client.next++;
    client.take();
    expect(client.acknowledged).toBe(client.next);
    expect(client.wasReset).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('passes on that the guest has no more to say', () => {
    client.open();
    client.send(TcpFlag.ack | TcpFlag.fin, Uint8Array.of(1));
    const [stream] = sockets.streams as [FakeStream];
    expect(stream.written).toEqual([1]);
    expect(stream.state).toBe('ended');
    stream.events.received(Uint8Array.of(9));
    client.take();
    expect(client.received).toEqual([9]);
  });

  it('sends no more than the guest has room for', () => {
    client.window = 1500;
    client.open();
    const [stream] = sockets.streams as [FakeStream];
    stream.events.received(new Uint8Array(4000));
    expect(client.take(() => true).map(({ data }) => data.length)).toEqual([1000, 500]);
    client.expected += 1000;
    client.send(TcpFlag.ack);
    expect(client.take(() => true).map(({ data }) => data.length)).toEqual([1000]);
    client.window = 0;
    client.expected += 1500;
    client.send(TcpFlag.ack);
    expect(client.take()).toEqual([]);
  });

  it('lets the world wait for a guest that does not read, and the guest for the world', () => {
    client.open();
    const [stream] = sockets.streams as [FakeStream];
    stream.events.received(new Uint8Array(400_000));
    expect(stream.isPaused).toBe(true);
    for (let round = 0; round < 100 && client.received.length < 400_000; round++) client.take();
    expect(client.received).toHaveLength(400_000);
    expect(stream.isPaused).toBe(false);
    stream.backlog = 60_000;
    client.send(TcpFlag.ack, new Uint8Array(1000));
    client.take();
    expect(client.room).toBe(5535);
    stream.backlog = 0;
    stream.events.drained();
    client.take();
    expect(client.room).toBe(65_535);
  });

  it('takes no bytes for which it said that there is no room', () => {
    client.open();
    const [stream] = sockets.streams as [FakeStream];
    stream.backlog = 65_000;
    client.send(TcpFlag.ack, new Uint8Array(1000));
    expect(stream.written).toEqual([]);
  });

  it('is given up when the guest never answers', () => {
    client.open();
    sockets.streams[0]?.events.received(Uint8Array.of(1));
    vi.advanceTimersByTime(200 * 2 ** 10);
    expect(sockets.streams[0]?.state).toBe('destroyed');
    client.take();
    expect(client.wasReset).toBe(true);
  });

  it('asks a guest that opens it once more whether it has forgotten', () => {
    client.open();
    client.send(TcpFlag.syn, new Uint8Array(0), 77);
    expect(client.take()).toMatchObject([{ flags: TcpFlag.ack, acknowledgement: 1001 }]);
    client.send(TcpFlag.rst, new Uint8Array(0), 1001);
    expect(sockets.streams[0]?.state).toBe('destroyed');
  });

  it('is not reset by a guess', () => {
    client.open();
    client.send(TcpFlag.rst, new Uint8Array(0), client.next + 5);
    expect(sockets.streams[0]?.state).toBe('open');
  });

  it('delivers all bytes in order, whatever is lost on the way to the guest', () => {
    const step = fc.record({
      world: fc.nat(5000),
      guest: fc.nat(1400),
      lost: fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }),
      window: fc.constantFrom(500, 3000, 65_535),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.boolean(), (steps, worldEndsFirst) => {
        const network = new EthernetSwitch();
        sockets = new FakeSockets();
        station = new Station(1, network);
        gateway = new Gateway(network, sockets);
        client = new Client();
        client.open();
        const [stream] = sockets.streams as [FakeStream];
        const fromWorld: number[] = [];
        const fromGuest: number[] = [];
        const settle = (lost: readonly boolean[]): void => {
          for (let round = 0; round < 30; round++) {
            client.take((index) => round < 3 && lost[index % lost.length] === true);
            vi.advanceTimersByTime(1000);
          }
        };
        for (const [round, { world, guest, lost, window }] of steps.entries()) {
          client.window = window;
          const bytes = Uint8Array.from({ length: world }, (_, index) => index + round);
          stream.events.received(bytes);
          fromWorld.push(...bytes);
          const data = Uint8Array.from({ length: guest }, (_, index) => index * 3 + round);
          client.send(TcpFlag.ack, data);
          client.next += guest;
          fromGuest.push(...data);
          settle(lost);
        }
        if (worldEndsFirst) stream.events.ended();
        client.send(TcpFlag.ack | TcpFlag.fin);
        client.next++;
        if (!worldEndsFirst) stream.events.ended();
        settle([true, false]);
        expect(client.received).toEqual(fromWorld);
        expect(stream.written).toEqual(fromGuest);
        expect([client.ended, client.wasReset, stream.state]).toEqual([true, false, 'destroyed']);
        expect(client.acknowledged).toBe(client.next);
      }),
      { numRuns: 60 },
    );
  });

  it('survives any segments', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    const near = fc.oneof(fc.nat(3000), word);
    const segment = fc.record({
      sequence: near,
      acknowledgement: near,
      flags: fc.nat(31),
      window: fc.nat(0xffff),
      maximumSegment: fc.nat(0xffff),
      data: fc.uint8Array({ maxLength: 1460 }),
    });
    fc.assert(
      fc.property(fc.array(fc.tuple(segment, fc.nat(4)), { maxLength: 30 }), (steps) => {
        for (const [fields, event] of steps) {
          station.sendPacket(BROADCAST, buildTcp({ ...fields, source: GUEST, destination: WORLD }));
          const stream = sockets.streams[sockets.streams.length - 1];
          if (stream?.state !== 'open') continue;
          if (event === 1) stream.events.connected();
          if (event === 2) stream.events.received(new Uint8Array(2000));
          if (event === 3) stream.events.ended();
          vi.advanceTimersByTime(500);
          station.packets();
        }
      }),
    );
    expect(sockets.streams.length).toBeGreaterThan(0);
  });

  it('survives any options', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 40, maxLength: 40 }), (options) => {
        const segment = { source: GUEST, destination: WORLD, sequence: 1, acknowledgement: 0, window: 0 };
        const packet = buildTcp({ ...segment, flags: TcpFlag.syn, maximumSegment: 1, data: options.subarray(4) });
        packet.payload.set(options, 20);
        // A header of 15 words, which ends behind the options.
        packet.payload[12] = 0xf0;
        packet.payload.set([0, 0], 16);
        new DataView(packet.payload.buffer).setUint16(16, checksum(packet.payload, pseudoHeaderSum(packet)));
        expect(parseTcp(packet)?.maximumSegment).toBeLessThan(0x1_0000);
      }),
    );
  });
});
