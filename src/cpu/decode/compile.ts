/**
 * Compiles opcode rows into the flat tables the decoder indexes.
 *
 *   direct[(map << 8 | opcode) << 2 | prefix class]   ── row number ─────────────────────────► rows[]
 *                                                     └─ firstModRmTable + n, then
 *   byModRm[n << 8 | ModRM byte]                      ── row number ─────────────────────────► rows[]
 *
 * A ModRM table exists only where ModRM takes part in choosing the row. So an opcode that is invalid whatever follows
 * is known to be invalid without fetching another byte.
 */
import type { Feature } from './features.ts';
import type { OpcodeRow } from './rows.ts';

/** What the decoder needs of a row. */
export interface DecoderRow {
  readonly operation: string;
  /** `RowFlag` bits; 0 for an invalid encoding. */
  readonly flags: number;
  readonly operandCount: number;
  /** Packed operands (notation.ts); always four, 0 where there is none, so that all rows have one shape. */
  readonly operands: readonly number[];
  /** If REX has a bit of `rexMask`, `rexRow` applies instead. */
  readonly rexMask: number;
  readonly rexRow: DecoderRow | null;
}

export interface DecoderTables {
  direct: Uint16Array;
  byModRm: Uint16Array;
  rows: readonly DecoderRow[];
}

/** Numbers in `direct` from here on name a ModRM table. */
export const firstModRmTable = 0x8000;

const directEntries = 4 << 10;

/** All encodings of one opcode under one prefix class: the rows for the 256 ModRM bytes. */
type Cells = (OpcodeRow | null)[];

const invalidRow: DecoderRow = {
  operation: 'invalid',
  flags: 0,
  operandCount: 0,
  operands: [0, 0, 0, 0],
  rexMask: 0,
  rexRow: null,
};

function decoderRow(row: OpcodeRow, rexMask: number, rexRow: DecoderRow | null): DecoderRow {
  return Object.freeze({
    operation: row.operation,
    flags: row.flags,
    operandCount: row.operands.length,
    operands: Object.freeze([...row.operands, 0, 0, 0, 0].slice(0, 4)),
    rexMask,
    rexRow,
  });
}

/** How many encodings a row covers: the fewer, the more it demands. */
function coverage(row: OpcodeRow): number {
  return row.prefixClasses.length * row.opcodeCount * (row.modRm?.size ?? 256);
}

/** `rows` of one kind of code, laid out cell by cell; a row that demands more overwrites one that demands less. */
function layOut(rows: readonly OpcodeRow[]): Map<number, Cells> {
  const cellsByKey = new Map<number, Cells>();
  for (const row of [...rows].sort((a, b) => coverage(b) - coverage(a))) {
    for (let opcode = row.opcode; opcode < row.opcode + row.opcodeCount; opcode++) {
      for (const prefixClass of row.prefixClasses) {
        const key = (((row.map << 8) | opcode) << 2) | prefixClass;
        const cells = cellsByKey.get(key) ?? new Array<OpcodeRow | null>(256).fill(null);
        cellsByKey.set(key, cells);
        for (let modRm = 0; modRm < 256; modRm++) {
          if (row.modRm && !row.modRm.has(modRm)) continue;
          const other = cells[modRm];
          if (other && coverage(other) === coverage(row)) {
            throw new Error(`opcode table: "${other.text}" and "${row.text}" cover the same encoding`);
          }
          cells[modRm] = row;
        }
      }
    }
  }
  return cellsByKey;
}

/**
 * Tables for 64-bit code (`longMode`) or for 16- and 32-bit code, with the rows whose feature is in `features`.
 *
 * Throws if two rows which demand equally much cover the same encoding.
 */
export function compileTables(
  allRows: readonly OpcodeRow[],
  features: ReadonlySet<Feature>,
  longMode: boolean,
): DecoderTables {
  const available = allRows.filter(
    (row) => features.has(row.feature) && (longMode ? row.inLongCode : row.inLegacyCode),
  );
  const plain = layOut(available.filter((row) => row.rex === 0));
  const refined = layOut(available.filter((row) => row.rex !== 0));

  const rows: DecoderRow[] = [invalidRow];
  const numbers = new Map<OpcodeRow | null, Map<OpcodeRow | null, number>>();
  const number = (row: OpcodeRow | null, rexRow: OpcodeRow | null): number => {
    if (!row && !rexRow) return 0;
    const ofRow = numbers.get(row) ?? new Map<OpcodeRow | null, number>();
    numbers.set(row, ofRow);
    const known = ofRow.get(rexRow);
    if (known !== undefined) return known;
    const rex = rexRow && decoderRow(rexRow, 0, null);
    const rexMask = rexRow?.rex ?? 0;
    const found = rows.push(row ? decoderRow(row, rexMask, rex) : { ...invalidRow, rexMask, rexRow: rex }) - 1;
    ofRow.set(rexRow, found);
    return found;
  };
  /** A row number for each ModR/M byte; most are the same as the one before. */
  const tableOf = (cells: Cells | undefined, refinedCells: Cells | undefined): Uint16Array => {
    const table = new Uint16Array(256);
    for (let modRm = 0; modRm < 256; modRm++) {
      const row = cells?.[modRm] ?? null;
      const rexRow = refinedCells?.[modRm] ?? null;
      const same = modRm > 0 && row === (cells?.[modRm - 1] ?? null) && rexRow === (refinedCells?.[modRm - 1] ?? null);
      table[modRm] = same ? (table[modRm - 1] as number) : number(row, rexRow);
    }
    return table;
  };

  const direct = new Uint16Array(directEntries);
  const modRmTables: Uint16Array[] = [];
  const tableNumbers = new Map<string, number>();
  for (const key of new Set([...plain.keys(), ...refined.keys()])) {
    const table = tableOf(plain.get(key), refined.get(key));
    const first = table[0] ?? 0;
    if (table.every((entry) => entry === first)) {
      direct[key] = first;
      continue;
    }
    const name = table.join();
    let tableNumber = tableNumbers.get(name);
    if (tableNumber === undefined) {
      tableNumber = modRmTables.push(table) - 1;
      tableNumbers.set(name, tableNumber);
    }
    direct[key] = firstModRmTable + tableNumber;
  }
  const byModRm = new Uint16Array(modRmTables.length << 8);
  for (const [index, table] of modRmTables.entries()) byModRm.set(table, index << 8);
  return { direct, byModRm, rows: Object.freeze(rows) };
}
