/** What marks the beginning and the end of what a command prints; typed in two parts, so that an echo is neither. */
const BEGIN = 'ring1-begin';
const END = 'ring1-end';

/**
 * One command at a guest's shell: the line to type, and what comes back, without the shell's echo and prompt.
 * `feed` what the guest prints.
 */
export class ShellCommand {
  readonly line: string;
  readonly #decoder = new TextDecoder();
  readonly #print: (line: string) => void;
  #partial = '';
  #hasBegun = false;
  /** The command's exit status, when it has ended. */
  status: number | undefined;

  /** @param print is given each line of the answer, without its line feed */
  constructor(command: string, print: (line: string) => void) {
    const split = (marker: string): string => `${marker.slice(0, 5)}"${marker.slice(5)}"`;
    this.line = `echo ${split(BEGIN)}; ${command}\necho ${split(END)} $?\n`;
    this.#print = print;
  }

  feed(bytes: Uint8Array): void {
    const lines = (this.#partial + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#partial = lines.pop() ?? '';
    for (const line of lines) this.#take(line.replaceAll('\r', ''));
  }

  #take(line: string): void {
    if (this.status !== undefined) return;
    if (!this.#hasBegun) {
      this.#hasBegun = line.endsWith(BEGIN);
      return;
    }
    const end = line.indexOf(`${END} `);
    if (end >= 0) {
      this.status = Number(line.slice(end + END.length + 1));
    } else if (!line.includes(`echo ${END.slice(0, 5)}"`)) {
      this.#print(line);
    }
  }
}
