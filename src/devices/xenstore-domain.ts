import type { Xenstore } from './xenstore.ts';
import { homeOf, type Permission, PRIVILEGED_DOMAIN, StoreAccess } from './xenstore-node.ts';

/** One shared page and its event channel. */
export interface RingPlace {
  readonly port: number;
  readonly mfn: number;
}

export interface DomainTreeOptions {
  /** Greater than 0. */
  readonly domain: number;
  readonly name: string;
  readonly uuid: string;
  readonly memoryKiB: number;
  readonly vcpus: number;
  readonly store: RingPlace;
  readonly console: RingPlace;
  /** Shown to whoever looks; nothing reads them. */
  readonly kernel: string;
  readonly ramdisk?: string;
  readonly commandLine: string;
  /** Unix time in seconds; hundredths are kept. */
  readonly startTime: number;
  readonly terminal?: string;
}

/** A table of nodes: path below a base, value, and permissions where they differ from the parent's. */
type Nodes = readonly (readonly [path: string, value: string, permissions?: readonly Permission[]])[];

const HOST_ONLY: readonly Permission[] = [{ domain: PRIVILEGED_DOMAIN, access: StoreAccess.none }];

function writeNodes(store: Xenstore, base: string, nodes: Nodes): void {
  for (const [path, value, permissions] of nodes) store.write(base + path, value, permissions);
}

/** What a host has before its first domain. The shape is that of xenstored under Xen 4.17. */
export function createHostTree(store: Xenstore): void {
  writeNodes(store, '', [
    ['/tool', '', HOST_ONLY],
    ['/tool/xenstored', ''],
    ['/local/domain/0/control/feature-poweroff', '1'],
    ['/local/domain/0/control/feature-reboot', '1'],
    ['/local/domain/0/control/feature-suspend', '1'],
    ['/local/domain/0/domid', '0'],
    ['/local/domain/0/name', 'Domain-0'],
    ['/local/domain/0/backend', ''],
    ['/local/pool/0/name', 'Pool-0'],
    ['/vm', ''],
    ['/libxl', ''],
  ]);
}

/** The nodes of a new domain, with the permissions that its kernel's drivers count on. */
export function createDomainTree(store: Xenstore, options: DomainTreeOptions): void {
  const { domain } = options;
  const home = homeOf(domain);
  const machine = `/vm/${options.uuid}`;
  const consoleBackend = `/local/domain/0/backend/console/${domain}/0`;
  /** The guest may look. */
  const shown: readonly Permission[] = [
    { domain: PRIVILEGED_DOMAIN, access: StoreAccess.none },
    { domain, access: StoreAccess.read },
  ];
  /** The guest may do as it likes. */
  const given: readonly Permission[] = [{ domain, access: StoreAccess.none }];

  writeNodes(store, home, [
    ['', '', shown],
    ['/vm', machine],
    ['/name', options.name],
    ['/cpu', ''],
  ]);
  for (let vcpu = 0; vcpu < options.vcpus; vcpu++) store.write(`${home}/cpu/${vcpu}/availability`, 'online');
  writeNodes(store, home, [
    ['/memory/static-max', String(options.memoryKiB)],
    ['/memory/target', String(options.memoryKiB)],
    ['/memory/videoram', '0'],
    ['/device/suspend/event-channel', '', given],
    ['/control/shutdown', '', given],
    ['/control/feature-poweroff', '', given],
    ['/control/feature-reboot', '', given],
    ['/control/feature-suspend', '', given],
    ['/control/sysrq', '', given],
    ['/control/platform-feature-multiprocessor-suspend', '1'],
    ['/control/platform-feature-xs_reset_watches', '1'],
    ['/data', '', given],
    ['/drivers', '', given],
    ['/feature', '', given],
    ['/attr', '', given],
    ['/error', '', given],
    ['/domid', String(domain)],
    ['/store/port', String(options.store.port)],
    ['/store/ring-ref', String(options.store.mfn)],
    ['/console/backend', consoleBackend],
    [
      '/console/backend-id',
      '0',
      [
        { domain, access: StoreAccess.none },
        { domain: PRIVILEGED_DOMAIN, access: StoreAccess.read },
      ],
    ],
    ['/console/limit', '1048576'],
    ['/console/type', 'xenconsoled'],
    ['/console/output', 'pty'],
    ['/console/tty', options.terminal ?? ''],
    ['/console/port', String(options.console.port)],
    ['/console/ring-ref', String(options.console.mfn)],
  ]);
  writeNodes(store, consoleBackend, [
    ['', '', shown],
    ['/frontend', `${home}/console`],
    ['/frontend-id', String(domain)],
    ['/online', '1'],
    ['/state', '1'],
    ['/protocol', 'vt100'],
  ]);
  writeNodes(store, machine, [
    ['', '', shown],
    ['/name', options.name],
    ['/uuid', options.uuid],
    ['/image/ostype', 'linux'],
    ['/image/kernel', options.kernel],
    ...(options.ramdisk === undefined ? [] : ([['/image/ramdisk', options.ramdisk]] as const)),
    ['/image/cmdline', options.commandLine],
    ['/start_time', options.startTime.toFixed(2)],
  ]);
  writeNodes(store, `/libxl/${domain}`, [
    ['/device/console/0/frontend', `${home}/console`],
    ['/device/console/0/backend', consoleBackend],
    ['/device/console/0/frontend-id', String(domain)],
    ['/device/console/0/online', '1'],
    ['/device/console/0/state', '1'],
    ['/device/console/0/protocol', 'vt100'],
    ['/type', 'pv'],
    ['/dm-version', 'qemu_xen'],
  ]);
}

/** Removes what `createDomainTree` made, and what the guest added to it. */
export function removeDomainTree(store: Xenstore, domain: number): void {
  const machine = store.read(`${homeOf(domain)}/vm`);
  store.remove(homeOf(domain));
  // The node is shown to the guest, not writable by it; still, only a path of the right shape is removed.
  if (machine !== undefined && /^\/vm\/[-0-9a-f]+$/.test(machine)) store.remove(machine);
  for (const kind of store.list('/local/domain/0/backend')) store.remove(`/local/domain/0/backend/${kind}/${domain}`);
  store.remove(`/libxl/${domain}`);
}
