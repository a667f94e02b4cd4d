import { type CpioEntry, writeCpio } from '../src/boot/cpio.ts';

/**
 * An initramfs around one static busybox. Its /init mounts the kernel's file systems, prints READY and gives a shell on
 * the console; when the shell ends, the machine powers off. The kernel's command line may say otherwise:
 *
 *   ring1.run="COMMANDS"   run these instead of a shell, print "ring1: status N", power off. No double quotes within.
 *   ring1.size=COLSxROWS   size of the terminal, which a console cannot tell by itself
 */

/** Modules of one kernel. */
export interface KernelModules {
  /** What `uname -r` says under that kernel. */
  readonly release: string;
  /** Named as in `MODULES`. */
  readonly files: readonly { readonly name: string; readonly data: Uint8Array }[];
}

/** What finds virtio devices, in the order in which it can be loaded. */
const BUS_MODULES = ['virtio_ring', 'virtio', 'virtio_mmio'];

/** Disks want a file system as well. */
const FILE_SYSTEM = ['crc32c_generic', 'crc16', 'mbcache', 'jbd2', 'ext4'];

/** What each kind of virtio device wants, by its number as sysfs writes it. */
const DRIVERS: Readonly<Record<string, readonly string[]>> = {
  '0x0001': ['failover', 'net_failover', 'virtio_net'],
  '0x0002': ['virtio_blk', ...FILE_SYSTEM],
  '0x0003': ['virtio_console'],
  '0x0004': ['virtio-rng'],
};

/** What the disks of Xen want, whose bus is always built in. */
const XEN_DISK_DRIVERS = ['xen-blkfront', ...FILE_SYSTEM];

/** All modules that may be loaded. A kernel has some of them built in. */
export const MODULES = [...new Set([...BUS_MODULES, ...Object.values(DRIVERS).flat(), ...XEN_DISK_DRIVERS])];

const DRIVER_CASES = Object.entries(DRIVERS)
  .map(([kind, modules]) => `      ${kind}) load ${modules.join(' ')} ;;`)
  .join('\n');

export interface InitramfsOptions {
  /** Loaded where the kernel is theirs and the machine has devices for them. */
  readonly modules?: KernelModules;
  /** Further entries, for instance a script for ring1.run; their directories must be among them or in /, /bin, /root. */
  readonly extra?: readonly CpioEntry[];
}

const DIRECTORIES = ['bin', 'dev', 'etc', 'proc', 'root', 'run', 'sbin', 'sys', 'tmp', 'usr', 'usr/bin', 'usr/sbin'];

const INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
# The kernel may have mounted it already.
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
/bin/busybox --install -s
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
hostname ring1

read -r cmdline < /proc/cmdline
# LNRO0005 is what ACPI calls a virtio device in memory.
modules=/lib/modules/$(uname -r)
load() {
  for module; do
    if [ -f "$modules/$module.ko" ]; then insmod "$modules/$module.ko"; fi
  done
}
if [ -d "$modules" ] && ls /sys/bus/acpi/devices 2>/dev/null | grep -q ^LNRO0005; then
  load ${BUS_MODULES.join(' ')}
  for kind in $(sort -u /sys/bus/virtio/devices/*/device); do
    case $kind in
${DRIVER_CASES}
    esac
  done
fi
if [ -d "$modules" ] && ls /sys/bus/xen/devices 2>/dev/null | grep -q ^vbd-; then
  load ${XEN_DISK_DRIVERS.join(' ')}
  # A disk comes when the two ends have agreed, which takes milliseconds.
  for disk in /sys/bus/xen/devices/vbd-*; do
    for wait in $(seq 200); do [ -d "$disk/block" ] && break; usleep 10000; done
  done
fi
case \${cmdline##*console=} in
  # The kernel could not give this console to /init: its driver has just been loaded.
  hvc0*) [ -e /sys/bus/virtio ] && exec < /dev/hvc0 > /dev/hvc0 2>&1 ;;
esac
if [ -e /sys/class/net/eth0 ]; then
  ip link set lo up
  udhcpc -i eth0 -q -n -s /etc/udhcpc > /dev/null 2>&1 || echo 'no address by DHCP'
fi

case $cmdline in
  *ring1.size=*)
    size=\${cmdline#*ring1.size=}; size=\${size%% *}
    # The console's terminal is the last that /dev/console stands for.
    read -r consoles < /sys/class/tty/console/active
    stty -F "/dev/\${consoles##* }" cols "\${size%x*}" rows "\${size#*x}"
    ;;
esac

cd /root
echo READY
case $cmdline in
  *ring1.run=\\"*) run=\${cmdline#*ring1.run=\\"}; run=\${run%%\\"*} ;;
  *\\"ring1.run=*) run=\${cmdline#*\\"ring1.run=}; run=\${run%%\\"*} ;;
  *ring1.run=*) run=\${cmdline#*ring1.run=}; run=\${run%% *} ;;
  *) run= ;;
esac
if [ -n "$run" ]; then
  sh -c "$run"
  echo "ring1: status $?"
else
  # A session of its own with the console as controlling terminal makes job control and Ctrl-C work.
  setsid cttyhack sh
fi
poweroff -f
`;

/** What busybox's DHCP client calls for each change. */
const UDHCPC = `#!/bin/sh
case $1 in
  deconfig) ip link set "$interface" up ;;
  bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    ip route add default via "$router"
    for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
    ;;
esac
`;

/** @param busybox a static busybox for the guest's processor. */
export function buildInitramfs(busybox: Uint8Array, options: InitramfsOptions = {}): Uint8Array {
  const entries: CpioEntry[] = [
    ...DIRECTORIES.map((path): CpioEntry => ({ type: 'directory', path })),
    // /init's standard streams, before devtmpfs is mounted.
    { type: 'character-device', path: 'dev/console', major: 5, minor: 1 },
    { type: 'file', path: 'bin/busybox', data: busybox, mode: 0o755 },
    { type: 'symlink', path: 'bin/sh', target: 'busybox' },
    { type: 'file', path: 'etc/passwd', data: 'root::0:0:root:/root:/bin/sh\n' },
    { type: 'file', path: 'etc/group', data: 'root:x:0:\n' },
    { type: 'file', path: 'etc/udhcpc', data: UDHCPC, mode: 0o755 },
    { type: 'file', path: 'init', data: INIT, mode: 0o755 },
    ...moduleEntries(options.modules),
    ...(options.extra ?? []),
  ];
  // To pack it would cost the host, and the guest again, more time than it saves either of them.
  return writeCpio(entries);
}

function moduleEntries(modules: KernelModules | undefined): CpioEntry[] {
  if (modules === undefined) return [];
  const directory = `lib/modules/${modules.release}`;
  return [
    ...['lib', 'lib/modules', directory].map((path): CpioEntry => ({ type: 'directory', path })),
    ...modules.files.map(({ name, data }): CpioEntry => ({ type: 'file', path: `${directory}/${name}.ko`, data })),
  ];
}
