export const USAGE = `usage: ring1 COMMAND [OPTIONS]

ring1 boots unmodified Linux kernels in a processor of its own.

commands:
  run           boot a kernel and connect this terminal to its console
  profile       the same, and say where the guest's time went
  audit         the same, and list the places of the kernel that touch live page tables
  clone         let copies of a saved guest carry out a command each
  help COMMAND  explain a command

options:
  --help        this text
  --version     ring1's version
`;

export const RUN_USAGE = `usage: ring1 run [OPTIONS] [GUESTFILE…]

Boots a kernel with its console on this terminal. Ctrl-] leaves. Without --kernel, Debian's cloud kernel is fetched
from the Debian archive and kept in ~/.cache/ring1 (or RING1_CACHE); without --initrd, a busybox shell. Where neither can
be had, and with lguest, the reference guest is booted, a small kernel that is part of this command (of 32 bits with vmi
and lguest).

  --kernel FILE       bzImage (vmlinuz) or ELF kernel (vmlinux), compressed or not; "reference" is the reference guest,
                      "reference-i386" and "reference-i386-pae" are its 32-bit images.
                      32-bit kernels boot with --interface kvm, native, vmi or lguest, those with PAE with xen too
  --initrd FILE       initial RAM disk
  --append STRING     kernel command line; console=hvc0 (xen, lguest) or console=ttyS0 is put in front unless it has a console=
  --memory SIZE       the guest's memory, as in 256M or 1G; a plain number is in MiB (default 256M)
  --vcpus N           the guest's processors, 1 to 32 (default 1); lguest has one
  --interface NAME    how the guest asks: xen (default), kvm, native, lguest, or vmi (32-bit Linux 2.6.21 to 2.6.36)
  --paging NAME       how page tables are carried out: direct (xen, vmi), nested (kvm, native), native (native, vmi),
                      shadow (all), or translated (kernels for xen that announce auto_translated_physmap)
  --lguest-era ERA    how a kernel speaks to lguest, where its file does not tell: L1 (Linux 2.6.24 to 2.6.29),
                      L2 (2.6.30 to 3.0) or L3 (3.1 to 3.x)
  --afterburn         patch the kernel's call sites for the interface before it runs, which it would do itself otherwise
                      (the reference guest; others do not record what that takes)
  --host-memory SIZE  memory for all guests (default: what they need); what does not fit goes to swap,
                      but for native paging, which keeps all pages
  --swap FILE         file for swap, made and removed again (default: one without a name, where temporary files are)
  --disk FILE         a disk with the raw contents of a file; repeatable; the first is /dev/vda, or /dev/xvda (xen);
                      FILE,readonly cannot be written, FILE,snapshot keeps what is written in memory only
  --network           a network adapter (kvm, vmi, native): addresses by DHCP, and the world as far as this host reaches it
  --save FILE         save the guest there at Ctrl-] s, and at SIGUSR2; it goes on afterwards. Ctrl-] and any other key leave
  --snapshot FILE     go on from a saved guest; give it the disks and adapters that it had, and nothing else of a guest
  --timeout SECONDS   stop after that time
  --stats FILE        write figures as JSON at the end
  --trace FILE        write one line for each operation that crosses from guest to host
  --check             check the contracts of operations on page tables (the guest crashes where it breaks one) and the rules
                      of the host's memory and its external page tables
  --deterministic     virtual time: equal input gives equal runs
  --jit-threshold N   executions of a piece of code before it is compiled; 0 leaves all to the interpreter (default 4000)
  --help              this text

exit status: 0 the guest powered off or you left, 1 wrong usage or input, 2 the guest crashed, 3 timeout,
128 + N ended by signal N. A guest that reboots is booted again.

With GUESTFILEs, runs a guest for each of them, all in one host. They have lines KEY = VALUE as for xl: name, kernel,
ramdisk, extra, memory, vcpus, disk, and type or interface; the options hold for what a file does not say. A guest's
lines come out as "NAME: line", and a line "NAME: text" on stdin is typed at its console.

With the busybox shell, --append 'ring1.run="COMMANDS"' runs commands instead of a shell and powers off.
`;

export const PROFILE_USAGE = `usage: ring1 profile [OPTIONS]

Boots a kernel as "ring1 run" does, with the same options (see "ring1 help run"), and prints at the end where the time
went: in functions of the guest's kernel, in programs, by page of their code, and in the host, by what the guest had
asked it for. Of the guest's instructions it says how many were compiled; the interpreter executed the others.

  --after TEXT        begin when the guest has printed that; without it, with the boot
  --top N             lines of each list (default 25)
  --output FILE       write it there instead of to the terminal's standard error; --stats has it with all lines

The guest is looked at every 100,000 instructions or so, which slows it down by a third. For one piece of work, let it do nothing else:

  ring1 profile --after READY --append 'ring1.run="sha256sum /bin/busybox"'
`;

export const AUDIT_USAGE = `usage: ring1 audit [OPTIONS]

Boots a kernel as "ring1 run" does, with the same options (see "ring1 help run"), and prints at the end each place of its
code that touched an entry of a live page table: how often it read one, asked for a change of one by an operation, stored to
one so that the host carried the store out or saw it (emulated), stored without the host having a part in it (plain), or
stored in vain (refused). Which tables are live Xen knows, unless it translates frames; of other guests, whose tables are
their own, it is those that a processor's root leads to. A call of VMI's ROM that stores an entry is an operation of its
caller, one that reads an entry a read of its caller's. Of the reference guest it also says whether a read was one of its
recorded accessors. With --check the contracts that were broken are listed too, and the guest goes on; where tables hold
machine frames (xen, vmi with direct paging), reads outside these accessors are among them.

  --top N             lines of the list (default 25)
  --output FILE       write it there instead of to the terminal's standard error; --stats has it with all lines

Each of these accesses leaves compiled code. A boot of Debian's kernel takes a quarter longer for it.

  ring1 audit --kernel reference
  ring1 audit --interface native
`;

export const CLONE_USAGE = `usage: ring1 clone SNAPSHOT --each COMMAND [OPTIONS]

Lets copies of a guest go on from a snapshot ("ring1 run --save"), which was taken at the prompt of its shell. COMMAND is
typed at the shell of each; {} in it, and the shell's $RING1_CLONE, are the number of the copy. What the copies print comes
out as "NUMBER: line", and each ends when its command has. Copies share all memory that they do not change, unless their
paging is native. Each has a name and random numbers of its own; what its kernel keeps of random numbers is mixed with those
of the processor within a minute. A copy whose kernel cannot be told that it was stopped (native, vmi, lguest) catches up
with the date first, for up to 10 seconds.

  --count N           copies, from number 1 on (default 1)
  --each COMMAND      what each is to do
  --disk FILE         a disk that the guest had, as it was then; repeatable; each copy keeps what it writes in memory only
  --network           the network adapter that the guest had; each copy is alone in its network
  --host-memory SIZE  memory for all copies (default: the guest's, and 8M for each that runs; with native
                      paging as much for each as the guest had); what does not fit goes to swap
  --swap FILE         file for swap, made and removed again (default: one without a name, where temporary files are)
  --timeout SECONDS   stop after that time
  --jit-threshold N   executions of a piece of code before it is compiled; 0 leaves all to the interpreter (default 4000)
  --help              this text

exit status: 0 each command ended with 0, 1 one of them did not, or wrong usage or input, 3 timeout, 128 + N ended by signal N
`;
