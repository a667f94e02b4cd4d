import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { XenstoreRing } from '../src/devices/xen/xenstore-ring.ts';
import { Xenstore } from '../src/devices/xenstore.ts';
import { createDomainTree, createHostTree, removeDomainTree } from '../src/devices/xenstore-domain.ts';
import { childOf, formatPermission, isWithin, parentOf, resolvePath } from '../src/devices/xenstore-node.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { TestMachine } from './xen-events-machine.ts';
import { parseReplies, requestBytes, StoreClient, XS } from './xenstore-client.ts';

const UUID = 'e5af58fe-7017-4277-96cf-8e9a1e7f3a7e';
const OK = 'OK\0';

let store: Xenstore;
let guest: StoreClient;

function domainTree(domain: number, uuid = UUID): void {
  createDomainTree(store, {
    domain,
    name: `g${domain}`,
    uuid,
    memoryKiB: 262144,
    vcpus: 1,
    store: { port: 1, mfn: 232449 },
    console: { port: 2, mfn: 232450 },
    kernel: '/guest/vmlinuz',
    ramdisk: '/guest/initrd',
    commandLine: 'console=hvc0 bench=nop dump=dmesg fin=idle',
    startTime: 1795230452.35,
    terminal: '/dev/pts/0',
  });
}

beforeEach(() => {
  store = new Xenstore();
  createHostTree(store);
  domainTree(1);
  guest = new StoreClient(store.introduce(1));
});

function dump(path = '/'): string[] {
  const node = store.tree.nodes.get(path)!;
  const permissions = node.permissions.map(formatPermission).join(',');
  const own = `${path} = "${new TextDecoder().decode(node.value)}"   (${permissions})`;
  return [...(path === '/' ? [] : [own]), ...node.children.flatMap((child) => dump(childOf(path, child)))];
}

describe('paths', () => {
  it.each([
    ['name', '/local/domain/1/name'],
    ['device/vbd/51712', '/local/domain/1/device/vbd/51712'],
    ['/', '/'],
    ['/local/domain/2/x', '/local/domain/2/x'],
    ['@introduceDomain', '@introduceDomain'],
    ['', null],
    ['a//b', null],
    ['/a/', null],
    ['a b', null],
    ['a.b', null],
    ['ä', null],
    ['/a\n', null],
    ['x'.repeat(2048), `/local/domain/1/${'x'.repeat(2048)}`],
    ['x'.repeat(2049), null],
    [`/a${'/b'.repeat(1023)}`, `/a${'/b'.repeat(1023)}`],
    [`/a${'/b'.repeat(1024)}`, null],
  ])('of a guest: %s', (name, path) => {
    expect(resolvePath(1, name)).toBe(path);
  });

  it('know their parents and what is within', () => {
    expect(parentOf('/a')).toBe('/');
    expect(parentOf('/a/b')).toBe('/a');
    expect(isWithin('/a/b', '/a')).toBe(true);
    expect(isWithin('/ab', '/a')).toBe(false);
    expect(isWithin('/a', '/')).toBe(true);
    expect(isWithin('/a', '/a')).toBe(true);
  });
});

describe('the tree of a domain', () => {
  it('is that of Xen 4.17 once the kernel has said what it can do', () => {
    for (const feature of ['poweroff', 'reboot', 'suspend']) {
      expect(guest.ask(XS.WRITE, `control/feature-${feature}\0${1}`)).toBe(OK);
    }
    const golden = readFileSync(new URL('./xenstore-xen417.txt', import.meta.url), 'utf8')
      .trimEnd()
      .split('\n');
    expect(dump()).toEqual(golden);
  });

  it('goes without leaving anything', () => {
    const before = store.tree.nodes.size;
    domainTree(2, 'aaaa');
    expect(new StoreClient(store.introduce(2)).ask(XS.WRITE, 'data/x\0y')).toBe(OK);
    store.release(2);
    removeDomainTree(store, 2);
    expect(store.tree.nodes.size).toBe(before);
    expect(store.tree.owned.get(2) ?? 0).toBe(0);
  });

  it('answers what a booting Linux asks', () => {
    expect(guest.ask(XS.READ, 'memory/target\0')).toBe('262144');
    expect(guest.ask(XS.READ, 'memory/memory_static_max\0')).toBe('ENOENT');
    expect(guest.ask(XS.READ, 'control/sysrq\0')).toBe('');
    expect(guest.ask(XS.DIRECTORY, 'backend\0')).toBe('ENOENT');
    expect(guest.ask(XS.DIRECTORY, 'device\0')).toBe('suspend\0');
    expect(guest.ask(XS.READ, 'cpu/0/availability\0')).toBe('online');
    expect(guest.ask(XS.WATCH, 'control/shutdown\0ffffffff82c1\0')).toBe(OK);
    expect(guest.events()).toEqual(['control/shutdown|ffffffff82c1']);
    store.write('/local/domain/1/control/shutdown', 'poweroff');
    expect(guest.events()).toEqual(['control/shutdown|ffffffff82c1']);
    const transaction = guest.start();
    expect(guest.ask(XS.READ, 'control/shutdown\0', transaction)).toBe('poweroff');
    expect(guest.ask(XS.WRITE, 'control/shutdown\0', transaction)).toBe(OK);
    expect(guest.end(transaction)).toBe(OK);
    expect(store.read('/local/domain/1/control/shutdown')).toBe('');
  });
});

describe('requests', () => {
  it('read and write any bytes', () => {
    const value = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join('');
    expect(guest.ask(XS.WRITE, `data/x\0${value}`)).toBe(OK);
    expect(guest.ask(XS.READ, 'data/x\0')).toBe(value);
  });

  it('create missing parents, owned by the guest', () => {
    expect(guest.ask(XS.WRITE, 'data/a/b/c\0v')).toBe(OK);
    expect(guest.ask(XS.DIRECTORY, 'data/a\0')).toBe('b\0');
    expect(guest.ask(XS.READ, 'data/a/b\0')).toBe('');
    expect(guest.ask(XS.GET_PERMS, 'data/a/b\0')).toBe('n1\0');
  });

  it('make directories and leave existing ones alone', () => {
    expect(guest.ask(XS.WRITE, 'data/a\0v')).toBe(OK);
    expect(guest.ask(XS.MKDIR, 'data/a\0')).toBe(OK);
    expect(guest.ask(XS.READ, 'data/a\0')).toBe('v');
    expect(guest.ask(XS.MKDIR, 'data/b\0')).toBe(OK);
    expect(guest.ask(XS.DIRECTORY, 'data\0')).toBe('a\0b\0');
  });

  it('remove a node with all below it', () => {
    guest.ask(XS.WRITE, 'data/a/b/c\0v');
    expect(guest.ask(XS.RM, 'data/a\0')).toBe(OK);
    expect(guest.ask(XS.READ, 'data/a/b/c\0')).toBe('ENOENT');
    expect(guest.ask(XS.DIRECTORY, 'data\0')).toBe('');
    expect(guest.ask(XS.RM, 'data/a\0')).toBe(OK);
    expect(guest.ask(XS.RM, 'data/a/b\0')).toBe('ENOENT');
    expect(guest.ask(XS.RM, '/\0')).toBe('EINVAL');
  });

  it('tell about domains', () => {
    expect(guest.ask(XS.GET_DOMAIN_PATH, '1\0')).toBe('/local/domain/1\0');
    expect(guest.ask(XS.GET_DOMAIN_PATH, 'x\0')).toBe('EINVAL');
    expect(guest.ask(XS.IS_DOMAIN_INTRODUCED, '1\0')).toBe('T\0');
    expect(guest.ask(XS.IS_DOMAIN_INTRODUCED, '0\0')).toBe('T\0');
    expect(guest.ask(XS.IS_DOMAIN_INTRODUCED, '9\0')).toBe('F\0');
  });

  it.each([XS.CONTROL, XS.INTRODUCE, XS.RELEASE, XS.RESUME, XS.SET_TARGET])('of type %i are the host’s own', (type) => {
    expect(guest.ask(type, '1\0')).toBe('EACCES');
  });

  it.each([15, 16, 20, 23, 0xffff_ffff])('of type %i do not exist', (type) => {
    expect(guest.ask(type, '1\0')).toBe('ENOSYS');
  });

  it.each([
    ['no path', XS.READ, ''],
    ['no NUL', XS.READ, 'name'],
    ['two paths', XS.READ, 'name\0name\0'],
    ['a bad path', XS.READ, 'na me\0'],
    ['a write without NUL', XS.WRITE, 'data/x'],
    ['a watch without token', XS.WATCH, 'name\0'],
    ['a watch without NUL', XS.WATCH, 'name\0token'],
    ['no permissions', XS.SET_PERMS, 'data\0'],
    ['a bad permission', XS.SET_PERMS, 'data\0n1\0x1\0'],
    ['a list offset that is none', XS.DIRECTORY_PART, 'data\0-1\0'],
    ['an event’s name as a node', XS.READ, '@releaseDomain\0'],
  ])('refuse %s', (_name, type, payload) => {
    expect(guest.ask(type, payload)).toBe('EINVAL');
  });

  it('list a large node in pieces only', () => {
    const names = Array.from({ length: 900 }, (_, index) => `node-${index}`);
    for (const name of names) expect(guest.ask(XS.MKDIR, `data/${name}\0`)).toBe(OK);
    expect(guest.ask(XS.DIRECTORY, 'data\0')).toBe('E2BIG');
    const found: string[] = [];
    for (let offset = 0; ; ) {
      const [generation, ...part] = guest.ask(XS.DIRECTORY_PART, `data\0${offset}\0`).split('\0');
      expect(generation).toMatch(/^\d+$/);
      part.pop(); // what follows the last NUL
      const last = part.at(-1) === '';
      found.push(...(last ? part.slice(0, -1) : part));
      offset = found.reduce((sum, name) => sum + name.length + 1, 0);
      if (last) break;
    }
    expect(found).toEqual(names);
    expect(guest.ask(XS.DIRECTORY_PART, `data\0${999_999_999}\0`)).toMatch(/^\d+\0\0$/);
  });
});

describe('permissions', () => {
  it('keep a guest out of what is not shown to it', () => {
    expect(guest.ask(XS.READ, '/tool\0')).toBe('EACCES');
    expect(guest.ask(XS.READ, '/no-such\0')).toBe('EACCES');
    expect(guest.ask(XS.DIRECTORY, '/\0')).toBe('EACCES');
    expect(guest.ask(XS.WRITE, 'name\0other')).toBe('EACCES');
    expect(guest.ask(XS.WRITE, 'new\0x')).toBe('EACCES');
    expect(guest.ask(XS.RM, 'device\0')).toBe('EACCES');
    expect(guest.ask(XS.MKDIR, '/mine\0')).toBe('EACCES');
    expect(guest.ask(XS.SET_PERMS, 'name\0n1\0')).toBe('EACCES');
    expect(store.read('/local/domain/1/name')).toBe('g1');
  });

  it('let an owner give access, but not itself away', () => {
    const other = new StoreClient(store.introduce(2));
    guest.ask(XS.WRITE, 'data/x\0v');
    expect(other.ask(XS.READ, '/local/domain/1/data/x\0')).toBe('EACCES');
    expect(guest.ask(XS.SET_PERMS, 'data/x\0n1\0r2\0')).toBe(OK);
    expect(guest.ask(XS.GET_PERMS, 'data/x\0')).toBe('n1\0r2\0');
    expect(other.ask(XS.READ, '/local/domain/1/data/x\0')).toBe('v');
    expect(other.ask(XS.WRITE, '/local/domain/1/data/x\0w')).toBe('EACCES');
    expect(guest.ask(XS.SET_PERMS, 'data/x\0n1\0b2\0')).toBe(OK);
    expect(other.ask(XS.WRITE, '/local/domain/1/data/x\0w')).toBe(OK);
    expect(other.ask(XS.SET_PERMS, '/local/domain/1/data/x\0n2\0')).toBe('EACCES');
    expect(guest.ask(XS.SET_PERMS, 'data/x\0n2\0')).toBe('EPERM');
    expect(guest.ask(XS.SET_PERMS, 'data/x\0n1\0r2\0r3\0r4\0r5\0r6\0')).toBe('ENOSPC');
  });

  it('default to what the owner’s entry says', () => {
    const other = new StoreClient(store.introduce(2));
    guest.ask(XS.WRITE, 'data/x\0v');
    guest.ask(XS.SET_PERMS, 'data/x\0r1\0n3\0');
    expect(other.ask(XS.READ, '/local/domain/1/data/x\0')).toBe('v');
    expect(new StoreClient(store.introduce(3)).ask(XS.READ, '/local/domain/1/data/x\0')).toBe('EACCES');
  });
});

describe('watches', () => {
  it('fire once at once and then for the path and all below it', () => {
    expect(guest.ask(XS.WATCH, 'data\0t\0')).toBe(OK);
    expect(guest.events()).toEqual(['data|t']);
    guest.ask(XS.WRITE, 'data/a/b\0v');
    guest.ask(XS.WRITE, 'data\0v');
    guest.ask(XS.WRITE, 'error\0v');
    expect(guest.events()).toEqual(['data/a/b|t', 'data|t']);
  });

  it('tell absolute paths to who asked with one', () => {
    guest.ask(XS.WATCH, '/local/domain/1/data\0t\0');
    guest.ask(XS.WRITE, 'data/a\0v');
    expect(guest.events()).toEqual(['/local/domain/1/data|t', '/local/domain/1/data/a|t']);
  });

  it('may wait for a node that does not exist', () => {
    expect(guest.ask(XS.WATCH, 'data/x\0t\0')).toBe(OK);
    guest.events();
    guest.ask(XS.WRITE, 'data/x/y\0v');
    expect(guest.events()).toEqual(['data/x/y|t']);
  });

  it('hear that their node went with a parent', () => {
    guest.ask(XS.WRITE, 'data/a/b\0v');
    guest.ask(XS.WATCH, 'data/a/b\0deep\0');
    guest.ask(XS.WATCH, 'data\0high\0');
    guest.ask(XS.WATCH, 'data/a/c\0absent\0');
    guest.events();
    guest.ask(XS.RM, 'data/a\0');
    expect(guest.events().sort()).toEqual(['data/a/b|deep', 'data/a|high']);
  });

  it('do not fire for what changes nothing', () => {
    guest.ask(XS.WRITE, 'data/a\0v');
    guest.ask(XS.WATCH, 'data\0t\0');
    guest.events();
    guest.ask(XS.MKDIR, 'data/a\0');
    guest.ask(XS.RM, 'data/none\0');
    guest.ask(XS.WRITE, 'name\0v');
    expect(guest.events()).toEqual([]);
  });

  it('fire for permissions', () => {
    guest.ask(XS.WATCH, 'data\0t\0');
    guest.events();
    guest.ask(XS.SET_PERMS, 'data\0n1\0r0\0');
    expect(guest.events()).toEqual(['data|t']);
  });

  it('do not tell of nodes that the guest may not read', () => {
    guest.ask(XS.WATCH, '/\0root\0');
    guest.ask(XS.WATCH, '@releaseDomain\0gone\0');
    expect(guest.events()).toEqual(['/|root', '@releaseDomain|gone']);
    store.write('/tool/secret', 'x');
    store.remove('/tool/secret');
    store.introduce(5);
    store.release(5);
    store.write('/local/domain/1/name', 'new');
    expect(guest.events()).toEqual(['/local/domain/1/name|root']);
  });

  it('are told apart by path and token', () => {
    expect(guest.ask(XS.WATCH, 'data\0t\0')).toBe(OK);
    expect(guest.ask(XS.WATCH, 'data\0t\0')).toBe('EEXIST');
    expect(guest.ask(XS.WATCH, 'data\0u\0')).toBe(OK);
    expect(guest.ask(XS.UNWATCH, 'data\0v\0')).toBe('ENOENT');
    expect(guest.ask(XS.UNWATCH, 'data\0t\0')).toBe(OK);
    guest.events();
    guest.ask(XS.WRITE, 'data\0v');
    expect(guest.events()).toEqual(['data|u']);
  });

  it('that were given up say nothing more', () => {
    guest.ask(XS.WATCH, 'data\0t\0');
    guest.ask(XS.WATCH, 'data\0u\0');
    guest.events();
    store.write('/local/domain/1/data', 'v');
    guest.ask(XS.UNWATCH, 'data\0t\0');
    expect(guest.events()).toEqual(['data|u']);
  });

  it('end together with RESET_WATCHES, transactions too', () => {
    guest.ask(XS.WATCH, 'data\0t\0');
    const transaction = guest.start();
    expect(guest.ask(XS.RESET_WATCHES, '\0')).toBe(OK);
    guest.events();
    guest.ask(XS.WRITE, 'data\0v');
    expect(guest.events()).toEqual([]);
    expect(guest.end(transaction)).toBe('ENOENT');
  });

  it('merge equal events that were not read yet', () => {
    guest.ask(XS.WATCH, 'memory/target\0t\0');
    guest.events();
    for (let value = 0; value < 5000; value++) store.write('/local/domain/1/memory/target', String(value));
    expect(guest.events()).toEqual(['memory/target|t']);
  });
});

describe('the host', () => {
  it('hears of what guests write, after the write is done', () => {
    const heard: string[] = [];
    const watch = store.watch('/local/domain/1/control', (path) => heard.push(`${path}=${store.read(path)}`));
    guest.ask(XS.WRITE, 'control/feature-reboot\0yes');
    expect(heard).toEqual(['/local/domain/1/control=', '/local/domain/1/control/feature-reboot=yes']);
    store.unwatch(watch);
    guest.ask(XS.WRITE, 'control/feature-reboot\0no');
    expect(heard.length).toBe(2);
  });

  it('may use the store while it listens', () => {
    store.watch('/local/domain/1/data/ping', (path) => {
      const value = store.read(path);
      if (value !== undefined && Number(value) < 3) store.write(path, String(Number(value) + 1));
    });
    guest.ask(XS.WRITE, `data/ping\0${0}`);
    expect(store.read('/local/domain/1/data/ping')).toBe('3');
  });

  it('hears of domains that come and go', () => {
    const heard: string[] = [];
    for (const name of ['@introduceDomain', '@releaseDomain']) store.watch(name, (path) => heard.push(path));
    heard.length = 0;
    store.introduce(8);
    store.release(8);
    store.release(8);
    expect(heard).toEqual(['@introduceDomain', '@releaseDomain']);
  });

  it('is told at once that a path of its own is wrong', () => {
    expect(() => store.write('relative', '')).toThrow(/relative is not an absolute XenStore path/);
    expect(() => store.write('/a', 'x'.repeat(4097))).toThrow(/4097 bytes/);
  });
});

describe('transactions', () => {
  it('show their changes to nobody before they are committed', () => {
    guest.ask(XS.WATCH, 'data\0t\0');
    guest.events();
    const transaction = guest.start();
    guest.ask(XS.WRITE, 'data/x\0v', transaction);
    guest.ask(XS.WRITE, 'data/x\0w', transaction);
    expect(guest.ask(XS.READ, 'data/x\0', transaction)).toBe('w');
    expect(guest.ask(XS.READ, 'data/x\0')).toBe('ENOENT');
    expect(guest.events()).toEqual([]);
    expect(guest.end(transaction)).toBe(OK);
    expect(guest.ask(XS.READ, 'data/x\0')).toBe('w');
    expect(guest.events()).toEqual(['data/x|t']);
  });

  it('leave nothing when aborted', () => {
    const transaction = guest.start();
    guest.ask(XS.WRITE, 'data/x\0v', transaction);
    guest.ask(XS.RM, 'data\0', transaction);
    expect(guest.end(transaction, false)).toBe(OK);
    expect(guest.ask(XS.READ, 'data/x\0')).toBe('ENOENT');
    expect(guest.ask(XS.READ, 'data\0')).toBe('');
    expect(guest.end(transaction)).toBe('ENOENT');
  });

  it.each([
    ['what they have read was written', 'READ', 'data/x', (path: string) => store.write(path, 'new')],
    ['what they missed was created', 'READ', 'data/y', (path: string) => store.write(path, 'new')],
    ['what they have listed got a child', 'DIRECTORY', 'data', (path: string) => store.write(`${path}/z`, '')],
    ['what they have read was removed', 'READ', 'data/x', (path: string) => store.remove(path)],
  ] as const)('fail with EAGAIN when %s', (_name, type, path, change) => {
    guest.ask(XS.WRITE, 'data/x\0v');
    const transaction = guest.start();
    guest.ask(XS[type], `${path}\0`, transaction);
    guest.ask(XS.WRITE, 'error\0v', transaction);
    change(`/local/domain/1/${path}`);
    expect(guest.end(transaction)).toBe('EAGAIN');
    expect(guest.ask(XS.READ, 'error\0')).toBe('');
    expect(guest.end(transaction)).toBe('ENOENT');
  });

  it('succeed when something else has changed', () => {
    const transaction = guest.start();
    guest.ask(XS.WRITE, 'error\0v', transaction);
    store.write('/local/domain/1/memory/target', '1');
    expect(guest.end(transaction)).toBe(OK);
  });

  it.each([
    ['a child', 'data/a/b', 'data/a'],
    ['a parent', 'data/a', 'data/a/b'],
  ])('survive that %s goes while they work', (_name, gone, path) => {
    guest.ask(XS.WRITE, 'data/a/b\0v');
    const transaction = guest.start();
    guest.ask(XS.WRITE, `${path}\0w`, transaction);
    guest.ask(XS.RM, `${gone}\0`);
    expect(guest.ask(XS.RM, `${path}\0`, transaction)).toBe(OK);
    expect(guest.end(transaction)).toBe('EAGAIN');
  });

  it('have ids of their own and do not nest', () => {
    const one = guest.start();
    const other = guest.start();
    expect(one).not.toBe(other);
    expect(guest.ask(XS.TRANSACTION_START, '\0', one)).toBe('EBUSY');
    expect(guest.ask(XS.READ, 'name\0', 999)).toBe('ENOENT');
    expect(guest.ask(XS.TRANSACTION_END, 'T\0')).toBe('ENOENT');
    expect(guest.ask(XS.TRANSACTION_END, 'X\0', one)).toBe('EINVAL');
  });

  it('of any clients are as if each had run alone when it was committed', () => {
    const path = fc.constantFrom('a', 'a/b', 'a/b/c', 'd', 'd/e');
    const step = fc.record({
      who: fc.integer({ min: 0, max: 2 }),
      what: fc.constantFrom('start', 'end', 'abort', 'read', 'list', 'write', 'rm', 'mkdir'),
      path,
      value: fc.integer({ min: 0, max: 9 }).map(String),
    });
    type Model = Map<string, string>;
    type Operation = { what: string; path: string; value: string; result: string };

    /** What one operation does to a tree alone. */
    function apply(model: Model, { what, path, value }: Omit<Operation, 'result'>): string {
      const parent = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '';
      if (what === 'read') return model.get(path) ?? 'ENOENT';
      if (what === 'list') {
        if (!model.has(path)) return 'ENOENT';
        const names = [...model.keys()].filter(
          (key) => key.startsWith(`${path}/`) && !key.slice(path.length + 1).includes('/'),
        );
        return names
          .map((name) => name.slice(path.length + 1))
          .sort()
          .join();
      }
      if (what === 'rm') {
        if (!model.has(path)) return parent === '' || model.has(parent) ? OK : 'ENOENT';
        for (const key of [...model.keys()]) if (key === path || key.startsWith(`${path}/`)) model.delete(key);
        return OK;
      }
      if (what === 'mkdir' && model.has(path)) return OK;
      const parts = path.split('/');
      for (let count = 1; count < parts.length; count++) {
        const above = parts.slice(0, count).join('/');
        if (!model.has(above)) model.set(above, '');
      }
      model.set(path, what === 'write' ? value : '');
      return OK;
    }

    function perform({ what, path, value }: Omit<Operation, 'result'>, transaction: number): string {
      const name = `data/${path}\0`;
      if (what === 'read') return guest.ask(XS.READ, name, transaction);
      if (what === 'rm') return guest.ask(XS.RM, name, transaction);
      if (what === 'mkdir') return guest.ask(XS.MKDIR, name, transaction);
      if (what === 'write') return guest.ask(XS.WRITE, name + value, transaction);
      const list = guest.ask(XS.DIRECTORY, name, transaction);
      return list === 'ENOENT' ? list : list.split('\0').slice(0, -1).sort().join();
    }

    let committed = 0;
    let conflicts = 0;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50, size: 'max' }), (steps) => {
        store = new Xenstore();
        createHostTree(store);
        domainTree(1);
        guest = new StoreClient(store.introduce(1));
        const model: Model = new Map();
        const open = new Map<number, { id: number; log: Operation[] }>();
        for (const { who, what, path, value } of steps) {
          const own = open.get(who);
          if (what === 'start') {
            if (own === undefined) open.set(who, { id: guest.start(), log: [] });
          } else if (what === 'end' || what === 'abort') {
            if (own === undefined) continue;
            open.delete(who);
            const result = guest.end(own.id, what === 'end');
            if (what === 'abort') expect(result).toBe(OK);
            else if (result === 'EAGAIN') conflicts++;
            else {
              expect(result).toBe(OK);
              committed++;
              for (const operation of own.log) expect(apply(model, operation)).toBe(operation.result);
            }
          } else {
            const result = perform({ what, path, value }, own?.id ?? 0);
            if (own === undefined) expect(result).toBe(apply(model, { what, path, value }));
            else own.log.push({ what, path, value, result });
          }
        }
        const found: Model = new Map();
        for (const key of store.tree.nodes.keys()) {
          const base = '/local/domain/1/data/';
          if (key.startsWith(base)) found.set(key.slice(base.length), store.read(key)!);
        }
        expect(new Map([...found].sort())).toEqual(new Map([...model].sort()));
        const owned = [...store.tree.nodes.values()].filter((node) => node.permissions[0]!.domain === 1).length;
        expect(store.tree.owned.get(1)).toBe(owned);
      }),
      { numRuns: 300 },
    );
    expect(committed).toBeGreaterThan(100);
    expect(conflicts).toBeGreaterThan(20);
  });
});

describe('quotas', () => {
  it('bound the nodes that a guest owns', () => {
    const before = store.tree.owned.get(1)!;
    let index = 0;
    while (guest.ask(XS.MKDIR, `data/${index}\0`) === OK) index++;
    expect(before + index).toBe(1000);
    expect(guest.ask(XS.MKDIR, 'data/more\0')).toBe('ENOSPC');
    expect(guest.ask(XS.WRITE, 'data/0\0v')).toBe(OK);
    guest.ask(XS.RM, 'data/0\0');
    expect(guest.ask(XS.MKDIR, 'data/a/b\0')).toBe('ENOSPC');
    expect(guest.ask(XS.MKDIR, 'data/more\0')).toBe(OK);
    store.write('/local/domain/1/data/host', 'x');
    expect(store.read('/local/domain/1/data/host')).toBe('x');
  });

  it('count what several transactions add', () => {
    const ids = [guest.start(), guest.start()];
    ids.forEach((id, at) => {
      for (let index = 0; index < 600; index++) {
        expect(guest.ask(XS.MKDIR, `${at === 0 ? 'data' : 'error'}/${index}\0`, id)).toBe(OK);
      }
    });
    expect(guest.end(ids[0]!)).toBe(OK);
    expect(guest.end(ids[1]!)).toBe('ENOSPC');
    expect(store.tree.owned.get(1)).toBeLessThanOrEqual(1000);
  });

  it('bound a path of many missing nodes', () => {
    expect(guest.ask(XS.WRITE, `data${'/x'.repeat(1010)}\0v`)).toBe('ENOSPC');
    expect(guest.ask(XS.DIRECTORY, 'data\0')).toBe('');
  });

  it('bound values', () => {
    expect(guest.ask(XS.WRITE, `data/x\0${'v'.repeat(2048)}`)).toBe(OK);
    expect(guest.ask(XS.WRITE, `data/x\0${'v'.repeat(2049)}`)).toBe('ENOSPC');
  });

  it('bound watches, for each domain on its own', () => {
    for (let index = 0; index < 128; index++) expect(guest.ask(XS.WATCH, `data\0${index}\0`)).toBe(OK);
    expect(guest.ask(XS.WATCH, 'data\0more\0')).toBe('E2BIG');
    expect(new StoreClient(store.introduce(2)).ask(XS.WATCH, 'data\0t\0')).toBe(OK);
    guest.ask(XS.UNWATCH, `data\0${0}\0`);
    expect(guest.ask(XS.WATCH, 'data\0more\0')).toBe(OK);
  });

  it('bound transactions and what one of them looks at', () => {
    const first = guest.start();
    for (let count = 1; count < 10; count++) guest.start();
    expect(guest.ask(XS.TRANSACTION_START, '\0')).toBe('ENOSPC');
    let result = '';
    for (let index = 0; index < 2000 && result !== 'ENOSPC'; index++) {
      result = guest.ask(XS.READ, `data/${index}\0`, first);
    }
    expect(result).toBe('ENOSPC');
    expect(guest.end(first, false)).toBe(OK);
    expect(guest.start()).toBeGreaterThan(10);
  });

  it('bound the events that a guest does not read', () => {
    guest.ask(XS.WATCH, 'data\0t\0');
    guest.events();
    for (let index = 0; index < 3000; index++) store.write(`/local/domain/1/data/${index}`, '');
    expect(guest.session.events.size).toBe(1024);
    expect(guest.events().length).toBe(1024);
  });

  it('leave out an event that no message can hold', () => {
    const token = 't'.repeat(4080);
    expect(guest.ask(XS.WATCH, `data\0${token}\0`)).toBe(OK);
    expect(guest.events()).toEqual([`data|${token}`]);
    guest.ask(XS.WRITE, 'data/a-longer-path\0v');
    expect(guest.events()).toEqual([]);
  });

  it('stop to serve a guest that does not read its replies', () => {
    const request = requestBytes(XS.READ, 'console/tty\0');
    const bytes = new Uint8Array(request.length * 4000);
    for (let at = 0; at < bytes.length; at += request.length) bytes.set(request, at);
    const taken = guest.session.receive(bytes);
    expect(taken).toBeLessThan(bytes.length);
    expect(guest.session.output.length).toBeLessThan(25_000);
    while (guest.session.waiting) guest.session.send(1024);
    expect(guest.session.receive(bytes.subarray(taken))).toBeGreaterThan(0);
  });
});

describe('the ring', () => {
  const REQ_CONS = 0x800;
  const REQ_PROD = 0x804;
  const RSP_CONS = 0x808;
  const RSP_PROD = 0x80c;
  let machine: TestMachine;
  let page: Mfn;
  let ring: XenstoreRing;

  beforeEach(() => {
    machine = new TestMachine();
    page = machine.page();
    ring = new XenstoreRing(machine.shared, page, guest.session);
  });

  /** What the host stores to a page that may hold a table or code, somebody must be shown. */
  afterEach(() => expect(machine.untold()).toEqual([]));

  /** The guest's driver: puts at most `limit` bytes; returns how many. */
  function put(bytes: Uint8Array, limit: number): number {
    let producer = machine.u32(page, REQ_PROD);
    const consumer = machine.u32(page, REQ_CONS);
    let done = 0;
    while (done < Math.min(bytes.length, limit) && (producer - consumer) >>> 0 < 1024) {
      machine.setU8(page, producer & 1023, bytes[done++]!);
      producer = (producer + 1) >>> 0;
    }
    machine.setU32(page, REQ_PROD, producer);
    return done;
  }

  function get(limit: number): number[] {
    let consumer = machine.u32(page, RSP_CONS);
    const producer = machine.u32(page, RSP_PROD);
    const bytes: number[] = [];
    while (consumer !== producer && bytes.length < limit) {
      bytes.push(machine.u8(page, 0x400 + (consumer & 1023)));
      consumer = (consumer + 1) >>> 0;
    }
    machine.setU32(page, RSP_CONS, consumer);
    return bytes;
  }

  it('answers a request and says that the guest should know', () => {
    expect(ring.poll()).toBe(false);
    put(requestBytes(XS.READ, 'name\0', 0, 42), 1024);
    expect(ring.poll()).toBe(true);
    expect(parseReplies(get(1024))).toEqual([{ type: XS.READ, request: 42, transaction: 0, text: 'g1' }]);
    expect(ring.poll()).toBe(false);
  });

  it('brings events of the host’s changes', () => {
    put(requestBytes(XS.WATCH, 'control/shutdown\0t\0'), 1024);
    ring.poll();
    get(1024);
    store.write('/local/domain/1/control/shutdown', 'reboot');
    expect(ring.poll()).toBe(true);
    expect(parseReplies(get(1024))).toEqual([
      { type: XS.WATCH_EVENT, request: 0, transaction: 0, text: 'control/shutdown\0t\0' },
    ]);
  });

  it('carries random requests cut anywhere, wrapping anywhere, and answers each in order', () => {
    const name = fc.constantFrom('data', 'data/a', 'data/a/b', 'name', 'memory/target', '/tool', 'no such', '');
    const request = fc.oneof(
      fc.tuple(
        fc.constantFrom(XS.READ, XS.DIRECTORY, XS.GET_PERMS, XS.MKDIR, XS.RM),
        name.map((path) => `${path}\0`),
      ),
      fc.tuple(
        fc.constant(XS.WRITE),
        fc.tuple(name, fc.integer({ min: 0, max: 2100 })).map(([path, size]) => `${path}\0${'v'.repeat(size)}`),
      ),
      fc.tuple(
        fc.constantFrom(XS.WATCH, XS.UNWATCH),
        name.map((path) => `${path}\0token\0`),
      ),
      fc.tuple(
        fc.nat(30),
        fc.uint8Array({ maxLength: 40 }).map((bytes) => String.fromCharCode(...bytes)),
      ),
    );
    const cut = fc.integer({ min: 1, max: 700 });
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 25, size: 'max' }),
        fc.array(cut, { minLength: 1 }),
        fc.nat(3000),
        (requests, cuts, back) => {
          store.release(1);
          guest = new StoreClient(store.introduce(1));
          ring = new XenstoreRing(machine.shared, page, guest.session);
          for (const index of [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD]) machine.setU32(page, index, -back >>> 0);
          const bytes: number[] = [];
          requests.forEach(([type, payload], index) => {
            bytes.push(...requestBytes(type, payload, 0, index));
          });
          const stream: number[] = [];
          let at = 0;
          for (let turn = 0; at < bytes.length || turn < 60; turn++) {
            at += put(new Uint8Array(bytes.slice(at)), cuts[turn % cuts.length]!);
            ring.poll();
            stream.push(...get(cuts[(turn + 1) % cuts.length]!));
          }
          while (ring.poll() || machine.u32(page, RSP_CONS) !== machine.u32(page, RSP_PROD)) stream.push(...get(1024));
          const replies = parseReplies(stream).filter(({ type }) => type !== XS.WATCH_EVENT);
          expect(stream).toEqual([]);
          expect(ring.error).toBe(0);
          expect(replies.map((reply) => reply.request)).toEqual(requests.map((_, index) => index));
          replies.forEach((reply, index) => {
            if (reply.type !== XS.ERROR) expect(reply.type).toBe(requests[index]![0]);
            else expect(reply.text).toMatch(/^E[A-Z0-9]+\0$/);
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  it('stops at indexes that cannot be, and says why in the page', () => {
    machine.setU32(page, REQ_PROD, 1025);
    expect(ring.poll()).toBe(false);
    expect(machine.u32(page, 0x818)).toBe(2);
    machine.setU32(page, REQ_PROD, 0);
    put(requestBytes(XS.READ, 'name\0'), 1024);
    expect(ring.poll()).toBe(false);
  });

  it('stops at a message that announces too much', () => {
    const bytes = requestBytes(XS.READ, 'name\0');
    bytes[13] = 0x10;
    put(bytes, 1024);
    ring.poll();
    expect(machine.u32(page, 0x818)).toBe(3);
    expect(ring.poll()).toBe(false);
  });

  it('survives any page with bounded work', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1024, maxLength: 1024 }), word, word, word, word, (bytes, a, b, c, d) => {
        store.release(1);
        ring = new XenstoreRing(machine.shared, page, store.introduce(1));
        machine.setBytes(page, 0, bytes);
        // Half of the cases have a sound request ring full of garbage.
        [a, a & 1 ? (a + (b & 1023)) >>> 0 : b, c, d].forEach((value, at) => {
          machine.setU32(page, REQ_CONS + at * 4, value);
        });
        for (let turn = 0; turn < 5; turn++) ring.poll();
        expect(store.read('/local/domain/1/name')).toBe('g1');
      }),
    );
  });

  it('does nothing when the page has gone', () => {
    put(requestBytes(XS.READ, 'name\0'), 1024);
    machine.space.detach(page);
    expect(ring.poll()).toBe(false);
  });
});
