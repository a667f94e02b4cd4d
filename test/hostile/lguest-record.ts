import { DomainCrash } from '../../src/domain/crash.ts';
import type { LguestDomain } from '../../src/interfaces/lguest/domain.ts';
import { PageAbsent } from '../../src/memory/page-absent.ts';
import { Register } from '../../src/x86/registers.ts';
import { type HostileRecord, withoutNumbers } from './record.ts';

/** Keeps the record of a guest of lguest: calls have no results, but are carried out or end it. */
export function watchLguest(domain: LguestDomain, record: HostileRecord): void {
  const { hypercalls, statistics, vcpu } = domain;
  const { calls } = domain.era;
  // Told of each call that was carried out, those in the ring among them.
  const carriedOut = statistics.hypercall.bind(statistics);
  statistics.hypercall = (number) => {
    carriedOut(number);
    record.made(calls[number] ?? 'without a name', 'carried out');
  };
  const execute = hypercalls.execute.bind(hypercalls);
  hypercalls.execute = () => {
    const name = calls[vcpu.processor.low(Register.rax)] ?? 'without a name';
    try {
      execute();
    } catch (error) {
      if (error instanceof DomainCrash) record.made(name, `ends it (${withoutNumbers(error.message)})`);
      else if (error instanceof PageAbsent) record.found(name, 'page absent');
      throw error;
    }
  };
}
