import type { Variant } from './host.ts';

/** What hostile guests ask, and where that is carried out. */
export interface Target {
  readonly variants: readonly Variant[];
  /** Files, or folders of them, whose paths are to be reached. */
  readonly handlers: readonly string[];
  /** Those of other targets in which this one reaches more. */
  readonly shared?: readonly string[];
}

/** What hypercalls lead to, and entries and returns of kernels; not privileged instructions, which are emulated. */
const XEN_HANDLERS = [
  'src/interfaces/xen/hypercalls/',
  ...['entry-frame', 'event-channels', 'grant-table', 'kernel-entries', 'kernel-returns', 'runstate'].map(
    (name) => `src/interfaces/xen/${name}.ts`,
  ),
  ...['shared-info', 'timers'].map((name) => `src/interfaces/xen/${name}.ts`),
  ...['descriptor-pages', 'descriptor-tables', 'descriptors', 'direct-paging', 'entries', 'frame-types'].map(
    (name) => `src/paging/direct/${name}.ts`,
  ),
  ...['machine-to-physical', 'table-rules', 'validate'].map((name) => `src/paging/direct/${name}.ts`),
  'src/paging/translated/',
];

export const TARGETS = {
  'xen-64': {
    variants: [
      { interface: 'xen', paging: 'direct', image: 'x86-64', vcpus: 2 },
      { interface: 'xen', paging: 'shadow', image: 'x86-64', vcpus: 2 },
      { interface: 'xen', paging: 'translated', image: 'x86-64', vcpus: 2 },
    ],
    handlers: XEN_HANDLERS,
  },
  'xen-32': {
    variants: [
      { interface: 'xen', paging: 'direct', image: 'i386-pae', vcpus: 2 },
      { interface: 'xen', paging: 'shadow', image: 'i386-pae', vcpus: 2 },
      { interface: 'xen', paging: 'translated', image: 'i386-pae', vcpus: 2 },
    ],
    handlers: XEN_HANDLERS,
  },
  kvm: {
    variants: [
      { interface: 'kvm', paging: 'shadow', image: 'x86-64', vcpus: 1 },
      { interface: 'kvm', paging: 'nested', image: 'x86-64', vcpus: 2 },
      { interface: 'kvm', paging: 'shadow', image: 'i386', vcpus: 1 },
      { interface: 'kvm', paging: 'shadow', image: 'i386-pae', vcpus: 1 },
    ],
    handlers: ['src/interfaces/kvm/'],
  },
  vmi: {
    variants: [
      { interface: 'vmi', paging: 'shadow', image: 'i386', vcpus: 2 },
      { interface: 'vmi', paging: 'shadow', image: 'i386-pae', vcpus: 2 },
      // The ROM has two.
      { interface: 'vmi', paging: 'native', image: 'i386', vcpus: 2, calls: 200 },
      { interface: 'vmi', paging: 'direct', image: 'i386-pae', vcpus: 2 },
    ],
    handlers: [
      ...['alarm', 'clock', 'direct-tables', 'host-calls', 'linear-mappings', 'start-state', 'table-survey'],
      ...['update-queue', 'vmi-interface'],
    ].map((name) => `src/interfaces/vmi/${name}.ts`),
    shared: ['src/paging/direct/'],
  },
  lguest: {
    variants: [
      { interface: 'lguest', paging: 'shadow', image: 'i386', vcpus: 1 },
      { interface: 'lguest', paging: 'shadow', image: 'i386-pae', vcpus: 1 },
    ],
    handlers: ['abi', 'descriptor-tables', 'guest-data', 'hypercalls', 'interrupts', 'operations'].map(
      (name) => `src/interfaces/lguest/${name}.ts`,
    ),
  },
} as const satisfies Readonly<Record<string, Target>>;

export type TargetName = keyof typeof TARGETS;
