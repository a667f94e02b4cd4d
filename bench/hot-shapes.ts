/**
 * Chooses the shapes of instructions whose handlers are part of the interpreter's loops, and those whose handlers are made
 * together: counts executions by shape over a boot and a shell session, of a 64-bit kernel and of a 32-bit one, and writes
 * the lists in src/cpu/semantics/shapes/.
 *
 *     npx tsx bench/hot-shapes.ts [--only long|flat] [--count 380]
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ARCHITECTURES, initramfs, type KernelFlavour, kernel } from '../guests/recipes.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { SYSTEM_OPERATIONS } from '../src/cpu/semantics/control.ts';
import { codeKindOf, parseShapeKey } from '../src/cpu/semantics/shape-key.ts';
import { type Cell, chooseCell } from '../src/domain/cells.ts';
import { HostClock } from '../src/domain/clock.ts';
import { SharedFiles } from '../src/domain/shared-files.ts';
import { bootMicrovm } from '../src/host/microvm-guest.ts';
import { bootXen } from '../src/host/xen-guest.ts';
import { overheadFrames } from '../src/interfaces/xen/domain-frames.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MemoryManager, overheadOf } from '../src/mm/memory-manager.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';

interface Kind {
  readonly name: 'long' | 'flat';
  readonly flavour: KernelFlavour;
  readonly cell: Cell;
  readonly commandLine: string;
  readonly code: string;
  /** Loops that compilers write and this session happens not to dwell in. */
  readonly always: readonly string[];
}

const KINDS: readonly Kind[] = [
  {
    name: 'long',
    flavour: 'cloud-amd64',
    cell: chooseCell('xen'),
    commandLine: 'console=hvc0',
    code: '64-bit',
    always: [
      'sub 4 8 long none none 1:4 4:4 jne',
      'sub 8 8 long none none 1:8 4:8 jne',
      'dec 4 8 long none none 1:4 jne',
      'dec 8 8 long none none 1:8 jne',
      'add 8 8 long none none 1:8 4:8 jne',
    ],
  },
  {
    name: 'flat',
    flavour: '686-pae',
    cell: chooseCell('kvm'),
    // Looking for ISA cards, it would wait for seconds in one loop.
    commandLine: 'console=ttyS0 reboot=acpi noisapnp',
    code: '32-bit',
    always: [
      'sub 4 4 flat none none 1:4 4:4 jne',
      'dec 4 4 flat none none 1:4 jne',
      'add 4 4 flat none none 1:4 4:4 jne',
    ],
  },
];

const SESSION = [
  'for i in 1 2 3; do ls -lR /bin /proc/self >/dev/null 2>&1; done',
  'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done',
  'dd if=/dev/zero of=/tmp/x bs=1M count=4; gzip /tmp/x; sha256sum /bin/busybox',
  "awk 'BEGIN{for(i=0;i<30000;i++)s+=i*1.5;print s}'",
].join('; ');

const LEAVES = new Set<string>([...SYSTEM_OPERATIONS, 'syscall', 'sysenter', 'int', 'int3', 'ud2']);
const MEGABYTES = 256;

const { values } = parseArgs({
  options: { only: { type: 'string' }, count: { type: 'string', default: '380' } },
});

/** The shapes that a guest meets, most executed first. */
async function shapesMet({ flavour, cell, commandLine }: Kind): Promise<string[]> {
  const memoryBytes = MEGABYTES << 20;
  const pages = memoryBytes / PAGE_SIZE;
  const frames = pages + overheadOf(pages) + overheadFrames(pages);
  const memory = new HostMemory(frames * PAGE_SIZE + (64 << 20));
  const pool = new FramePool(memory, frames);
  const group = new ProcessorGroup(memory, pool, { profile: true });
  const manager = new MemoryManager({ pool });
  const shared = new SharedFiles(manager);
  const files = {
    kernel: shared.acquire(readFileSync(await kernel(flavour))),
    initrd: shared.acquire(await initramfs({ architecture: ARCHITECTURES[flavour] })),
  };
  const common = {
    id: 1,
    vcpus: 1,
    group,
    clock: new HostClock(() => performance.now()),
    wallclock: { seconds: 0, nanoseconds: 0 },
    random: (out: Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>) => void crypto.getRandomValues(out),
    consoleSink: (bytes: Uint8Array) => void process.stderr.write(bytes),
    exactTurns: false,
    profiler: undefined,
    symbolize: () => undefined,
  };
  const options = {
    kernel: files.kernel.bytes,
    memory: memoryBytes,
    vcpus: common.vcpus,
    commandLine: `${commandLine} ring1.run="${SESSION}"`,
  };
  const domain = await (cell.interface === 'xen'
    ? bootXen(manager, common, options, files)
    : bootMicrovm(manager, cell, common, options, files));
  while (domain.state.kind === 'running') {
    domain.catchUp();
    // What the host is asked for is done between turns.
    await new Promise((resume) => setImmediate(resume));
    domain.turn();
  }
  return group.profile().map(([shape]) => shape);
}

function write(file: string, description: string, name: string, shapes: readonly string[]): void {
  const list = shapes.map((shape) => `  '${shape}',`).join('\n');
  writeFileSync(
    `src/cpu/semantics/shapes/${file}`,
    `/**\n${description}\n */\nexport const ${name}: readonly string[] = [\n${list}\n];\n`,
  );
  process.stdout.write(`${shapes.length} shapes in ${file}\n`);
}

for (const kind of KINDS.filter(({ name }) => values.only === undefined || values.only === name)) {
  const met = (await shapesMet(kind)).filter((shape) => codeKindOf(parseShapeKey(shape)) === kind.name);
  const chosen = met.filter((shape) => !LEAVES.has(parseShapeKey(shape).operation)).slice(0, Number(values.count));
  const hot = [...chosen, ...kind.always.filter((shape) => !chosen.includes(shape))];
  const common = met.filter((shape) => !hot.includes(shape)).sort();
  const constant = kind.name.toUpperCase();
  write(
    `${kind.name}-hot.ts`,
    ` * Shapes whose handlers are part of the interpreter's loop for ${kind.code} code: what kernels and their programs execute
 * most, most first. Made by bench/hot-shapes.ts from a profile of a boot and a shell session.`,
    `${constant}_HOT_SHAPES`,
    hot,
  );
  write(
    `${kind.name}-common.ts`,
    ` * Shapes that a ${kind.code} kernel meets while it boots, or its programs, and executes less often than the hot ones: their
 * handlers are made together. Made by bench/hot-shapes.ts from the same profile.`,
    `${constant}_COMMON_SHAPES`,
    common,
  );
}
