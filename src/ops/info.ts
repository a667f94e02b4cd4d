/**
 * pv_info: what a kernel knows about its hypervisor before it calls anything.
 *
 * It is a record, not a group of operations. The 2007 split exports it to modules on purpose: lguest's host side reads
 * the name and refuses to run a guest inside a guest.
 */
export interface InfoRow {
  readonly type: 'text' | 'truth' | 'level';
  readonly meaning: string;
  readonly native: string;
  readonly xen: string;
  readonly vmi: string;
  readonly lguest: string;
  readonly kvm: string;
}

export const infoFields = {
  name: {
    type: 'text',
    meaning: 'Name of the hypervisor; the banner prints it, drivers and modules compare it.',
    native: 'bare hardware',
    xen: 'Xen',
    vmi: 'vmi',
    lguest: 'lguest',
    kvm: 'KVM',
  },
  paravirtEnabled: {
    type: 'truth',
    meaning: 'Whether to leave out what only a PC has: BIOS areas, option ROMs, some probes.',
    native: 'false',
    xen: 'true',
    vmi: 'true',
    lguest: 'true',
    kvm: 'true in old kernels, false later',
  },
  kernelRpl: {
    type: 'level',
    meaning: 'Privilege ring of the kernel, OR-ed into the selectors of frames that the kernel builds for itself.',
    native: '0',
    xen: '1 on i386; a 64-bit kernel runs in ring 3 and does not ask',
    vmi: 'the ring of CS after initialisation',
    lguest: '1',
    kvm: '0',
  },
  sharedKernelPmd: {
    type: 'truth',
    meaning: 'Whether all address spaces of a PAE kernel may share one level-2 table for the kernel half.',
    native: 'true',
    xen: 'false: the hypervisor has entries of its own in that table',
    vmi: 'true',
    lguest: 'true',
    kvm: 'true',
  },
} as const satisfies Readonly<Record<string, InfoRow>>;

/** pv_info as a value. */
export interface Info {
  readonly name: string;
  readonly paravirtEnabled: boolean;
  readonly kernelRpl: 0 | 1 | 2 | 3;
  readonly sharedKernelPmd: boolean;
}
