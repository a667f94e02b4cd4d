import type { VirtualMachine } from '../../src/index.ts';

/** All that a guest prints until it ends. @param printed is told what there is so far */
export async function outputOf(machine: VirtualMachine, printed: (text: string) => void = () => {}): Promise<string> {
  const reader = machine.console.output.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    text += decoder.decode(next.value);
    printed(text);
  }
  return text;
}
