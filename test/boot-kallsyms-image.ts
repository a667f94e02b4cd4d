import { concatenate, numberBytes } from './boot-images.ts';

/** Images with kallsyms tables in each layout, made by the description of scripts/kallsyms.c. */

export interface Layout {
  readonly bits: 32 | 64;
  readonly markerSize: 4 | 8;
  readonly addresses: 'absolute' | 'relative' | 'relative with absolute per-CPU symbols';
  readonly addressesBehindTokens: boolean;
  readonly sequencesByName: boolean;
}

export const LAYOUTS = {
  '2.6 i386': {
    bits: 32,
    markerSize: 4,
    addresses: 'absolute',
    addressesBehindTokens: false,
    sequencesByName: false,
  },
  '2.6 x86-64': {
    bits: 64,
    markerSize: 8,
    addresses: 'absolute',
    addressesBehindTokens: false,
    sequencesByName: false,
  },
  '5.10 i386': {
    bits: 32,
    markerSize: 4,
    addresses: 'relative',
    addressesBehindTokens: false,
    sequencesByName: false,
  },
  '6.1': {
    bits: 64,
    markerSize: 4,
    addresses: 'relative with absolute per-CPU symbols',
    addressesBehindTokens: false,
    sequencesByName: false,
  },
  '6.1 with sequences': {
    bits: 64,
    markerSize: 4,
    addresses: 'relative with absolute per-CPU symbols',
    addressesBehindTokens: false,
    sequencesByName: true,
  },
  '6.12': {
    bits: 64,
    markerSize: 4,
    addresses: 'relative with absolute per-CPU symbols',
    addressesBehindTokens: true,
    sequencesByName: false,
  },
} as const satisfies Record<string, Layout>;

export interface ImageSymbol {
  readonly name: string;
  readonly address: bigint;
}

/** Names with every digit, one that is longer than 127 tokens, two at one address, and the tokens' special cases. */
export function imageSymbols(layout: Layout): ImageSymbol[] {
  const base = layout.bits === 64 ? 0xffff_ffff_8100_0000n : 0xc010_0000n;
  const perCpu =
    layout.bits === 64 && layout.addresses !== 'relative'
      ? [
          { name: 'Afixed_percpu_data', address: 0n },
          { name: 'Airq_stack', address: 0x4000n },
        ]
      : [];
  const text = Array.from({ length: 700 }, (_, index) => ({
    name: `Tfunction_${index}_${(index * 7919) % 1000}`,
    address: base + BigInt(index * 0x40),
  }));
  const end = base + 700n * 0x40n;
  const long = layout.markerSize === 4 && layout.bits === 64 ? 300 : 90;
  return [
    ...perCpu,
    ...text,
    { name: 'Tschedule', address: end },
    { name: 'Talias_of_schedule', address: end },
    { name: `t${'very_long_'.repeat(long / 10)}`, address: end + 0x100n },
    { name: 'B_end', address: end + 0x1000n },
  ];
}

const encoder = new TextEncoder();

export function buildKallsyms(
  name: keyof typeof LAYOUTS,
  before = 1000,
): { bits: 32 | 64; data: Uint8Array; base: bigint } {
  const layout: Layout = LAYOUTS[name];
  const word = layout.bits / 8;
  const symbols = imageSymbols(layout);
  const base = symbols.find(({ address }) => address >= 0x8000_0000n)?.address ?? 0n;
  const align = (bytes: Uint8Array): Uint8Array =>
    concatenate(bytes, new Uint8Array(Math.ceil(bytes.length / word) * word - bytes.length));

  // Code 1 stands for "function_", to have a token of several characters.
  const tokens = Array.from({ length: 256 }, (_, code) =>
    code === 1 ? 'function_' : code >= 0x30 && code < 0x7f ? String.fromCharCode(code) : '',
  );
  const tokenBytes = tokens.map((token) => encoder.encode(`${token}\0`));
  const tokenIndex: Uint8Array[] = [];
  let tokenAt = 0;
  for (const token of tokenBytes) {
    tokenIndex.push(numberBytes(tokenAt, 2));
    tokenAt += token.length;
  }

  const markers: Uint8Array[] = [];
  const names: Uint8Array[] = [];
  let nameAt = 0;
  symbols.forEach((symbol, index) => {
    if (index % 256 === 0) markers.push(numberBytes(nameAt, layout.markerSize));
    const codes = encoder.encode(symbol.name.replace('function_', '\x01'));
    const length =
      codes.length < 128 ? Uint8Array.of(codes.length) : Uint8Array.of((codes.length & 0x7f) | 0x80, codes.length >> 7);
    names.push(length, codes);
    nameAt += length.length + codes.length;
  });

  const addresses =
    layout.addresses === 'absolute'
      ? [align(concatenate(...symbols.map(({ address }) => numberBytes(address, word))))]
      : [
          align(
            concatenate(
              ...symbols.map(({ address }) => {
                if (layout.addresses === 'relative') return numberBytes(address - base, 4);
                return numberBytes(address < base ? address : base - 1n - address, 4);
              }),
            ),
          ),
          numberBytes(base, word),
        ];
  const namesPart = [
    align(numberBytes(symbols.length, 4)),
    align(concatenate(...names)),
    align(concatenate(...markers)),
    ...(layout.sequencesByName
      ? [align(concatenate(...symbols.map((_, index) => numberBytes((index * 31) % symbols.length, 3))))]
      : []),
    align(concatenate(...tokenBytes)),
    align(concatenate(...tokenIndex)),
  ];
  const data = concatenate(
    // Something that is no table but has the digits: a table of 16-bit characters.
    align(concatenate(...Array.from({ length: before / 2 }, (_, index) => numberBytes(index, 2)))),
    ...(layout.addressesBehindTokens ? [...namesPart, ...addresses] : [...addresses, ...namesPart]),
    new Uint8Array(64).fill(0xcc),
  );
  return { bits: layout.bits, data, base };
}
