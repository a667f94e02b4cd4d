/** Readable reports of a comparison: one line per template, examples with disassembly and how to repeat them. */
import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from 'iced-x86';
import { endingName, type Failure, hex, REGISTERS, type TemplateReport } from './compare.ts';
import { CODE_BASE, type Mode, WINDOW_BASE } from './oracle.ts';

/** One line per instruction: bytes and Intel syntax. */
export function disassemble(code: Uint8Array, mode: Mode, codeOffset: number): string[] {
  const decoder = new Decoder(mode, code, DecoderOptions.None);
  const formatter = new Formatter(FormatterSyntax.Intel);
  decoder.ip = BigInt(CODE_BASE + codeOffset);
  const lines: string[] = [];
  let at = 0;
  while (decoder.canDecode) {
    const instruction = decoder.decode();
    const bytes = Buffer.from(code.subarray(at, at + instruction.length)).toString('hex');
    lines.push(`${bytes.padEnd(24)} ${formatter.format(instruction)}`);
    at += instruction.length;
    instruction.free();
  }
  formatter.free();
  decoder.free();
  return lines;
}

/** "add 64: 1000 run, done 90% #PF 10%, 3 failed". */
export function summaryLine(report: TemplateReport): string {
  const endings = [...report.endings]
    .sort((a, b) => b[1] - a[1])
    .map(([ending, count]) => `${endingName(ending)} ${Math.round((count * 1000) / report.run) / 10}%`);
  const failed = report.failed ? `, ${report.failed} FAILED` : '';
  return `${report.template.padEnd(20)} ${report.mode}  ${report.run} run  ${endings.join(' ')}${failed}`;
}

/** All kinds of failures of a template with counts, and the examples. */
export function failureText(report: TemplateReport, limit = 8): string {
  const lines = [summaryLine(report)];
  const kinds = [...report.kinds].sort((a, b) => b[1] - a[1]);
  for (const [kind, count] of kinds.slice(0, limit)) lines.push(`  ${String(count).padStart(7)} × ${kind}`);
  if (kinds.length > limit) lines.push(`  and ${kinds.length - limit} more kinds`);
  const shown = new Set(kinds.slice(0, limit).map(([kind]) => kind));
  for (const failure of report.examples) {
    const kind = failure.differences.map((difference) => difference.what).join(' ');
    if (shown.has(kind)) lines.push(...exampleLines(failure));
  }
  return lines.join('\n');
}

function exampleLines({ generated, expected, differences }: Failure): string[] {
  const { native, template, mode, seed, index } = generated;
  const lines = [
    `    --only ${template} --mode ${mode} --seed ${seed} --case ${index}  (${endingName(expected.ending)})`,
  ];
  for (const line of disassemble(native.code, mode, native.codeOffset)) lines.push(`      ${line}`);
  const registers = REGISTERS.slice(0, mode === 64 ? 16 : 8).map(
    (name, i) => `${name}=${hex(native.gprs[i] as bigint)}`,
  );
  lines.push(`      flags=${hex(native.flags)} ${registers.join(' ')}`);
  for (const patch of native.patches) {
    const bytes = Buffer.from(patch.bytes.subarray(0, 32)).toString('hex');
    lines.push(`      [${hex(WINDOW_BASE + patch.offset)}] ${bytes}${patch.bytes.length > 32 ? '…' : ''}`);
  }
  if (differences.some(({ what }) => /^(st|xmm|mxcsr|f[cst]w)/.test(what))) lines.push(...stateLines(native.state));
  for (const { what, native: is, emulated } of differences)
    lines.push(`      ${what}: processor ${is}, emulated ${emulated}`);
  return lines;
}

function stateLines(state: Uint8Array): string[] {
  const view = new DataView(state.buffer, state.byteOffset);
  const part = (at: number, length: number): string =>
    Buffer.from(
      state
        .subarray(at, at + length)
        .slice()
        .reverse(),
    ).toString('hex');
  const lines = [
    `      fcw=${hex(view.getUint16(0, true))} fsw=${hex(view.getUint16(2, true))} ftw=${hex(view.getUint8(4))} mxcsr=${hex(view.getUint32(24, true))}`,
  ];
  lines.push(`      ${[0, 1, 2, 3, 4, 5, 6, 7].map((i) => `st${i}=${part(32 + 16 * i, 10)}`).join(' ')}`);
  lines.push(`      ${[0, 1, 2, 3, 4, 5, 6, 7].map((i) => `xmm${i}=${part(160 + 16 * i, 16)}`).join(' ')}`);
  return lines;
}
