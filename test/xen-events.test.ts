import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EventChannels, PortKind, Virq } from '../src/interfaces/xen/event-channels.ts';
import { SHARED_INFO_32, SHARED_INFO_64, SharedInfo } from '../src/interfaces/xen/shared-info.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { TestMachine } from './xen-events-machine.ts';

const DOMAIN = 7;
const SELF = 0x7ff0;
const EPERM = -1;
const ENOENT = -2;
const ESRCH = -3;
const EBUSY = -16;
const EEXIST = -17;
const EINVAL = -22;
const ENOSPC = -28;
const ENOSYS = -38;

let machine: TestMachine;
let page: Mfn;
let shared: SharedInfo;
let events: EventChannels;
let woken: number[];

function build(layout = SHARED_INFO_64, vcpus = 3): void {
  machine = new TestMachine();
  page = machine.page();
  woken = [];
  shared = new SharedInfo(machine.shared, page, layout, vcpus);
  events = new EventChannels(DOMAIN, shared, { wake: (vcpu) => woken.push(vcpu) });
}

beforeEach(() => build());
/** What the host stores to a page that may hold a table or code, somebody must be shown. */
afterEach(() => expect(machine.untold()).toEqual([]));

const pending = (port: number) => (machine.u8(page, 0x800 + (port >> 3)) >> (port & 7)) & 1;
const setMask = (port: number) => {
  const at = shared.layout.mask + (port >> 3);
  machine.setU8(page, at, machine.u8(page, at) | (1 << (port & 7)));
};
const upcallPending = (vcpu: number) => machine.u8(page, vcpu * 64);
const setUpcallMask = (vcpu: number, value: number) => machine.setU8(page, vcpu * 64 + 1, value);

describe('shared_info', () => {
  it('starts with the upcalls of all 32 legacy places masked and nothing else set', () => {
    const bytes = machine.bytes(page, 0, 4096);
    for (let at = 0; at < 4096; at++) expect(bytes[at]).toBe(at < 0x800 && at % 64 === 1 ? 1 : 0);
  });

  it('moves vcpu_info with its content and marks everything pending', () => {
    const own = machine.page();
    machine.setU32(page, 64 + 0x20, 0x1234_5678);

    expect(shared.registerVcpuInfo(1, own, 0x340)).toBe(0);

    expect(machine.u32(own, 0x340 + 0x20)).toBe(0x1234_5678);
    expect(machine.u8(own, 0x340)).toBe(1);
    expect(machine.u8(own, 0x341)).toBe(1);
    expect(machine.bytes(own, 0x348, 8)).toEqual(new Uint8Array(8).fill(0xff));
    const port = events.bindIpi(1);
    machine.setU8(own, 0x340, 0);
    machine.setBytes(own, 0x348, new Uint8Array(8));
    events.send(port);
    expect(machine.u8(own, 0x340)).toBe(1);
    expect(machine.u8(own, 0x348)).toBe(1);
    expect(upcallPending(1)).toBe(0);
  });

  it('refuses a second registration, an offset without room and a number that names no page', () => {
    const own = machine.page();
    expect(shared.registerVcpuInfo(0, own, 4096 - 63)).toBe(EINVAL);
    expect(shared.registerVcpuInfo(0, 0x1fff as Mfn, 0)).toBe(EINVAL);
    expect(shared.registerVcpuInfo(0, (2 ** 52) as Mfn, 0)).toBe(EINVAL);
    expect(shared.registerVcpuInfo(0, own, 4096 - 64)).toBe(0);
    expect(shared.registerVcpuInfo(0, own, 0)).toBe(EINVAL);
  });

  it('gives virtual processors beyond the legacy places none until they register', () => {
    build(SHARED_INFO_64, 34);
    const port = events.bindIpi(33);
    events.send(port);
    expect(pending(port)).toBe(1);
    expect(shared.registerVcpuInfo(33, machine.page(), 0)).toBe(0);
    expect(shared.vcpuInfo(33)).toBeGreaterThan(0);
  });
});

describe('raising a port', () => {
  it('sets pending, selector and upcall_pending and wakes the target', () => {
    const port = events.bindIpi(2);
    events.send(port);
    expect(pending(port)).toBe(1);
    expect(machine.u8(page, 2 * 64 + 8)).toBe(1);
    expect(upcallPending(2)).toBe(1);
    expect(woken).toEqual([2]);
  });

  it('of a pending port does nothing', () => {
    const port = events.bindIpi(0);
    events.send(port);
    machine.setU8(page, 0, 0);
    machine.setU8(page, 8, 0);
    events.send(port);
    expect(upcallPending(0)).toBe(0);
    expect(machine.u8(page, 8)).toBe(0);
  });

  it('of a masked port sets the pending bit only', () => {
    const port = events.bindIpi(0);
    setMask(port);
    events.raise(port);
    expect(pending(port)).toBe(1);
    expect(machine.u8(page, 8)).toBe(0);
    expect(woken).toEqual([]);
  });

  it('wakes once for several ports', () => {
    events.raise(events.bindIpi(0));
    events.raise(events.bindIpi(0));
    expect(woken).toEqual([0]);
  });

  it('of a closed port or of none does nothing', () => {
    for (const port of [0, 5, 4095, 4096, 0xffff_ffff]) events.raise(port);
    expect(machine.bytes(page, 0x800, 0x200)).toEqual(new Uint8Array(0x200));
  });

  it('selects 32-bit words for a 32-bit guest', () => {
    build(SHARED_INFO_32);
    for (let port = 1; port < 35; port++) events.bindIpi(1);
    events.raise(34);
    expect(machine.u8(page, 64 + 4)).toBe(2);
    expect(upcallPending(1)).toBe(1);
  });

  it('survives a vcpu_info whose page has gone', () => {
    const own = machine.page();
    shared.registerVcpuInfo(0, own, 0);
    const port = events.bindIpi(0);
    machine.space.detach(own);
    events.raise(port);
    expect(pending(port)).toBe(1);
    expect(events.deliverable(0)).toBe(false);
  });

  it('makes an upcall deliverable only while the upcall mask is clear', () => {
    events.raise(events.bindIpi(0));
    expect(events.deliverable(0)).toBe(false);
    setUpcallMask(0, 0);
    expect(events.deliverable(0)).toBe(true);
  });
});

describe('services of the host', () => {
  it('hear what the guest sends on their ports', () => {
    const heard: number[] = [];
    events.registerService(3, { notify: (port) => heard.push(port) });
    const port = events.openService(3);
    expect(events.send(port)).toBe(0);
    expect(heard).toEqual([port]);
    expect(pending(port)).toBe(0);
    events.raise(port);
    expect(pending(port)).toBe(1);
  });

  it('bind to a port that was allocated for their domain, and leave it unbound', () => {
    const heard: number[] = [];
    events.registerService(3, { notify: (port) => heard.push(port) });
    const port = events.allocUnbound(SELF, 0);
    expect(events.send(port)).toBe(0);
    expect(events.bindService(port, 3)).toBe(0);
    expect(events.bindService(port, 3)).toBe(EINVAL);
    expect(events.send(port)).toBe(0);
    expect(heard).toEqual([port]);
    events.unbindService(port);
    expect(events.send(port)).toBe(0);
    expect(heard).toEqual([port]);
    expect(events.status(SELF, port)).toMatchObject({ kind: PortKind.unbound, domain: 0 });
  });

  it('do not get ports meant for another domain or ports that do not exist', () => {
    expect(events.bindService(events.allocUnbound(SELF, 5), 3)).toBe(EINVAL);
    expect(events.bindService(4096, 3)).toBe(EINVAL);
    expect(events.bindService(77, 3)).toBe(EINVAL);
  });

  it('are told when the guest closes the port', () => {
    const closed: number[] = [];
    events.registerService(3, { notify: () => {}, closed: (port) => closed.push(port) });
    const port = events.openService(3);
    expect(events.close(port)).toBe(0);
    expect(closed).toEqual([port]);
  });
});

describe('event_channel_op', () => {
  it('hands out the lowest free port, never port 0', () => {
    expect(events.openService(1)).toBe(1);
    expect(events.openService(2)).toBe(2);
    expect(events.bindVirq(Virq.timer, 0)).toBe(3);
    expect(events.close(2)).toBe(0);
    expect(events.bindIpi(0)).toBe(2);
    expect(events.bindIpi(0)).toBe(4);
  });

  it.each([
    ['64-bit', SHARED_INFO_64, 4096],
    ['32-bit', SHARED_INFO_32, 1024],
  ])('has as many ports as the %s ABI', (_name, layout, ports) => {
    build(layout);
    for (let port = 1; port < ports; port++) expect(events.bindIpi(0)).toBe(port);
    expect(events.bindIpi(0)).toBe(ENOSPC);
    expect(events.allocUnbound(SELF, 0)).toBe(ENOSPC);
    expect(events.bindVirq(Virq.timer, 0)).toBe(ENOSPC);
  });

  it('binds a virtual interrupt once for each virtual processor', () => {
    const port = events.bindVirq(Virq.timer, 1);
    expect(events.bindVirq(Virq.timer, 1)).toBe(EEXIST);
    expect(events.bindVirq(Virq.timer, 2)).toBeGreaterThan(0);
    events.raiseVirq(1, Virq.timer);
    expect(pending(port)).toBe(1);
    expect(upcallPending(1)).toBe(1);
    events.close(port);
    expect(pending(port)).toBe(0);
    events.raiseVirq(1, Virq.timer);
    expect(pending(port)).toBe(0);
    expect(events.bindVirq(Virq.timer, 1)).toBe(port);
  });

  it('refuses global, unknown and misplaced virtual interrupts', () => {
    expect(events.bindVirq(Virq.console, 0)).toBe(EBUSY);
    expect(events.bindVirq(Virq.console, 1)).toBe(EINVAL);
    expect(events.bindVirq(24, 0)).toBe(EINVAL);
    expect(events.bindVirq(0xffff_ffff, 0)).toBe(EINVAL);
    expect(events.bindVirq(Virq.debug, 3)).toBe(ENOENT);
    expect(events.bindIpi(3)).toBe(ENOENT);
    expect(events.bindIpi(0xffff_ffff)).toBe(ENOENT);
  });

  it('connects two ports of the guest', () => {
    const far = events.allocUnbound(SELF, SELF);
    const near = events.bindInterdomain(SELF, far);
    expect(pending(near)).toBe(1);
    expect(events.send(near)).toBe(0);
    expect(pending(far)).toBe(1);
    expect(events.status(DOMAIN, near)).toMatchObject({ kind: 2, domain: DOMAIN, remotePort: far });
    expect(events.close(near)).toBe(0);
    expect(events.status(SELF, far)).toMatchObject({ kind: 1, domain: DOMAIN });
    expect(events.bindInterdomain(SELF, far)).toBe(near);
  });

  it('refuses to bind to what is not waiting for the guest', () => {
    expect(events.bindInterdomain(9, 1)).toBe(ESRCH);
    expect(events.bindInterdomain(0, 1)).toBe(EINVAL);
    expect(events.bindInterdomain(SELF, 0)).toBe(EINVAL);
    expect(events.bindInterdomain(SELF, 4096)).toBe(EINVAL);
    expect(events.bindInterdomain(SELF, events.allocUnbound(SELF, 0))).toBe(EINVAL);
    expect(events.bindInterdomain(SELF, events.bindIpi(0))).toBe(EINVAL);
  });

  it('allocates for the guest itself only', () => {
    expect(events.allocUnbound(0, SELF)).toBe(EPERM);
    expect(events.allocUnbound(9, SELF)).toBe(ESRCH);
    expect(events.allocUnbound(DOMAIN, 0)).toBe(1);
  });

  it('refuses to close or send on what is no open port', () => {
    for (const port of [0, 1, 4096, 0xffff_ffff]) {
      expect(events.close(port)).toBe(EINVAL);
      expect(events.send(port)).toBe(EINVAL);
    }
    expect(events.send(events.bindVirq(Virq.timer, 0))).toBe(EINVAL);
  });

  it('reports each kind of port', () => {
    expect(events.status(SELF, 1)).toMatchObject({ kind: 0 });
    expect(events.status(SELF, events.bindVirq(Virq.debug, 2))).toMatchObject({ kind: 4, vcpu: 2, virq: 1 });
    expect(events.status(SELF, events.bindIpi(1))).toMatchObject({ kind: 5, vcpu: 1 });
    expect(events.status(SELF, events.openService(6))).toMatchObject({ kind: 2, domain: 0 });
    expect(events.status(SELF, 0)).toBe(EINVAL);
    expect(events.status(0, 1)).toBe(EPERM);
    expect(events.status(9, 1)).toBe(ESRCH);
  });

  it('moves ports that have no processor of their own', () => {
    const port = events.openService(1);
    expect(events.bindVcpu(port, 2)).toBe(0);
    events.raise(port);
    expect(woken).toEqual([2]);
    expect(events.bindVcpu(port, 3)).toBe(ENOENT);
    expect(events.bindVcpu(0, 1)).toBe(EINVAL);
    expect(events.bindVcpu(99, 1)).toBe(EINVAL);
    expect(events.bindVcpu(events.bindIpi(0), 1)).toBe(EINVAL);
    expect(events.bindVcpu(events.bindVirq(Virq.timer, 0), 1)).toBe(EINVAL);
  });

  it('unmask announces what became pending meanwhile', () => {
    const port = events.bindIpi(1);
    setMask(port);
    events.raise(port);
    expect(events.unmask(port)).toBe(0);
    expect(machine.u8(page, 0xa00)).toBe(0);
    expect(upcallPending(1)).toBe(1);
    expect(woken).toEqual([1]);
    expect(events.unmask(4096)).toBe(EINVAL);
    expect(events.unmask(0)).toBe(EINVAL);
  });

  it('reset closes every port', () => {
    events.bindVirq(Virq.timer, 0);
    events.openService(1);
    expect(events.reset(0)).toBe(EPERM);
    expect(events.reset(SELF)).toBe(0);
    expect([...events.kind].every((kind) => kind === 0)).toBe(true);
    expect(events.bindVirq(Virq.timer, 0)).toBe(1);
  });

  it('offers no FIFO queues', () => {
    expect(events.initControl()).toBe(ENOSYS);
  });
});

describe('sched_op', () => {
  it('block clears the mask and sleeps only when nothing is pending', () => {
    expect(events.block(0)).toBe(true);
    expect(machine.u8(page, 1)).toBe(0);
    events.raise(events.bindIpi(0));
    setUpcallMask(0, 1);
    expect(events.block(0)).toBe(false);
    expect(machine.u8(page, 1)).toBe(0);
  });

  it('poll sleeps until one of its ports is raised, masked or not', () => {
    const one = events.bindIpi(0);
    const other = events.bindIpi(0);
    setMask(other);
    expect(events.poll(1, [other], 0)).toBe(0);
    expect(events.isPolling(1)).toBe(true);
    setMask(one);
    events.raise(one);
    expect(woken).toEqual([]);
    events.raise(other);
    expect(woken).toEqual([1]);
    expect(events.isPolling(1)).toBe(false);
  });

  it('poll of a pending port does not sleep', () => {
    const port = events.bindIpi(0);
    setMask(port);
    events.raise(port);
    expect(events.poll(0, [port], 0)).toBe(0);
    expect(events.isPolling(0)).toBe(false);
  });

  it('an upcall ends a poll', () => {
    events.poll(0, [events.bindIpi(1)], 0);
    events.raise(events.bindIpi(0));
    expect(events.isPolling(0)).toBe(false);
    expect(woken).toEqual([0]);
  });

  it('poll refuses bad ports and too many of them', () => {
    expect(events.poll(0, [0], 0)).toBe(EINVAL);
    expect(events.poll(0, [4096], 0)).toBe(EINVAL);
    expect(events.poll(0, new Array<number>(129).fill(1), 0)).toBe(EINVAL);
    expect(events.poll(0, new Array<number>(128).fill(1), 0)).toBe(0);
  });
});

it('any sequence of calls agrees with a model of the ports', () => {
  const port = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.constantFrom(4095, 4096, 0xffff_ffff));
  const call = fc.oneof(
    fc.record({ op: fc.constant('ipi' as const), a: fc.integer({ min: 0, max: 4 }), b: fc.constant(0) }),
    fc.record({
      op: fc.constant('virq' as const),
      a: fc.integer({ min: 0, max: 25 }),
      b: fc.integer({ min: 0, max: 4 }),
    }),
    fc.record({ op: fc.constant('unbound' as const), a: fc.constantFrom(SELF, 0), b: fc.constant(0) }),
    fc.record({ op: fc.constant('join' as const), a: port, b: fc.constant(0) }),
    fc.record({ op: fc.constantFrom('close' as const, 'send' as const, 'raise' as const), a: port, b: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(call, { maxLength: 60 }), (calls) => {
      build();
      const open = new Map<number, { kind: string; peer: number; pending: boolean }>();
      const lowest = () => {
        let free = 1;
        while (open.has(free)) free++;
        return free;
      };
      const virqs = new Set<string>();
      for (const { op, a, b } of calls) {
        const own = open.get(a);
        if (op === 'ipi') {
          const expected = a < 3 ? lowest() : ENOENT;
          expect(events.bindIpi(a)).toBe(expected);
          if (expected > 0) open.set(expected, { kind: 'ipi', peer: 0, pending: false });
        } else if (op === 'virq') {
          const result = events.bindVirq(a, b);
          const possible = [0, 1, 7, 13].includes(a) && b < 3 && !virqs.has(`${a} ${b}`);
          expect(result > 0).toBe(possible);
          if (possible) {
            expect(result).toBe(lowest());
            virqs.add(`${a} ${b}`);
            open.set(result, { kind: `${a} ${b}`, peer: 0, pending: false });
          }
        } else if (op === 'unbound') {
          const expected = lowest();
          expect(events.allocUnbound(SELF, a)).toBe(expected);
          open.set(expected, { kind: a === SELF ? 'unbound' : 'host', peer: 0, pending: false });
        } else if (op === 'join') {
          const expected = own?.kind === 'unbound' ? lowest() : EINVAL;
          expect(events.bindInterdomain(SELF, a)).toBe(expected);
          if (own?.kind === 'unbound') {
            open.set(expected, { kind: 'joined', peer: a, pending: true });
            open.set(a, { ...own, kind: 'joined', peer: expected });
          }
        } else if (op === 'close') {
          expect(events.close(a)).toBe(own === undefined ? EINVAL : 0);
          if (own === undefined) continue;
          open.delete(a);
          virqs.delete(own.kind);
          const peer = own.kind === 'joined' ? open.get(own.peer) : undefined;
          if (peer !== undefined) peer.kind = 'unbound';
        } else if (op === 'send') {
          const sends = own !== undefined && !own.kind.includes(' ');
          expect(events.send(a)).toBe(sends ? 0 : EINVAL);
          if (own?.kind === 'ipi') own.pending = true;
          if (own?.kind === 'joined') open.get(own.peer)!.pending = true;
        } else {
          events.raise(a);
          if (own !== undefined) own.pending = true;
        }
        for (let at = 1; at < 16; at++) {
          expect(events.kind[at] !== PortKind.closed).toBe(open.has(at));
          expect(pending(at) === 1).toBe(open.get(at)?.pending ?? false);
        }
      }
    }),
  );
});
