import type { CpioEntry } from '../../src/boot/cpio.ts';

/**
 * What every peer does in one boot, in this order: the shell's commands and what they are to measure. Each takes one to
 * five seconds on QEMU's translator, and what it prints must be the same on all peers.
 */
export interface Item {
  readonly name: string;
  readonly what: string;
  readonly commands: string;
}

/** The time from the start of the process to the first program's READY; every run has it. */
export const BOOT = 'boot';

const MIXED = '/root/mixed';

export const ITEMS: readonly Item[] = [
  {
    name: 'sha256',
    what: 'SHA-256 of 64 MiB: a tight loop of integer arithmetic',
    commands: 'dd if=/dev/zero bs=64k count=1024 2>/dev/null | sha256sum',
  },
  {
    name: 'gzip',
    what: 'gzip of 8 MiB, half words and half noise: loads, compares and branches that depend on data',
    commands: `for i in 1 2 3 4 5 6 7 8; do cat ${MIXED}; done | gzip | wc -c`,
  },
  {
    name: 'shell',
    what: 'a shell loop to 100,000: an interpreter with its indirect calls and its allocator',
    commands: 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $i',
  },
  {
    name: 'exec',
    what: '500 programs started and awaited: page tables, page faults, cold code',
    commands: 'i=0; while [ $i -lt 500 ]; do /bin/true || break; i=$((i+1)); done; echo $i',
  },
  {
    name: 'fork',
    what: '1,000 processes forked and awaited: copies of page tables, copy-on-write',
    commands: 'i=0; while [ $i -lt 1000 ]; do ( : ) || break; i=$((i+1)); done; echo $i',
  },
  {
    name: 'tmpfs',
    what: '512 MiB written to files in memory and removed: page allocation and copies in the kernel',
    commands: [
      'for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/tmp/file bs=64k count=1024 2>/dev/null',
      'stat -c %s /tmp/file; rm /tmp/file; done',
    ].join('; '),
  },
  {
    name: 'awk',
    what: '200,000 turns of a loop in awk with a sum in floating point',
    commands: `awk 'BEGIN { for (i = 0; i < 200000; i++) s += i * 1.5; print s }'`,
  },
  {
    name: 'pipe',
    what: 'a byte passed on 25,000 times by each of two processes: system calls and switches',
    // Whether a reader runs after each byte of a stream is up to the scheduler, and differs from boot to boot.
    commands: [
      'mkfifo /tmp/there /tmp/back; exec 3<>/tmp/there 4<>/tmp/back',
      'dd bs=1 <&3 >&4 2>/dev/null & printf x >&3; dd bs=1 count=25000 <&4 2>&1 >&3 | head -n 1; kill $!',
    ].join('; '),
  },
];

/** One process that begins cold and does the same short work over and over, with a line after each time. */
export const COLD = {
  name: 'cold',
  commands: `awk '
    function f(x) { return x % 7 == 3 ? length(x "") : x * 0.5 }
    BEGIN { for (n = 0; n < 300; n++) { for (i = 0; i < 1000; i++) s += f(i); print "peers: step " n; fflush() } }'`,
} as const;

/** What a line of the console says; everything else there is not ours. */
export type Mark =
  | { readonly kind: 'ready' }
  | { readonly kind: 'begin' | 'step' | 'end'; readonly name: string; readonly result: string };

const MARKS = /^(?:(READY)|peers: (begin|step|end) (\S+) ?(.*?))\r?$/;

export function parseMark(line: string): Mark | undefined {
  const [match, ready, kind, name = '', result = ''] = MARKS.exec(line) ?? [];
  if (match === undefined) return undefined;
  return ready ? { kind: 'ready' } : { kind: kind as 'begin' | 'step' | 'end', name, result };
}

const PROGRAM = 'bin/peers';

/** The kernel's command line for a run of the items that are named. */
export function commandLineFor(names: readonly string[]): string {
  return `ring1.run="sh /${PROGRAM} ${names.join(' ')}"`;
}

/** The program that carries items out, and its data, for the initramfs. */
export function itemEntries(): CpioEntry[] {
  const cases = ITEMS.map(({ name, commands }) => `${name}) result=$(${commands}) ;;`);
  const program = `#!/bin/sh
# The console shows when an item begins and ends; whoever reads it has the clock.
for item in "$@"; do
  echo "peers: begin $item"
  result=
  case $item in
${cases.join('\n')}
${COLD.name}) ${COLD.commands} ;;
  esac
  echo "peers: end $item" $result
done
`;
  return [
    { type: 'file', path: PROGRAM, data: program, mode: 0o755 },
    { type: 'file', path: MIXED.slice(1), data: mixedData() },
  ];
}

/** 1 MiB that does not depend on anything: blocks of words, then of noise. */
function mixedData(): Uint8Array {
  const bytes = new Uint8Array(1 << 20);
  let state = 1;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const words = Array.from({ length: 500 }, () =>
    random()
      .toString(36)
      .slice(0, 2 + (random() % 6)),
  );
  let text = '';
  while (text.length < bytes.length / 2) text += `${words[random() % words.length]} `;
  const BLOCK = 4096;
  for (let at = 0; at < bytes.length; at += BLOCK) {
    const isText = (at / BLOCK) % 2 === 0;
    for (let index = at; index < at + BLOCK; index++) {
      bytes[index] = isText ? text.charCodeAt(index >> 1) : random();
    }
  }
  return bytes;
}
