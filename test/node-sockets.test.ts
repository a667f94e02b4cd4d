import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { expect, it } from 'vitest';
import { ipv4Address } from '../src/devices/network/ipv4.ts';
import type { StreamEvents } from '../src/devices/network/sockets.ts';
import { NodeSockets } from '../src/node/sockets.ts';

const LOOPBACK = ipv4Address('127.0.0.1');

/** Events of a stream as words, in order. */
function recorder(): { events: StreamEvents; words: string[]; until(word: string): Promise<void> } {
  const words: string[] = [];
  let changed: () => void = () => {};
  const note = (word: string) => (): void => {
    words.push(word);
    changed();
  };
  return {
    words,
    events: {
      connected: note('connected'),
      received: (bytes) => note(Buffer.from(bytes).toString())(),
      drained: note('drained'),
      ended: note('ended'),
      failed: note('failed'),
    },
    async until(word) {
      while (!words.includes(word)) {
        await new Promise<void>((resolve) => {
          changed = resolve;
        });
      }
    },
  };
}

it('streams connect, carry bytes both ways, and end each direction by itself', async () => {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('data', (bytes) => socket.write(bytes.toString().toUpperCase()));
    socket.on('end', () => socket.end('bye'));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const record = recorder();
  const stream = new NodeSockets().connect(
    { address: LOOPBACK, port: (server.address() as AddressInfo).port },
    record.events,
  );
  await record.until('connected');
  stream.write(Buffer.from('hello'));
  await record.until('HELLO');
  stream.end();
  await record.until('ended');
  expect(record.words).toEqual(['connected', 'HELLO', 'bye', 'ended']);
  server.close();
});

it('streams tell when nobody listens', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  const record = recorder();
  new NodeSockets().connect({ address: LOOPBACK, port }, record.events);
  await record.until('failed');
  expect(record.words).toEqual(['failed']);
});

it('datagrams go out and answers come back', async () => {
  const server = createSocket('udp4', (data, from) => server.send(data.reverse(), from.port, from.address));
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const answer = await new Promise<readonly unknown[]>((resolve) => {
    const socket = new NodeSockets().openDatagram((from, data) => {
      socket.close();
      resolve([from, [...data]]);
    });
    socket.send({ address: LOOPBACK, port }, Uint8Array.of(1, 2, 3));
  });
  expect(answer).toEqual([{ address: LOOPBACK, port }, [3, 2, 1]]);
  server.close();
});
