import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Checks that imports point downward only. Each folder of src/ may import itself and the folders listed for it. The
 * order is that of the architecture: an interface stands on operations, these on paging, that on host memory, that on
 * the processor and its frames.
 */
const BOTTOM = ['x86', 'archive'];
const MEMORY = [...BOTTOM, 'memory'];
const CPU = [...MEMORY, 'wasm', 'cpu'];
const MM = [...CPU, 'mm'];
const PAGING = [...MM, 'paging'];
const OPS = [...PAGING, 'ops'];
const INSPECT = [...OPS, 'boot', 'inspect'];
const DEVICES = [...INSPECT, 'devices'];
const SNAPSHOT = [...DEVICES, 'snapshot'];
const DOMAIN = [...SNAPSHOT, 'domain', 'api.ts'];
const MICROVM = [...DOMAIN, 'microvm'];
const INTERFACES = [...MICROVM, 'interfaces'];
/** Puts the parts together; what a user imports is index.ts. */
const HOST = [...INTERFACES, 'host'];
const CORE = [...HOST, 'index.ts'];

const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  x86: BOTTOM,
  wasm: ['wasm'],
  // What does not fit is the user's input.
  archive: [...BOTTOM, 'boot'],
  memory: MEMORY,
  cpu: CPU,
  mm: MM,
  paging: PAGING,
  ops: OPS,
  boot: ['wasm', 'boot'],
  inspect: INSPECT,
  devices: DEVICES,
  snapshot: SNAPSHOT,
  domain: DOMAIN,
  microvm: MICROVM,
  interfaces: INTERFACES,
  // Disks and swap stores that a user brings are back ends; a profile is what inspection found; threads translate code.
  'api.ts': ['api.ts', 'cpu', 'devices', 'mm', 'inspect', 'snapshot'],
  host: HOST,
  'index.ts': CORE,
  node: [...CORE, 'node'],
  browser: [...CORE, 'browser'],
  web: [...CORE, 'browser', 'web'],
  cli: [...CORE, 'node', 'cli', 'guests'],
};

/** Folders that may use Node. */
const NODE_FOLDERS = ['node', 'cli'];
/** Packages that work in every browser; the core may use no other. */
const CORE_PACKAGES = ['cborg', 'fflate'];

export interface SourceFile {
  /** Relative to the repository's root. */
  readonly path: string;
  readonly text: string;
}

/** @returns one line for each import that is not allowed. */
export function findForbiddenImports(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ path, text }) =>
    importsOf(text).flatMap((specifier) => {
      const reason = forbiddenReason(path, specifier);
      return reason === undefined ? [] : [`${path}: imports ${specifier}: ${reason}`];
    }),
  );
}

/** Specifiers of import and export declarations and of import() with a constant. */
function importsOf(text: string): string[] {
  const withoutComments = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const pattern =
    /(?:^|\n|;)\s*(?:import|export)\s(?:[^'"`;]*?\sfrom\s*)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;
  return [...withoutComments.matchAll(pattern)].map((match) => (match[1] ?? match[2]) as string);
}

function forbiddenReason(path: string, specifier: string): string | undefined {
  const from = folderOf(path);
  if (!specifier.startsWith('.')) {
    if (NODE_FOLDERS.includes(from)) return undefined;
    if (specifier.startsWith('node:')) return 'the core works without Node';
    const [name = ''] = specifier.split('/');
    if (from === 'web' || CORE_PACKAGES.includes(name)) return undefined;
    return `the core may use no package but ${CORE_PACKAGES.join(', ')}`;
  }
  const target = normalize(join(dirname(path), specifier));
  if (!target.startsWith('src/')) {
    const outside = target.split('/')[0] as string;
    if (target === 'package.json' && NODE_FOLDERS.includes(from)) return undefined;
    return ALLOWED[from]?.includes(outside) ? undefined : 'it lies outside src/';
  }
  const to = folderOf(target);
  const allowed = ALLOWED[from];
  if (allowed === undefined) return `scripts/check-imports.ts does not know src/${from}`;
  if (!allowed.includes(to)) return `${from} may import only ${allowed.join(', ')}`;
  if (from === 'interfaces' && to === 'interfaces' && target.split('/')[2] !== path.split('/')[2]) {
    return 'interfaces never import each other';
  }
  return undefined;
}

/** "src/cpu/jit/x.ts" → "cpu", "src/index.ts" → "index.ts". */
function folderOf(path: string): string {
  return path.split('/')[1] as string;
}

async function sourceFiles(root: string): Promise<SourceFile[]> {
  const entries = await readdir(join(root, 'src'), { recursive: true });
  const paths = entries.filter((entry) => entry.endsWith('.ts') && !entry.endsWith('.d.ts'));
  return Promise.all(
    paths.map(async (entry) => {
      const path = join(root, 'src', entry);
      return { path: relative(root, path), text: await readFile(path, 'utf8') };
    }),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problems = findForbiddenImports(await sourceFiles(join(dirname(fileURLToPath(import.meta.url)), '..')));
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
