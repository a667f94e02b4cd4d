import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initramfs, kernelModules } from '../../guests/recipes.ts';
import { createHost, EthernetSwitch, Gateway, type VirtualMachine } from '../../src/index.ts';
import { debianKernel, hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';
import { outputOf } from './output.ts';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** An address of this machine that is not only its own: guests do not reach loopback. */
const address = Object.values(networkInterfaces())
  .flatMap((interfaces) => interfaces ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

describe.skipIf(!hasPackageArchive || address === undefined)('the network of a guest', () => {
  let guest: GuestConsole;

  beforeAll(async () => {
    guest = await GuestConsole.boot('--interface', 'kvm', '--network', '--append', 'quiet');
  }, 240_000);

  afterAll(() => guest?.kill());

  it('gives it an address, and a gateway that answers', async () => {
    expect(await guest.command('ip addr show eth0')).toMatch(/inet 10\.0\.2\.15\/24/);
    expect(await guest.command('cat /etc/resolv.conf')).toBe('nameserver 10.0.2.3');
    expect(await guest.command('ping -c 3 -q 10.0.2.2')).toContain('3 packets received, 0% packet loss');
  });

  it('lets it fetch a file', async () => {
    const file = Uint8Array.from({ length: 4_000_000 }, (_, index) => (index * index) >> 8);
    const server = createServer((_, response) => response.end(file)).listen(0, address);
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const sum = await guest.command(`wget -q -O - http://${address}:${port}/file | sha256sum`, 120);
    server.close();
    expect(sum).toBe(`${sha256(file)}  -`);
  });

  it('lets it send a file', async () => {
    const chunks: Buffer[] = [];
    const server = createTcpServer((socket) => socket.on('data', (bytes: Buffer) => chunks.push(bytes))).listen(
      0,
      address,
    );
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await guest.command('head -c 3000000 /dev/urandom > /tmp/file');
    const sum = await guest.command(`nc ${address} ${port} < /tmp/file; sha256sum < /tmp/file`, 120);
    server.close();
    expect(`${sha256(Buffer.concat(chunks))}  -`).toBe(sum);
  });

  it('refuses what nobody offers, and the services that only this machine may use', async () => {
    const server = createTcpServer((socket) => socket.end('secret')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    expect(await guest.command(`nc -w 5 10.0.2.2 ${port}; echo $?`)).toMatch(/refused[\s\S]*1$/);
    server.close();
  });

  it('keeps its address over a reboot, and has nothing to complain about', async () => {
    guest.send('reboot -f');
    await guest.waitForShell();
    expect(await guest.command('ip addr show eth0')).toMatch(/inet 10\.0\.2\.15\/24/);
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
  }, 240_000);
});

describe.skipIf(!hasPackageArchive)('two guests at one switch', () => {
  it('reach each other', async () => {
    const memory = 128 << 20;
    const host = await createHost({ memory: 2 * memory });
    const network = new EthernetSwitch();
    const gateway = new Gateway(network);
    const kernel = await debianKernel('cloud-amd64');
    const initrd = await initramfs({ modules: await kernelModules('cloud-amd64') });
    const boot = (run: string): Promise<VirtualMachine> => {
      const commandLine = `console=ttyS0 quiet ring1.run="${run}"`;
      return host.boot({ kernel, initrd, commandLine, memory, vcpus: 1, interface: 'native', adapters: [{ network }] });
    };
    const server = await boot('ip addr show eth0; echo hello from the other side | nc -l -p 7');
    // Who asks first gets the first address.
    const ask = 'nc 10.0.2.15 7 || nc 10.0.2.16 7';
    const client = await boot(`for i in $(seq 100); do { ${ask}; } && break; sleep 1; done; ip addr show eth0`);
    const texts = await Promise.all([outputOf(server), outputOf(client)]);
    await host.close();
    gateway.close();
    const places = texts.map((text) => /inet (10\.0\.2\.\d+)/.exec(text)?.[1]);
    expect(places.toSorted()).toEqual(['10.0.2.15', '10.0.2.16']);
    expect(texts.join('').match(/hello from the other side/g)).toHaveLength(1);
  }, 480_000);
});
