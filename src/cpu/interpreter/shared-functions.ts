import { callOf, ModuleBuilder } from '../../wasm/module.ts';
import { HOST_FUNCTIONS, type HostFunction } from '../semantics/context.ts';
import { COLD_HANDLER, importHost, STATE_TO_INTEGER } from './cold-handlers.ts';
import { emitCarry, emitFlags } from './context.ts';
import type { InterpreterOptions } from './options.ts';
import { emitEnterRegions, emitRegionLoop, REGION, REGION_LOOP } from './region-loop.ts';

/** Index of the imported table. */
const REGION_TABLE = 0;

/** Host functions that regions call. */
const FORWARDED: readonly HostFunction[] = ['sse', 'helper', 'loadSegment', 'timeStamp', 'faultAddress'];

/**
 * A module with what loops, cold handlers and regions call: flags, the way into regions and from one to the next, and host
 * functions as ones of WebAssembly, which other modules import at no cost. No other one imports the table of regions: each
 * instance that does costs time in proportion to its size.
 */
export function buildSharedFunctions(options: InterpreterOptions): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memory.size / 0x1_0000);
  module.importTable('regions', options.regionSlots);
  const host = importHost(module);
  emitFlagFunctions(module);
  for (const name of FORWARDED) emitForward(module, host, name);
  const loop = module.function(REGION_LOOP, 'regions');
  emitRegionLoop(loop.builder, options, { table: REGION_TABLE, region: module.type(REGION) });
  loop.builder.unreachable();
  const enter = module.function(COLD_HANDLER, 'enterRegions').builder;
  emitEnterRegions(enter, loop.index);
  enter.unreachable();
  return module.build();
}

/** Loops have their own: they call them for every condition whose flags are not known. */
export function emitFlagFunctions(module: ModuleBuilder): { readonly flags: number; readonly carry: number } {
  const flags = module.function(STATE_TO_INTEGER, 'flags');
  emitFlags(flags.builder);
  flags.builder.unreachable();
  const carry = module.function(STATE_TO_INTEGER, 'carry');
  emitCarry(carry.builder);
  carry.builder.unreachable();
  return { flags: flags.index, carry: carry.index };
}

function emitForward(module: ModuleBuilder, host: Record<HostFunction, number>, name: HostFunction): void {
  const parameters = new Array<'i32'>(HOST_FUNCTIONS[name]).fill('i32');
  const { builder: fn } = module.function({ parameters, result: 'i32' }, name);
  fn.return(callOf('i32', host[name], ...parameters.map((type, index) => fn.parameter(index, type))));
  fn.unreachable();
}
