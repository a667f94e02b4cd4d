import { gzipSync } from 'fflate';
import { type CpioEntry, writeCpio } from '../src/boot/cpio.ts';

/**
 * An initramfs around one static busybox. Its /init mounts the kernel's file systems, prints READY and gives a shell on
 * the console; when the shell ends, the machine powers off. The kernel's command line may say otherwise:
 *
 *   ring1.run="COMMANDS"   run these instead of a shell, print "ring1: status N", power off. No double quotes within.
 *   ring1.size=COLSxROWS   size of the terminal, which a console cannot tell by itself
 */

/** Modules of one kernel, in the order in which they can be loaded. */
export interface KernelModules {
  /** What `uname -r` says under that kernel. */
  readonly release: string;
  readonly files: readonly { readonly name: string; readonly data: Uint8Array }[];
}

export interface InitramfsOptions {
  /** Loaded where the kernel is theirs and the machine has virtio devices. */
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
if [ -f "$modules/order" ] && ls /sys/bus/acpi/devices 2>/dev/null | grep -q ^LNRO0005; then
  while read -r module; do insmod "$modules/$module"; done < "$modules/order"
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
  // No time in the header: equal entries give equal bytes.
  return gzipSync(writeCpio(entries), { level: 6, mtime: 0 });
}

function moduleEntries(modules: KernelModules | undefined): CpioEntry[] {
  if (modules === undefined) return [];
  const directory = `lib/modules/${modules.release}`;
  const order = modules.files.map(({ name }) => `${name}\n`).join('');
  return [
    ...['lib', 'lib/modules', directory].map((path): CpioEntry => ({ type: 'directory', path })),
    { type: 'file', path: `${directory}/order`, data: order },
    ...modules.files.map(({ name, data }): CpioEntry => ({ type: 'file', path: `${directory}/${name}`, data })),
  ];
}
