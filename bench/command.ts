import { delimiter, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const RING1 = fileURLToPath(new URL('../bin/ring1', import.meta.url));

/**
 * The command as users start it: its first line says what it asks of Node. Needs what `npm run build` makes.
 * @param node path of the Node.js that runs it, by the name of `node`
 */
export function ring1Command(node: string, args: readonly string[]): { program: string; args: string[] } {
  return { program: 'env', args: [`PATH=${dirname(node)}${delimiter}${process.env.PATH}`, RING1, ...args] };
}
