import { LiveTableObserver, type ObserverOptions } from './live-table-observer.ts';
import { type OwnContractsOptions, OwnTablesContracts } from './own-tables-contracts.ts';

/** What is the same of all guests that keep their page tables themselves; options say how one is different. */
export interface OwnTables
  extends Omit<ObserverOptions, 'check'>,
    Omit<OwnContractsOptions, 'tables' | 'walkerOf' | 'space' | 'processors' | 'running' | 'audit'> {
  /** Whether contracts are checked. */
  readonly check?: boolean | undefined;
}

/** @returns what observes the tables, for an audit, a check of contracts or both; undefined when nobody wants either */
export function observeOwnTables(options: OwnTables): LiveTableObserver | undefined {
  const { audit, check } = options;
  if (!audit && !check) return undefined;
  return new LiveTableObserver({
    ...options,
    check: check ? (tables, walkerOf) => new OwnTablesContracts({ ...options, tables, walkerOf }) : undefined,
  });
}
