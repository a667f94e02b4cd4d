/** Numbers of Xen's public interface that several files use. Headers of Xen are named by their path in xen/include. */

export const XEN_VERSION = 0x0004_0011;

/** Entries of a GDT that are the guest's own; the host's follow. */
export const GUEST_GDT_ENTRIES = 7168;

/** Entries into a kernel that callback_op names (public/callback.h). */
export const enum CallbackType {
  event = 0,
  failsafe = 1,
  syscall = 2,
  nmi = 4,
  sysenter = 5,
  syscall32 = 7,
}

/** Why a domain ended (public/sched.h). */
export const enum ShutdownReason {
  poweroff = 0,
  reboot = 1,
  suspend = 2,
  crash = 3,
  watchdog = 4,
  softReset = 5,
}

/** start_info.flags (public/xen.h). */
export const enum StartInfoFlag {
  moduleStartPfn = 0x8,
  virtualP2m = 0x10,
}

/** Features of XENVER_get_features submap 0 that a PV guest is told (public/features.h): bits 5, 6, 7, 13 and 17. */
export const FEATURES = 0x0002_20e0;
/** Beside them, with the assist of this name: a PAE top table may lie beyond 4 GiB. */
export const FEATURE_EXTENDED_CR3 = 0x10;

/** What a guest is told beside them whose frames are translated for it: its tables may be written, and hold its own numbers (bits 0 and 2). */
export const TRANSLATED_FEATURES = 0x5;

/** How many arguments each hypercall takes, for those that read as many; 5 are shown of the others. */
export const HYPERCALL_ARGUMENTS: Readonly<Record<string, number>> = {
  set_trap_table: 1,
  mmu_update: 4,
  set_gdt: 2,
  stack_switch: 2,
  set_callbacks: 3,
  fpu_taskswitch: 1,
  set_debugreg: 2,
  get_debugreg: 1,
  update_descriptor: 2,
  memory_op: 2,
  multicall: 2,
  update_va_mapping: 3,
  set_timer_op: 1,
  xen_version: 2,
  console_io: 3,
  grant_table_op: 3,
  vm_assist: 2,
  iret: 0,
  vcpu_op: 3,
  set_segment_base: 2,
  mmuext_op: 4,
  sched_op: 2,
  callback_op: 2,
  event_channel_op: 2,
  physdev_op: 2,
};

/** Name of a hypercall for people. */
export function hypercallName(number: number): string {
  return HYPERCALL_NAMES[number] ?? `unknown ${number}`;
}

export const HYPERCALL_NAMES: readonly string[] = [
  'set_trap_table',
  'mmu_update',
  'set_gdt',
  'stack_switch',
  'set_callbacks',
  'fpu_taskswitch',
  'sched_op_compat',
  'platform_op',
  'set_debugreg',
  'get_debugreg',
  'update_descriptor',
  'unused_11',
  'memory_op',
  'multicall',
  'update_va_mapping',
  'set_timer_op',
  'event_channel_op_compat',
  'xen_version',
  'console_io',
  'physdev_op_compat',
  'grant_table_op',
  'vm_assist',
  'update_va_mapping_otherdomain',
  'iret',
  'vcpu_op',
  'set_segment_base',
  'mmuext_op',
  'xsm_op',
  'nmi_op',
  'sched_op',
  'callback_op',
  'xenoprof_op',
  'event_channel_op',
  'physdev_op',
  'hvm_op',
  'sysctl',
  'domctl',
  'kexec_op',
  'tmem_op',
  'argo_op',
  'xenpmu_op',
  'dm_op',
  'hypfs_op',
];
