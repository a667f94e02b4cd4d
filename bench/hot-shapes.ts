/**
 * Chooses the shapes of instructions whose handlers are part of the interpreter's one function, and those whose handlers
 * are made together: counts executions by shape over a boot and a shell session and writes
 * src/cpu/semantics/hot-shapes.ts and common-shapes.ts.
 *
 *     npx tsx bench/hot-shapes.ts [--count 380]
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { initramfs, kernel } from '../guests/recipes.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { SYSTEM_OPERATIONS } from '../src/cpu/semantics/control.ts';
import { HostClock } from '../src/domain/clock.ts';
import { XenDomain } from '../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../src/interfaces/xen/domain-frames.ts';
import { planDomain } from '../src/interfaces/xen/domain-plan.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';

/** Loops that compilers write and this session happens not to dwell in. */
const ALWAYS = [
  'sub 4 8 long none none 1:4 4:4 jne',
  'sub 8 8 long none none 1:8 4:8 jne',
  'dec 4 8 long none none 1:4 jne',
  'dec 8 8 long none none 1:8 jne',
  'add 8 8 long none none 1:8 4:8 jne',
];

const SESSION = [
  'for i in 1 2 3; do ls -lR /bin /proc/self >/dev/null 2>&1; done',
  'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done',
  'dd if=/dev/zero of=/tmp/x bs=1M count=4; gzip /tmp/x; sha256sum /bin/busybox',
  "awk 'BEGIN{for(i=0;i<30000;i++)s+=i*1.5;print s}'",
].join('; ');

const { values } = parseArgs({ options: { count: { type: 'string', default: '380' } } });
const pages = 65_536;
const frames = pages + overheadFrames(pages);
const memory = new HostMemory(frames * 4096 + (64 << 20));
const group = new ProcessorGroup(memory, new FramePool(memory, frames), { profile: true });
const plan = planDomain({
  kernel: loadKernel(readFileSync(await kernel('cloud-amd64'))),
  initrd: await initramfs(),
  commandLine: `console=hvc0 ring1.run="${SESSION}"`,
  pages,
});
const domain = new XenDomain({
  id: 1,
  uuid: new Uint8Array(16),
  bits: plan.abi.bits,
  pages,
  vcpus: 1,
  group,
  clock: new HostClock(() => performance.now()),
  wallclock: { seconds: 0, nanoseconds: 0 },
  random: (out) => void crypto.getRandomValues(out),
  consoleSink: (bytes) => process.stderr.write(bytes),
});
domain.boot({ name: 'profile', plan });
while (domain.state.kind === 'running') {
  domain.catchUp();
  domain.turn();
}

const leaves = new Set<string>([...SYSTEM_OPERATIONS, 'syscall', 'int3', 'ud2']);
const met = group.profile().map(([shape]) => shape);
const chosen = met.filter((shape) => !leaves.has(shape.split(' ')[0] ?? '')).slice(0, Number(values.count));
const hot = [...chosen, ...ALWAYS.filter((shape) => !chosen.includes(shape))];
const common = met.filter((shape) => !hot.includes(shape)).sort();

function write(file: string, description: string, name: string, shapes: readonly string[]): void {
  const list = shapes.map((shape) => `  '${shape}',`).join('\n');
  writeFileSync(
    `src/cpu/semantics/${file}`,
    `/**\n${description}\n */\nexport const ${name}: readonly string[] = [\n${list}\n];\n`,
  );
  process.stdout.write(`${shapes.length} shapes in ${file}\n`);
}

write(
  'hot-shapes.ts',
  ` * Shapes whose handlers are part of the interpreter's one function: what kernels and their programs execute most, most
 * first. Made by bench/hot-shapes.ts from a profile of a boot and a shell session.`,
  'HOT_SHAPES',
  hot,
);
write(
  'common-shapes.ts',
  ` * Shapes that a kernel meets while it boots, or its programs, and executes less often than the hot ones: their handlers
 * are made together. Made by bench/hot-shapes.ts from the same profile.`,
  'COMMON_SHAPES',
  common,
);
