import { type GroupTable, nothingAt } from './schema.ts';

/**
 * pv_misc_ops: lazy mode, alone.
 *
 * The draft of the 2007 split has this group; the kernels that followed moved it as enter and leave into the cpu and the
 * mmu group. ring1 keeps the one operation: entering mode m is `setLazyMode(m)`, leaving is `setLazyMode('none')`.
 */
export const miscOperations = {
  setLazyMode: {
    arguments: [['mode', 'lazyMode', 'none ends the section']],
    result: 'status',
    native: 'nothing',
    before: 'the vCPU cannot be taken away from the caller; to enter, no section is open; to leave, one is open',
    after:
      'after leaving, every update that was put off is visible to the processor and to other vCPUs; inside, reads see their own writes or flush first',
    users: { since: '2007', by: 'ranges of page-table changes (copy, zap, protect, map) and context switches' },
    xen: 'the guest gathers its calls and leaves with multicall; the host sees only the batch',
    vmi: 'SetLazyMode; page-table calls go into the private queue of the vCPU; with direct paging nothing',
    lguest: 'calls go into the ring of 64 slots; leaving is FLUSH_ASYNC',
    kvm: 'updates go into a buffer; leaving is the MMU_OP hypercall',
    patch: nothingAt,
  },
  flushLazyMode: {
    arguments: [],
    result: 'status',
    native: 'nothing',
    before: 'any mode',
    after: 'what was put off so far is visible; the section stays open',
    users: { since: '2007', by: 'reads of entries inside a section, kernel mapping faults' },
    xen: 'multicall with what has been gathered',
    vmi: 'SetLazyMode none and the mode again; with direct paging nothing',
    lguest: 'FLUSH_ASYNC',
    kvm: 'the MMU_OP hypercall',
    patch: nothingAt,
  },
} as const satisfies GroupTable;
