import type { HostWork, Profile, ProfiledPlace } from '../inspect/profile.ts';

/**
 * A profile as lines for a reader: how the time divides, then the places and the host's work that took most of it.
 * Shares are of guest and host together.
 * @param top lines of each list
 */
export function profileText(profile: Profile, top: number): string {
  const { guestSeconds, hostSeconds, instructions, regionInstructions, samples, places, hostWork } = profile;
  const all = guestSeconds + hostSeconds;
  const secondsOf = (mode: ProfiledPlace['mode']): number =>
    places.reduce((sum, place) => sum + (place.mode === mode ? place.seconds : 0), 0);
  const part = (name: string, seconds: number): string =>
    `${name} ${seconds.toFixed(2)} s (${percent(seconds, all)} %)`;
  return [
    [part('kernel', secondsOf('kernel')), part('user', secondsOf('user')), part('host', hostSeconds)].join(', '),
    `${(instructions / 1e6).toFixed(0)} M instructions, ${percent(regionInstructions, instructions)} % of them compiled, ${samples} samples`,
    '',
    ' time %   seconds  compiled %  where',
    ...places.slice(0, top).map((place) => placeLine(place, all)),
    ...restLine('places', places.slice(top), all),
    '',
    ' time %   seconds       times  what the host did',
    ...hostWork.slice(0, top).map((work) => workLine(work, all)),
    ...restLine('kinds of work', hostWork.slice(top), all),
    '',
  ].join('\n');
}

/** Of the third column. */
const WIDTH = 10;

function placeLine(place: ProfiledPlace, all: number): string {
  const { mode, name, seconds, instructions, regionInstructions } = place;
  return `${timeColumns(seconds, all)}  ${percent(regionInstructions, instructions).padStart(WIDTH)}  ${mode.padEnd(6)} ${name}`;
}

function workLine({ name, count, seconds }: HostWork, all: number): string {
  return `${timeColumns(seconds, all)}  ${String(count).padStart(WIDTH)}  ${name}`;
}

function restLine(what: string, rest: readonly { readonly seconds: number }[], all: number): string[] {
  if (rest.length === 0) return [];
  const seconds = rest.reduce((sum, entry) => sum + entry.seconds, 0);
  return [`${timeColumns(seconds, all)}  ${' '.repeat(WIDTH)}  ${rest.length} more ${what}`];
}

function timeColumns(seconds: number, all: number): string {
  return `${percent(seconds, all).padStart(7)}  ${seconds.toFixed(3).padStart(8)}`;
}

function percent(part: number, whole: number): string {
  return (whole === 0 ? 0 : (part / whole) * 100).toFixed(1);
}
