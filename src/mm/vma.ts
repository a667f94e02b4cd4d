import { type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import type { PteNotifier } from './notifier.ts';
import type { CachedFile } from './page-cache.ts';

/** The pages of a file behind an area; what is written to them stays private. */
export interface FileBacking {
  readonly file: CachedFile;
  /** Page of the file at the start of the area. */
  readonly index: number;
}

/** One area of an address space: [start, end), whole pages, of one backing. Anonymous without a file. */
export interface Vma {
  readonly start: HostVirtual;
  readonly end: HostVirtual;
  readonly backing: FileBacking | undefined;
  /** In order; a split copies the registrations, and only areas with the same ones are merged. */
  readonly notifiers: readonly PteNotifier[];
}

/** The page of the file that stands behind an address of a file-backed area. */
export function fileIndexAt(vma: Vma, backing: FileBacking, address: HostVirtual): number {
  return backing.index + (address - vma.start) / PAGE_SIZE;
}

/** The part of an area that lies in [start, end), with the same registrations. */
export function partOf(vma: Vma, start: HostVirtual, end: HostVirtual): Vma {
  const from = Math.max(vma.start, start) as HostVirtual;
  const to = Math.min(vma.end, end) as HostVirtual;
  const backing = vma.backing && { file: vma.backing.file, index: fileIndexAt(vma, vma.backing, from) };
  return { start: from, end: to, backing, notifiers: vma.notifiers };
}

/** The areas of an address space: in order of their addresses, never overlapping, neighbours merged where they can be. */
export class VmaList {
  #areas: Vma[] = [];

  get all(): readonly Vma[] {
    return this.#areas;
  }

  find(address: HostVirtual): Vma | undefined {
    return this.#areas.find((vma) => vma.start <= address && address < vma.end);
  }

  /** Areas that overlap [start, end). */
  within(start: HostVirtual, end: HostVirtual): readonly Vma[] {
    return this.#areas.filter((vma) => vma.start < end && start < vma.end);
  }

  insert(vma: Vma): void {
    this.#areas.push(vma);
    this.#settle();
  }

  /** Takes [start, end) out, splitting areas at its ends; what was taken, in order. */
  take(start: HostVirtual, end: HostVirtual): Vma[] {
    const taken: Vma[] = [];
    const rest: Vma[] = [];
    for (const vma of this.#areas) {
      if (vma.start >= end || vma.end <= start) {
        rest.push(vma);
        continue;
      }
      taken.push(partOf(vma, start, end));
      if (vma.start < start) rest.push(partOf(vma, vma.start, start));
      if (vma.end > end) rest.push(partOf(vma, end, vma.end));
    }
    this.#areas = rest;
    this.#settle();
    return taken;
  }

  /** Replaces the registrations of what lies in [start, end). */
  changeNotifiers(start: HostVirtual, end: HostVirtual, change: (vma: Vma) => readonly PteNotifier[]): void {
    for (const part of this.take(start, end)) this.#areas.push({ ...part, notifiers: change(part) });
    this.#settle();
  }

  #settle(): void {
    this.#areas.sort((a, b) => a.start - b.start);
    const merged: Vma[] = [];
    for (const vma of this.#areas) {
      const before = merged[merged.length - 1];
      if (before && mayMerge(before, vma)) merged[merged.length - 1] = { ...before, end: vma.end };
      else merged.push(vma);
    }
    this.#areas = merged;
  }
}

function mayMerge(first: Vma, second: Vma): boolean {
  if (first.end !== second.start) return false;
  const { notifiers } = first;
  const sameNotifiers =
    notifiers.length === second.notifiers.length &&
    notifiers.every((notifier, position) => notifier === second.notifiers[position]);
  if (!sameNotifiers || first.backing?.file !== second.backing?.file) return false;
  return !first.backing || fileIndexAt(first, first.backing, first.end) === second.backing?.index;
}
