/** Images of guests are bundled with what imports them. */
declare module '*.elf' {
  const bytes: Uint8Array;
  export default bytes;
}
