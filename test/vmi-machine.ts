import { VirtualClock } from '../src/domain/clock.ts';
import { UpdateQueues, VmiInterface } from '../src/interfaces/vmi/vmi-interface.ts';
import { MicrovmDomain } from '../src/microvm/domain.ts';
import { createGuestDevices } from '../src/microvm/guest-devices.ts';
import { group, PAGES, ShadowWorld } from './shadow-world.ts';

/** Most shadow pages of the machine. */
export const SHADOW_PAGES = 16;

/** A machine with the VMI interface, two processors and little memory, all of it there; it has no kernel. */
export interface VmiMachine {
  readonly world: ShadowWorld;
  readonly domain: MicrovmDomain;
  readonly vmi: VmiInterface;
  readonly queues: UpdateQueues;
}

export async function createVmiMachine(): Promise<VmiMachine> {
  const world = await ShadowWorld.create('two-level', SHADOW_PAGES);
  for (let page = 0; page < PAGES; page++) await world.present(page, true);
  const { paging } = world;
  const none = (): void => {};
  const queues = new UpdateQueues(paging);
  const domain = new MicrovmDomain({
    id: 1,
    vcpus: 2,
    group,
    paging,
    createInterface: (owner) => new VmiInterface(owner, queues),
    translationsOf: (vcpu, own) => queues.translations(vcpu, own),
    clock: new VirtualClock(() => 0),
    wallclock: { seconds: 1_000_000_000, nanoseconds: 5 },
    random: none,
    consoleSink: none,
    ...createGuestDevices({ commandLine: '' }, 1, none, none),
    exactTurns: true,
    profiler: undefined,
    symbolize: () => undefined,
  });
  return { world, domain, vmi: domain.interface as VmiInterface, queues };
}

/** The machine cannot be used any more. */
export async function endVmiMachine({ world, domain, vmi }: VmiMachine): Promise<void> {
  for (const { processor } of domain.vcpus) group.release(processor);
  vmi.release();
  await world.end();
}
