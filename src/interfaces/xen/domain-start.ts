import { createDomainTree, createHostTree } from '../../devices/xenstore-domain.ts';
import { OutOfFrames } from '../../memory/frame-pool.ts';
import { PagingError } from '../../paging/direct/errors.ts';
import type { PageNumbers } from '../../paging/page-numbers.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { Register } from '../../x86/registers.ts';
import type { XenDomain } from './domain.ts';
import { type BuiltDomain, buildDomain, loadImages } from './domain-builder.ts';
import type { DomainPlan } from './domain-plan.ts';

/** What a domain begins with. */
export interface DomainBoot {
  readonly name: string;
  readonly plan: DomainPlan;
}

export interface DomainLoad extends DomainBoot {
  /** Number of each pseudo-physical page. */
  readonly numbers: PageNumbers;
  /** Whether kernel and initrd are in its memory already. */
  readonly hasImages: boolean;
  /** Unix time in seconds. */
  readonly startTime: number;
}

/** Puts into a domain's memory and its store what its kernel finds there. @throws InputError, OutOfFrames */
export function loadDomain(domain: XenDomain, { name, plan, numbers, hasImages, startTime }: DomainLoad): BuiltDomain {
  const { rings, paging, space, store, grants } = domain;
  const { storePort, consolePort } = rings;
  const p2m = Uint32Array.from({ length: domain.pages }, (_none, pfn) => numbers.numberOf(pfn));
  if (!paging.publishNumbers(p2m)) throw new OutOfFrames(space.pool.total);
  if (!hasImages) loadImages(plan, space, p2m);
  const built = buildDomain({ plan, p2m, space, sharedInfo: domain.shared.mfn, storePort, consolePort });

  createHostTree(store);
  createDomainTree(store, {
    domain: domain.id,
    name,
    uuid: formatUuid(domain.uuidBytes),
    memoryKiB: (domain.pages * PAGE_SIZE) / 1024,
    vcpus: domain.vcpus.length,
    store: { port: storePort, mfn: built.store },
    console: { port: consolePort, mfn: built.console },
    kernel: 'kernel',
    commandLine: plan.commandLine,
    startTime,
  });
  rings.open(built);
  for (const [index, page] of [built.console, built.store].entries()) {
    paging.holdWritable(page);
    grants.prefill(index, page);
  }
  return built;
}

/** Lets the first processor begin at the kernel's entry, on the tables that were built for it. */
export function beginKernel(domain: XenDomain, plan: DomainPlan, built: BuiltDomain): void {
  const { paging, running: vcpu, timers } = domain;
  domain.extendedCr3 = plan.extendedCr3;
  domain.builderRoot = built.root;
  completely(() => paging.pin(paging.topLevel, built.root), 'the initial page tables');
  completely(() => paging.newBasePointer(vcpu.index, built.root), 'the initial root');
  vcpu.useRoots();
  const { processor } = vcpu;
  processor.rip = built.entry;
  processor.setValue(Register.rsp, built.stack);
  processor.setValue(Register.rsi, built.startInfo);
  vcpu.kernelStack = built.stack;
  vcpu.initialised = true;
  vcpu.down = false;
  timers.asleep[vcpu.index] = 0;
}

function completely(step: () => number, what: string): void {
  for (;;) {
    const result = step();
    if (result === 0) return;
    if (result !== PagingError.preempted) throw new Error(`${what} are not valid (${result})`);
  }
}

function formatUuid(bytes: Uint8Array): string {
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [0, 8, 12, 16, 20].map((start, index, starts) => digits.slice(start, starts[index + 1] ?? 32)).join('-');
}
