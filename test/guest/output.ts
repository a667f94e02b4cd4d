import type { VirtualMachine } from '../../src/index.ts';

/** All that a guest prints until it ends. */
export async function outputOf(machine: VirtualMachine): Promise<string> {
  const reader = machine.console.output.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (let next = await reader.read(); !next.done; next = await reader.read()) text += decoder.decode(next.value);
  return text;
}
