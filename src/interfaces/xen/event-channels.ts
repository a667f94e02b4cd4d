import type { Archive, Archived } from '../../archive/archive.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import { DOMID_SELF, domainMeant } from './domain-id.ts';
import { Errno } from './errno.ts';
import { type SharedInfo, VcpuInfo } from './shared-info.ts';

/** Values are those that EVTCHNOP_status reports. */
export const enum PortKind {
  closed = 0,
  unbound = 1,
  interdomain = 2,
  virq = 4,
  ipi = 5,
}

/** Virtual interrupt numbers (xen/include/public/xen.h). */
export const enum Virq {
  timer = 0,
  debug = 1,
  console = 2,
  xenoprof = 7,
  xenpmu = 13,
  limit = 24,
}

/** Bit n: VIRQ n is bound by each virtual processor for itself. All others are global and belong to the host. */
const PER_VCPU_VIRQS = (1 << Virq.timer) | (1 << Virq.debug) | (1 << Virq.xenoprof) | (1 << Virq.xenpmu);

/** SCHEDOP_poll takes at most this many ports. */
export const POLL_PORTS_LIMIT = 128;

/** Lets a virtual processor run: it has become ready, or it should look at its events soon. */
export interface VcpuWaker {
  wake(vcpu: number): void;
}

/** The host's end of interdomain ports: a console, XenStore, a block or network back end. */
export interface EventService {
  /** The guest sent an event on its port. May raise ports. */
  notify(port: number): void;
  /** The guest closed its port. */
  closed?(port: number): void;
}

/** What EVTCHNOP_status reports. `domain`, `remotePort` and `virq` count only for the kinds that have them. */
export interface PortStatus {
  readonly kind: PortKind;
  readonly vcpu: number;
  /** unbound: who may bind; interdomain: the other end's domain. */
  readonly domain: number;
  readonly remotePort: number;
  readonly virq: number;
}

/**
 * The event channels of one domain, 2-level ABI (public/event_channel.h).
 *
 * What the guest sees lies in its shared_info page and vcpu_info structures; what the host knows of a port lies in the
 * typed arrays below. Calls that a guest makes return 0 or a port number, or a negated errno. Host services are
 * objects, so they stand in a registry of their own and the ports hold their numbers.
 */
export class EventChannels implements Archived {
  readonly domain: number;
  readonly vcpus: number;
  readonly ports: number;

  /** PortKind of each port. */
  readonly kind: Uint8Array;
  /** The virtual processor that a port's events go to. */
  readonly target: Uint16Array;
  /** unbound: the domain that may bind; interdomain: the other end's domain. */
  readonly peerDomain: Uint16Array;
  /** interdomain: the guest's own other port, or the number of the host's service; virq: its number. */
  readonly peer: Uint32Array;
  /** Port of each (vcpu, virq), 0 for none. */
  readonly virqPorts: Uint16Array;
  /** Ports that a virtual processor sleeps on in SCHEDOP_poll; null when it does not poll. */
  pollPorts: (readonly number[] | null)[];
  /** System time in nanoseconds when a poll gives up. */
  readonly pollDeadlines: Float64Array;

  readonly #shared: SharedInfo;
  readonly #memory: HostMemory;
  readonly #waker: VcpuWaker;
  readonly #services = new Map<number, EventService>();
  #polling = 0;

  constructor(domain: number, shared: SharedInfo, waker: VcpuWaker) {
    this.domain = domain;
    this.#shared = shared;
    this.#memory = shared.memory;
    this.#waker = waker;
    this.vcpus = shared.vcpus;
    this.ports = shared.layout.ports;
    this.kind = new Uint8Array(this.ports);
    this.target = new Uint16Array(this.ports);
    this.peerDomain = new Uint16Array(this.ports);
    this.peer = new Uint32Array(this.ports);
    this.virqPorts = new Uint16Array(this.vcpus * Virq.limit);
    this.pollPorts = new Array<readonly number[] | null>(this.vcpus).fill(null);
    this.pollDeadlines = new Float64Array(this.vcpus).fill(Number.POSITIVE_INFINITY);
  }

  archive(archive: Archive): void {
    archive.words('kind', this.kind);
    archive.words('target', this.target);
    archive.words('peerDomain', this.peerDomain);
    archive.words('peer', this.peer);
    archive.words('virqPorts', this.virqPorts);
    this.pollPorts = archive.value('pollPorts', this.pollPorts);
    archive.words('pollDeadlines', this.pollDeadlines);
    this.#polling = archive.value('polling', this.#polling);
  }

  // The host's side

  /** A service keeps its number over a snapshot and is registered again after a restore. */
  registerService(id: number, service: EventService): void {
    this.#services.set(id, service);
  }

  /** Opens a guest port whose other end is a service, as the domain builder does. Returns the port or −ENOSPC. */
  openService(id: number, remoteDomain = 0): number {
    const port = this.#allocate(PortKind.interdomain, 0);
    if (port < 0) return port;
    this.peerDomain[port] = remoteDomain;
    this.peer[port] = id;
    return port;
  }

  /**
   * A back end binds to a port that the guest has allocated for its domain.
   * @returns 0, or −EINVAL when the port is not unbound or waits for another domain
   */
  bindService(port: number, id: number, remoteDomain = 0): number {
    if (!this.#isPort(port) || this.kind[port] !== PortKind.unbound) return -Errno.EINVAL;
    if (this.peerDomain[port] !== remoteDomain) return -Errno.EINVAL;
    this.kind[port] = PortKind.interdomain;
    this.peer[port] = id;
    return 0;
  }

  /** A back end leaves: the guest's port is unbound again. */
  unbindService(port: number): void {
    if (!this.#isService(port)) return;
    this.kind[port] = PortKind.unbound;
    this.peer[port] = 0;
  }

  /**
   * Marks an event pending and tells the guest, in this order: pending bit, mask, selector bit of the port's
   * virtual processor, upcall_pending, wake; then whoever polls the port. Nothing happens on a closed port.
   */
  raise(port: number): void {
    if (!this.#isPort(port) || this.kind[port] === PortKind.closed) return;
    const page = this.#shared.address();
    if (page < 0) return;
    const { u8 } = this.#memory;
    const { pending, mask } = this.#shared.layout;
    const byte = port >> 3;
    const bit = 1 << (port & 7);
    if (u8[page + pending + byte]! & bit) return;
    this.#shared.pages.storeByte(page + pending + byte, u8[page + pending + byte]! | bit);
    if (!(u8[page + mask + byte]! & bit)) this.#select(port);
    if (this.#polling > 0) this.#wakePollers(port);
  }

  /** Raises a virtual interrupt of one virtual processor; nothing happens when it is not bound. */
  raiseVirq(vcpu: number, virq: Virq): void {
    const port = this.virqPorts[vcpu * Virq.limit + virq] ?? 0;
    if (port !== 0) this.raise(port);
  }

  /** Whether an upcall must be delivered before the virtual processor's next instruction. */
  deliverable(vcpu: number): boolean {
    const info = this.#shared.vcpuInfo(vcpu);
    if (info < 0) return false;
    const { u8 } = this.#memory;
    return u8[info + VcpuInfo.upcallPending] !== 0 && u8[info + VcpuInfo.upcallMask] === 0;
  }

  // event_channel_op

  /** EVTCHNOP_bind_interdomain: only a port of the guest itself can be the other end. */
  bindInterdomain(remoteDomain: number, remotePort: number): number {
    const meant = domainMeant(remoteDomain, this.domain);
    if (meant === 'unknown') return -Errno.ESRCH;
    if (meant === 'host' || !this.#isPort(remotePort)) return -Errno.EINVAL;
    if (this.kind[remotePort] !== PortKind.unbound || this.peerDomain[remotePort] !== this.domain) {
      return -Errno.EINVAL;
    }
    const port = this.#allocate(PortKind.interdomain, 0);
    if (port < 0) return port;
    this.peerDomain[port] = this.domain;
    this.peer[port] = remotePort;
    this.kind[remotePort] = PortKind.interdomain;
    this.peer[remotePort] = port;
    // The other end may have sent before anyone was there to hear.
    this.raise(port);
    return port;
  }

  bindVirq(virq: number, vcpu: number): number {
    if (virq >= Virq.limit) return -Errno.EINVAL;
    if (!((PER_VCPU_VIRQS >> virq) & 1)) return vcpu === 0 ? -Errno.EBUSY : -Errno.EINVAL;
    if (!this.#isVcpu(vcpu)) return -Errno.ENOENT;
    const slot = vcpu * Virq.limit + virq;
    if (this.virqPorts[slot] !== 0) return -Errno.EEXIST;
    const port = this.#allocate(PortKind.virq, vcpu);
    if (port < 0) return port;
    this.peer[port] = virq;
    this.virqPorts[slot] = port;
    return port;
  }

  bindIpi(vcpu: number): number {
    return this.#isVcpu(vcpu) ? this.#allocate(PortKind.ipi, vcpu) : -Errno.ENOENT;
  }

  allocUnbound(domain: number, remoteDomain: number): number {
    const meant = domainMeant(domain, this.domain);
    if (meant !== 'self') return meant === 'host' ? -Errno.EPERM : -Errno.ESRCH;
    const port = this.#allocate(PortKind.unbound, 0);
    if (port < 0) return port;
    this.peerDomain[port] = remoteDomain === DOMID_SELF ? this.domain : remoteDomain;
    return port;
  }

  close(port: number): number {
    if (!this.#isPort(port) || this.kind[port] === PortKind.closed) return -Errno.EINVAL;
    const kind = this.kind[port];
    const peer = this.peer[port]!;
    const service = this.#isService(port) ? this.#services.get(peer) : undefined;
    if (kind === PortKind.virq) this.virqPorts[this.target[port]! * Virq.limit + peer] = 0;
    if (kind === PortKind.interdomain && !this.#isService(port)) {
      this.kind[peer] = PortKind.unbound;
      this.peer[peer] = 0;
    }
    this.kind[port] = PortKind.closed;
    this.target[port] = 0;
    this.peerDomain[port] = 0;
    this.peer[port] = 0;
    // An event left pending would fire at once for whoever gets the port next.
    const page = this.#shared.address();
    if (page >= 0) {
      const byte = page + this.#shared.layout.pending + (port >> 3);
      this.#shared.pages.storeByte(byte, this.#memory.u8[byte]! & ~(1 << (port & 7)));
    }
    service?.closed?.(port);
    return 0;
  }

  send(port: number): number {
    if (!this.#isPort(port)) return -Errno.EINVAL;
    switch (this.kind[port]) {
      case PortKind.interdomain:
        if (this.peerDomain[port] === this.domain) this.raise(this.peer[port]!);
        else this.#services.get(this.peer[port]!)?.notify(port);
        return 0;
      case PortKind.ipi:
        this.raise(port);
        return 0;
      case PortKind.unbound:
        return 0;
      default:
        return -Errno.EINVAL;
    }
  }

  /** @returns the port's status (a closed one included) or a negated errno */
  status(domain: number, port: number): PortStatus | number {
    const meant = domainMeant(domain, this.domain);
    if (meant !== 'self') return meant === 'host' ? -Errno.EPERM : -Errno.ESRCH;
    if (!this.#isPort(port)) return -Errno.EINVAL;
    const kind = this.kind[port] as PortKind;
    const peer = this.peer[port]!;
    return {
      kind,
      vcpu: this.target[port]!,
      domain: this.peerDomain[port]!,
      remotePort: kind === PortKind.interdomain ? peer : 0,
      virq: kind === PortKind.virq ? peer : 0,
    };
  }

  /** EVTCHNOP_bind_vcpu: events that are already pending stay where they were announced. */
  bindVcpu(port: number, vcpu: number): number {
    if (!this.#isVcpu(vcpu)) return -Errno.ENOENT;
    if (!this.#isPort(port)) return -Errno.EINVAL;
    const kind = this.kind[port];
    if (kind !== PortKind.unbound && kind !== PortKind.interdomain) return -Errno.EINVAL;
    this.target[port] = vcpu;
    return 0;
  }

  unmask(port: number): number {
    if (!this.#isPort(port)) return -Errno.EINVAL;
    const page = this.#shared.address();
    if (page < 0) return 0;
    const { u8 } = this.#memory;
    const { pending, mask } = this.#shared.layout;
    const byte = port >> 3;
    const bit = 1 << (port & 7);
    if (!(u8[page + mask + byte]! & bit)) return 0;
    this.#shared.pages.storeByte(page + mask + byte, u8[page + mask + byte]! & ~bit);
    if (u8[page + pending + byte]! & bit) this.#select(port);
    return 0;
  }

  /** EVTCHNOP_reset: closes every port, those of console and XenStore included. */
  reset(domain: number): number {
    const meant = domainMeant(domain, this.domain);
    if (meant !== 'self') return meant === 'host' ? -Errno.EPERM : -Errno.ESRCH;
    for (let port = 1; port < this.ports; port++) if (this.kind[port] !== PortKind.closed) this.close(port);
    return 0;
  }

  /** FIFO queues are not offered: EVTCHNOP_init_control. Guests fall back to the 2-level ABI. */
  initControl(): number {
    return -Errno.ENOSYS;
  }

  // sched_op

  /**
   * SCHEDOP_block: clears the upcall mask.
   * @returns whether the virtual processor now sleeps; false when an event is pending already
   */
  block(vcpu: number): boolean {
    const info = this.#shared.vcpuInfo(vcpu);
    if (info < 0) return true;
    this.#shared.pages.storeByte(info + VcpuInfo.upcallMask, 0);
    return this.#memory.u8[info + VcpuInfo.upcallPending] === 0;
  }

  /**
   * SCHEDOP_poll: sleeps until one of the ports is pending, an upcall is announced or the deadline has passed; leaves
   * the upcall mask alone. Afterwards `isPolling` says whether the virtual processor sleeps.
   * @param deadline system time in nanoseconds, 0 for none
   * @returns 0 or −EINVAL
   */
  poll(vcpu: number, ports: readonly number[], deadline: number): number {
    if (ports.length > POLL_PORTS_LIMIT) return -Errno.EINVAL;
    for (const port of ports) if (!this.#isPort(port)) return -Errno.EINVAL;
    if (this.deliverable(vcpu)) return 0;
    for (const port of ports) if (this.isPending(port)) return 0;
    this.endPoll(vcpu);
    this.pollPorts[vcpu] = [...ports];
    this.pollDeadlines[vcpu] = deadline === 0 ? Number.POSITIVE_INFINITY : deadline;
    this.#polling++;
    return 0;
  }

  isPolling(vcpu: number): boolean {
    return this.pollPorts[vcpu] != null;
  }

  /** The virtual processor polls no longer; harmless when it did not. */
  endPoll(vcpu: number): void {
    if (this.pollPorts[vcpu] == null) return;
    this.pollPorts[vcpu] = null;
    this.pollDeadlines[vcpu] = Number.POSITIVE_INFINITY;
    this.#polling--;
  }

  isPending(port: number): boolean {
    const page = this.#shared.address();
    if (page < 0 || !this.#isPort(port)) return false;
    return (this.#memory.u8[page + this.#shared.layout.pending + (port >> 3)]! & (1 << (port & 7))) !== 0;
  }

  /** A port number may come from the guest: any unsigned 32-bit number. Port 0 is never valid. */
  #isPort(port: number): boolean {
    return port > 0 && port < this.ports;
  }

  #isVcpu(vcpu: number): boolean {
    return vcpu >= 0 && vcpu < this.vcpus;
  }

  #isService(port: number): boolean {
    return this.kind[port] === PortKind.interdomain && this.peerDomain[port] !== this.domain;
  }

  #allocate(kind: PortKind, vcpu: number): number {
    const port = this.kind.indexOf(PortKind.closed, 1);
    if (port < 0) return -Errno.ENOSPC;
    this.kind[port] = kind;
    this.target[port] = vcpu;
    return port;
  }

  /** The rest of what `raise` does for an event that is not masked: selector bit, upcall_pending, wake. */
  #select(port: number): void {
    const vcpu = this.target[port]!;
    const info = this.#shared.vcpuInfo(vcpu);
    if (info < 0) return;
    const { u8 } = this.#memory;
    const { selector, wordShift } = this.#shared.layout;
    const word = port >> wordShift;
    const byte = info + selector + (word >> 3);
    const bit = 1 << (word & 7);
    if (u8[byte]! & bit) return;
    this.#shared.pages.storeByte(byte, u8[byte]! | bit);
    if (u8[info + VcpuInfo.upcallPending] !== 0) return;
    this.#shared.pages.storeByte(info + VcpuInfo.upcallPending, 1);
    this.endPoll(vcpu);
    this.#waker.wake(vcpu);
  }

  #wakePollers(port: number): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      if (!this.pollPorts[vcpu]?.includes(port)) continue;
      this.endPoll(vcpu);
      this.#waker.wake(vcpu);
    }
  }
}
