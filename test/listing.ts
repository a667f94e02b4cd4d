/** Machine code out of lines of hexadecimal bytes, each with its meaning behind two spaces. */
export function listing(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s{2,}/)[0])
    .join('');
}
