import { expect, it } from 'vitest';
import { EntropyDevice } from '../src/devices/virtio/entropy.ts';
import { VirtioDriver } from './virtio-driver.ts';

function started(): VirtioDriver {
  let word = 0;
  const device = new EntropyDevice((out) => {
    for (let index = 0; index < out.length; index++) out[index] = ++word * 0x0101_0101;
  });
  const driver = new VirtioDriver(device);
  driver.start();
  return driver;
}

it('an entropy device fills what it is offered from its source', async () => {
  const used = await started().request(0, new Uint8Array(0), 10);
  expect(used.written).toBe(10);
  expect([...used.data]).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
});

it('an entropy device gives at most a page at a time', async () => {
  const used = await started().request(0, new Uint8Array(0), 6000);
  expect(used.written).toBe(4096);
  expect(used.data.subarray(4096)).toEqual(new Uint8Array(6000 - 4096));
});

it('an entropy device never gives the same bytes twice, wherever it had to wait for a page', () => {
  const driver = started();
  const request = driver.offer(0, new Uint8Array(0), 4000, { cuts: [100] });
  driver.evict(17, 18);
  driver.notify(0);
  driver.settle();
  const [used] = driver.collect(0);
  expect(used?.request).toBe(request);
  const words = new Uint32Array(used!.data.buffer, 0, 1000);
  expect(new Set(words).size).toBe(words.length);
});
