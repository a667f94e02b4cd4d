import { describe, expect, it } from 'vitest';
import { createHost } from '../src/index.ts';
import { assemble, MEMORY, runKernel } from './kernel/program.ts';

describe.each(['native', 'kvm'] as const)('a machine on %s', (name) => {
  it('is off when no processor can ever run again', async () => {
    const { outcome } = await runKernel(assemble('halt.S'), name, 2);
    expect(outcome).toEqual({ kind: 'poweroff' });
  });

  it('leaves its host time while it faults for ever', async () => {
    const host = await createHost({ memory: MEMORY });
    const kernel = assemble('fault-loop.S');
    const machine = await host.boot({ kernel, commandLine: '', memory: MEMORY, vcpus: 1, interface: name });
    await new Promise((resolve) => setTimeout(resolve, 100));
    machine.stop();
    expect(await machine.done).toEqual({ kind: 'stopped' });
    host.close();
  });

  it('has its memory until those who wait for its end were told', async () => {
    const host = await createHost({ memory: MEMORY });
    const available = (): number => (host.statistics() as { frames: { available: number } }).frames.available;
    const kernel = assemble('fault-loop.S');
    const machine = await host.boot({ kernel, commandLine: '', memory: MEMORY, vcpus: 1, interface: name });
    const atEnd = machine.done.then(available);
    machine.stop();
    const left = await atEnd;
    await host.close();
    expect(left).toBeLessThan(available());
  });

  it('restarts when its reset register is written', async () => {
    const { outcome } = await runKernel(assemble('reset.S'), name, 1);
    expect(outcome).toEqual({ kind: 'reboot' });
  });

  it('crashes at a triple fault, where the first fault was', async () => {
    const { outcome } = await runKernel(assemble('triple-fault.S'), name, 1);
    expect(outcome).toMatchObject({ kind: 'crash', reason: expect.stringContaining('triple fault') });
    expect(outcome.kind === 'crash' && outcome.report).toMatch(/^RIP: 0000000000110007 fault\+0x0\n/);
  });
});
