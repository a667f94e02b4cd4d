import type { FrameWatching } from '../../cpu/frame-watchers.ts';
import type { FrameInvalidator, PhysicalDevices, TableFormat, Translation } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { NestedPaging } from '../nested/nested-paging.ts';
import type { Pager } from '../pager.ts';
import { followWithShadows } from './shadow-follower.ts';
import type { ShadowTables } from './shadow-tables.ts';

/**
 * Shadow paging of a guest that knows guest-physical pages: memory is as with nested paging, but the two levels of
 * tables are put together into shadows, which processors walk. Without paging there is nothing to put together.
 */
export class ShadowPaging extends NestedPaging {
  override readonly shadow: ShadowTables;

  private constructor(space: MachineSpace, invalidator: FrameInvalidator, pager: Pager, shadow: ShadowTables) {
    super(space, invalidator, pager);
    this.shadow = shadow;
  }

  /**
   * @param order among the notifiers of the memory, behind the pager's
   * @param capacity most shadow pages; without it, what suits the guest's size
   * @throws OutOfFrames
   */
  static async create(
    space: MachineSpace,
    frames: FrameInvalidator & FrameWatching,
    pager: Pager,
    order: number,
    capacity?: number,
  ): Promise<ShadowPaging> {
    const bound = capacity === undefined ? {} : { capacity };
    const shadow = await followWithShadows({ space, frames, pager, order, mayUnsync: true, ...bound });
    return new ShadowPaging(space, frames, pager, shadow);
  }

  override translations(devices: PhysicalDevices): Readonly<Record<TableFormat, Translation>> {
    const { shadow } = this;
    const { none, ...paged } = super.translations(devices);
    return {
      none,
      'two-level': { ...paged['two-level'], shadow },
      pae: { ...paged.pae, shadow },
      'four-level': { ...paged['four-level'], shadow },
    };
  }

  override async destroy(): Promise<void> {
    this.shadow.end();
    return super.destroy();
  }
}
