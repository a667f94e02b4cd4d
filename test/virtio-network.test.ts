import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { buildFrame, guestMac } from '../src/devices/network/ethernet.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';
import { NetworkDevice } from '../src/devices/virtio/network.ts';
import { Register } from '../src/devices/virtio/registers.ts';
import { Station } from './network-station.ts';
import { VirtioDriver } from './virtio-driver.ts';

const RECEIVE = 0;
const TRANSMIT = 1;
const ROOM = 12 + 1514;

let network: EthernetSwitch;
let device: NetworkDevice;
let driver: VirtioDriver;
let station: Station;

beforeEach(() => {
  network = new EthernetSwitch();
  device = new NetworkDevice(guestMac(1), network);
  driver = new VirtioDriver(device);
  station = new Station(9, network);
  driver.start();
});

function frameOf(length: number, seed = 0): Uint8Array {
  const payload = Uint8Array.from({ length: length - 14 }, (_, index) => index * 3 + seed);
  return buildFrame(station.mac, guestMac(1), 0x88b5, payload);
}

const withHeader = (frame: Uint8Array): Uint8Array => Uint8Array.of(...new Uint8Array(12), ...frame);

function received(): Uint8Array[] {
  return driver.collect(RECEIVE).map(({ data, written }) => data.subarray(0, written));
}

describe('a virtio network adapter', () => {
  it('tells its address and that its cable is plugged in', () => {
    const at = (offset: number): number => driver.transport.read(Register.configuration + offset, 1);
    expect([0, 1, 2, 3, 4, 5].map(at)).toEqual([...guestMac(1)]);
    expect(driver.transport.read(Register.configuration + 6, 2)).toBe(1);
  });

  it('sends frames', async () => {
    const frame = frameOf(1514);
    await driver.request(TRANSMIT, withHeader(frame), 0, { cuts: [12, 500] });
    expect(station.frames).toEqual([frame]);
  });

  it('sends nothing that is no frame', async () => {
    for (const length of [13, 25, 1527]) {
      const used = await driver.request(TRANSMIT, new Uint8Array(length), 0);
      expect(used.written).toBe(0);
    }
    expect(station.frames).toEqual([]);
  });

  it('receives frames into single buffers, each with a header in front', () => {
    driver.offer(RECEIVE, new Uint8Array(0), ROOM);
    driver.notify(RECEIVE);
    const frame = frameOf(60);
    station.send(frame);
    expect(driver.wakes).toBe(1);
    driver.transport.poll();
    const [bytes] = received();
    expect([...bytes!.subarray(0, 12)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    expect(bytes?.subarray(12)).toEqual(frame);
  });

  it('gives a buffer back that is too small, and goes on', () => {
    driver.offer(RECEIVE, new Uint8Array(0), 50);
    driver.offer(RECEIVE, new Uint8Array(0), ROOM);
    station.send(frameOf(60, 1));
    station.send(frameOf(60, 2));
    driver.notify(RECEIVE);
    expect(received().map(({ length }) => length)).toEqual([0, 72]);
  });

  it('keeps so many frames for a guest that does not listen, and no more', () => {
    for (let count = 0; count < 300; count++) station.send(frameOf(60, count));
    expect(device.state.waiting).toHaveLength(256);
    expect(device.state.dropped).toBe(44);
  });

  it('connects two guests while pages come and go', () => {
    const step = fc.record({
      frames: fc.array(fc.integer({ min: 14, max: 1514 }), { maxLength: 4 }),
      evicted: fc.array(fc.nat(63), { maxLength: 30 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 10 }), (steps) => {
        const other = new VirtioDriver(new NetworkDevice(guestMac(2), network));
        other.start();
        for (const [round, { frames, evicted }] of steps.entries()) {
          const sent: Uint8Array[] = [];
          for (const length of frames) {
            const frame = frameOf(length, round);
            if (!driver.offer(TRANSMIT, withHeader(frame), 0)) continue;
            sent.push(frame);
            other.offer(RECEIVE, new Uint8Array(0), ROOM);
          }
          for (const guest of [driver, other]) {
            guest.evict(...evicted);
            guest.notify(guest === driver ? TRANSMIT : RECEIVE);
            guest.settle();
          }
          other.settle();
          expect(driver.collect(TRANSMIT)).toHaveLength(sent.length);
          const arrived = other.collect(RECEIVE).map(({ data, written }) => data.subarray(12, written));
          expect(arrived.map(({ length }) => length)).toEqual(sent.map(({ length }) => length));
          for (const [index, frame] of sent.entries()) expect(Buffer.compare(arrived[index]!, frame)).toBe(0);
        }
      }),
      { numRuns: 40 },
    );
  });
});
