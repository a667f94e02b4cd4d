import { createHash, type Hash } from 'node:crypto';
import { initramfs } from '../guests/recipes.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import type { Exit } from '../src/cpu/exits.ts';
import { ProcessorGroup, type ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { XenDomain } from '../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../src/interfaces/xen/domain-frames.ts';
import { planDomain } from '../src/interfaces/xen/domain-plan.ts';
import type { XenVcpu } from '../src/interfaces/xen/vcpu.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { debianKernel } from './debian-kernel.ts';

export interface RunOptions {
  /** How the processors are built: all of it must be invisible to the guest. */
  readonly group?: ProcessorGroupOptions;
  /** Stops at this count of instructions; without it at the guest's own end. */
  readonly instructions?: number;
  readonly permutation?: (pfn: number) => number;
  readonly pages?: number;
  readonly vcpus?: number;
  /** Runs as the guest's last program; see guests/initramfs.ts. */
  readonly command?: string;
  /** Notes each exit as a line, for finding the first difference between two runs. */
  readonly log?: (line: string) => void;
}

/** What a deterministic run leaves: equal for every way of executing the same guest. */
export interface Trail {
  readonly instructions: number;
  readonly console: string;
  /** Hash over (count, vCPU, exit, details) of all exits. */
  readonly exits: string;
  readonly registers: string;
  /** Hash over all frames in pseudo-physical order: page tables with their accessed and dirty bits included. */
  readonly memory: string;
  readonly figures: object;
}

/** Boots Debian's kernel with virtual time and seeded entropy. */
export async function runDeterministically(options: RunOptions = {}): Promise<Trail> {
  const pages = options.pages ?? 32_768;
  const frames = pages + overheadFrames(pages);
  const memory = new HostMemory(frames * 4096 + (96 << 20));
  const pool = new FramePool(memory, frames);
  // Nothing here waits, so that nothing would come of what is compiled aside.
  const jit = { isAside: false, ...options.group?.jit };
  const group = new ProcessorGroup(memory, pool, { ...options.group, jit });
  const command = options.command === undefined ? '' : ` ring1.run="${options.command}"`;
  const exits = createHash('sha256');
  let console = '';
  let seed = 1;
  const next = () => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return seed;
  };
  let domain: XenDomain | undefined;
  const clock = new VirtualClock(() => domain?.instructions ?? 0);
  const plan = planDomain({
    kernel: loadKernel(await debianKernel('cloud-amd64')),
    initrd: await initramfs(),
    commandLine: `console=hvc0${command}`,
    pages,
  });
  domain = new XenDomain({
    id: 1,
    uuid: new Uint8Array(16),
    bits: plan.abi.bits,
    pages,
    vcpus: options.vcpus ?? 1,
    group,
    clock,
    wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
    random: (out) => {
      for (let index = 0; index < out.length; index++) out[index] = next();
    },
    consoleSink: (bytes) => {
      console += new TextDecoder('latin1').decode(bytes);
    },
    exactTurns: true,
    ...(options.permutation ? { permutation: options.permutation } : {}),
    watcher: {
      exit: (vcpu, exit) => noteExit(exits, vcpu, exit, options.log),
      hypercall: () => {},
    },
  });
  domain.boot({ name: 'guest', plan });
  while (domain.state.kind === 'running' && domain.instructions < (options.instructions ?? Number.POSITIVE_INFINITY)) {
    domain.turn();
  }
  const registers = createHash('sha256');
  for (const { processor } of domain.vcpus) {
    registers.update(memory.u8.subarray(processor.state + State.registers, processor.state + State.zero));
    registers.update(`${processor.rip} ${processor.flags} ${processor.cr2} ${processor.userMode}`);
    registers.update(memory.u8.subarray(processor.state + State.xmm, processor.state + State.mxcsr + 4));
  }
  const contents = createHash('sha256');
  for (let mfn = 0; mfn < domain.space.limit; mfn++) {
    const address = domain.space.addressOf(mfn as Mfn);
    if (address >= 0) contents.update(memory.u8.subarray(address, address + 4096));
  }
  return {
    instructions: domain.instructions,
    console,
    exits: exits.digest('hex'),
    registers: registers.digest('hex'),
    memory: contents.digest('hex'),
    figures: domain.figures(0),
  };
}

function noteExit(hash: Hash, vcpu: XenVcpu, exit: Exit, log?: (line: string) => void): void {
  const { processor } = vcpu;
  const line = `${processor.instructions} ${vcpu.index} ${exit} ${processor.rip} ${processor.low(0)} ${processor.exitDetail}`;
  hash.update(line);
  log?.(line);
}
