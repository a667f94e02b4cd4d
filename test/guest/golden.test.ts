import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

/**
 * Debian's cloud kernel prints on ring1 what it prints on Xen 4.17 (xen417-console.txt: the same kernel and memory, one
 * virtual processor, an AMD machine, another initramfs), but for the lines below.
 */

interface Difference {
  readonly why: string;
  /** Only on Xen. Patterns of normalised lines, one line each, in any order. */
  readonly missing?: readonly RegExp[];
  /** Only here. */
  readonly extra?: readonly RegExp[];
}

const DIFFERENCES: readonly Difference[] = [
  {
    why: "a domain's early output (console_io) goes to Xen's own console there, and to the guest's here",
    extra: [/^mapping kernel into physical memory$/, /^about to get started\.\.\.$/],
  },
  {
    why: 'the capture has debug output of dom0 between the lines',
    missing: [/^\/tool = /, /^\/tool\/xenstored = /, /^\/local = /, /^\/local\/domain = /, /^\/local\/domain\/0 = /],
  },
  {
    why: "xl's configuration left a stray quotation mark in the command line",
    missing: [/^Unknown kernel command line parameters/],
  },
  {
    why: 'event channels are offered in the 2-level ABI, which every kernel has',
    missing: [/^xen:events: Using FIFO-based ABI$/],
    extra: [/^xen:events: Using 2-level ABI$/],
  },
  {
    why: 'the version names its maker',
    missing: [/^Xen version: 4\.17\.7 \(preserve-AD\)$/],
    extra: [/^Xen version: 4\.17\.0-ring1 \(preserve-AD\)$/],
  },
  {
    why: 'the processor never speculates, so the kernel has nothing to mitigate',
    missing: [/^Spectre V1 : /, /^Spectre V2 : Mitigation: Retpolines$/, /^Spectre V2 : Spectre v2 \/ SpectreRSB/],
  },
  {
    why: 'the reported level is x86-64-v2, which has no XSAVE',
    missing: [
      /^x86\/fpu: Supporting XSAVE feature 0x#: 'x87 floating point registers'$/,
      /^x86\/fpu: Supporting XSAVE feature 0x#: 'SSE registers'$/,
      /^x86\/fpu: Supporting XSAVE feature 0x#: 'AVX registers'$/,
      /^x86\/fpu: xstate_offset\[2\]/,
      /^x86\/fpu: Enabled xstate features/,
      /^signal: max sigframe size: 1776$/,
    ],
    extra: [/^x86\/fpu: x87 FPU will use FXSAVE$/, /^signal: max sigframe size: 1440$/],
  },
  {
    why: 'the processor tells its frequency, so the kernel does not look for a timer to measure it by',
    missing: [/^tsc: Fast TSC calibration failed$/],
  },
  {
    why: "the processor is another vendor's: other performance counters, and a frequency driver that looks for its models",
    missing: [
      /^Performance Events:$/,
      /^no APIC, boot with the "lapic" boot parameter to force-enable it\.$/,
      /^no hardware sampling interrupt available\.$/,
      /^PMU not available due to virtualization, using software events only\.$/,
    ],
    extra: [
      /^Performance Events: unsupported p6 CPU model 28 no PMU driver, software events only\.$/,
      /^intel_pstate: CPU model not supported$/,
    ],
  },
];

/** Lines whose place depends on how long the work beside them takes (asynchronous initramfs, deferred clock source). */
const MOVABLE: readonly RegExp[] = [/^clocksource: tsc: mask/, /^Freeing initrd memory/];

/** Lines that only say that the host was busy with something else for a moment: any Xen guest may print them. */
const HOST_WAS_BUSY =
  /^(clocksource: (Long readout interval, skipping watchdog check|.* read-back delay of \d+ns)|hrtimer: interrupt took)/;

/** Without times, addresses and sizes. */
function normalise(text: string): string[] {
  const lines = text.replaceAll('\r', '').split('\n');
  return lines.flatMap((line) => {
    const plain = line
      .replace(/^\[ *\d+\.\d+\] /, '')
      .replace(/0x[0-9a-f]+/g, '0x#')
      .replace(/\b\d+([KkM])\b/g, '#$1')
      .replace(/\d+\.\d+ (MHz|BogoMIPS)/g, '# $1')
      .replace(/\((lpj)=\d+\)/, '($1=#)')
      .replace(/max_idle_ns: \d+/, 'max_idle_ns: #')
      .replace(/audit\(\d+\.\d+/, 'audit(#')
      .replace(/Marking stable .*/, 'Marking stable #')
      .replace(/^(Last level .TLB entries:).*/, '$1 #')
      .trimEnd();
    return plain === '' || HOST_WAS_BUSY.test(plain) ? [] : [plain];
  });
}

/** Lines of `lines` that `others` does not have, as often as it does not have them. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const left = [...others];
  return lines.filter((line) => {
    const index = left.indexOf(line);
    if (index < 0) return true;
    left.splice(index, 1);
    return false;
  });
}

/** What is left of the lines when each pattern has taken one, and the patterns that found none. */
function explain(lines: readonly string[], patterns: readonly RegExp[]): { lines: string[]; unused: string[] } {
  const left = [...lines];
  const unused = patterns.filter((pattern) => {
    const index = left.findIndex((line) => pattern.test(line));
    if (index >= 0) left.splice(index, 1);
    return index < 0;
  });
  return { lines: left, unused: unused.map(String) };
}

const boot = (text: string): string[] => {
  const lines = normalise(text);
  return lines.slice(
    0,
    lines.findIndex((line) => line.startsWith('READY')),
  );
};

describe.skipIf(!hasPackageArchive)("the console of Debian's cloud kernel", () => {
  it('differs from that on Xen 4.17 only in lines that have a reason', async () => {
    const guest = await GuestConsole.start('--append', 'ring1.run=true');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    const ours = boot(guest.text).map((line) => line.replace(/^((Kernel c|C)ommand line: console=hvc0) .*/, '$1'));
    const golden = boot(readFileSync(new URL('xen417-console.txt', import.meta.url), 'latin1'));

    const missing = without(golden, ours);
    const extra = without(ours, golden);
    const nothing = { lines: [], unused: [] };
    expect(
      explain(
        missing,
        DIFFERENCES.flatMap((difference) => difference.missing ?? []),
      ),
    ).toEqual(nothing);
    expect(
      explain(
        extra,
        DIFFERENCES.flatMap((difference) => difference.extra ?? []),
      ),
    ).toEqual(nothing);

    const fixed = (line: string): boolean => !MOVABLE.some((pattern) => pattern.test(line));
    expect(without(ours, extra).filter(fixed)).toEqual(without(golden, missing).filter(fixed));
    expect(guest.complaints).toEqual([]);
  }, 240_000);
});
