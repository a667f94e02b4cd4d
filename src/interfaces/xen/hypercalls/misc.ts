import { type GuestVirtual, PAGE_SIZE } from '../../../x86/brand.ts';
import { FEATURE_EXTENDED_CR3, FEATURES, TRANSLATED_FEATURES, XEN_VERSION } from '../abi.ts';
import { Errno } from '../errno.ts';
import { Assist } from '../guest-abi.ts';
import { FAULT, type Handler, INVALID, NOT_IMPLEMENTED, Special } from './call.ts';

/** A text in a field of fixed size, NUL-padded. */
function text(value: string, bytes: number): Uint8Array {
  const field = new Uint8Array(bytes);
  field.set(new TextEncoder().encode(value).subarray(0, bytes - 1));
  return field;
}

function concatenate(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const xenVersion: Handler = (call) => {
  const give = (bytes: Uint8Array) => (call.write(call.value(1), bytes) ? 0 : FAULT);
  switch (call.low[0] as number) {
    case 0:
      return XEN_VERSION;
    case 1:
      return give(text('.0-ring1', 16));
    case 2:
      return give(concatenate(text('TypeScript', 64), text('ring1', 16), text('', 32), text('', 32)));
    case 3:
      return give(text('xen-3.0-x86_64 xen-3.0-x86_32p ', 1024));
    case 4:
      return give(text('unavailable', 64));
    case 5:
      return call.writeLong(call.value(1), call.domain.paging.rules.hostWindow.start) ? 0 : FAULT;
    case 6: {
      const view = call.view(call.value(1), 8);
      if (!view) return FAULT;
      if (view.getUint32(0, true) !== 0) return INVALID;
      const { extendedCr3, isTranslated } = call.domain;
      const chosen = (extendedCr3 ? FEATURE_EXTENDED_CR3 : 0) | (isTranslated ? TRANSLATED_FEATURES : 0);
      view.setUint32(4, FEATURES | chosen, true);
      return call.writeView(call.value(1), view) ? 0 : FAULT;
    }
    case 7:
      return call.value(1) === 0 ? PAGE_SIZE : INVALID;
    case 8:
      return give(call.domain.uuidBytes);
    case 9:
      return give(text('', 1024));
    case 10:
      return -Errno.EPERM;
    default:
      return NOT_IMPLEMENTED;
  }
};

/** Bytes of one console_io write that are looked at before the vCPU may do something else. */
const CONSOLE_LIMIT = 16_384;

const consoleIo: Handler = (call) => {
  const count = call.low[1] as number;
  switch (call.low[0] as number) {
    case 0: {
      const bytes = call.read(call.value(2), Math.min(count, CONSOLE_LIMIT));
      if (!bytes) return FAULT;
      call.domain.earlyConsole(bytes);
      if (count <= CONSOLE_LIMIT) return 0;
      call.setValue(1, count - CONSOLE_LIMIT);
      call.setValue(2, call.value(2) + CONSOLE_LIMIT);
      return Special.preempted;
    }
    case 1:
      return 0;
    default:
      return NOT_IMPLEMENTED;
  }
};

const physicalDeviceOperation: Handler = (call) => {
  switch (call.low[0] as number) {
    case 6: {
      const view = call.view(call.value(1), 4);
      if (!view) return FAULT;
      const privilege = view.getUint32(0, true);
      if (privilege > 3) return INVALID;
      return call.domain.operations.cpu.setIoplMask(call.vcpu.index, privilege << 12);
    }
    case 7: {
      const layout = call.abi.structures.portBitmap;
      const view = call.view(call.value(1), layout.size);
      if (!view) return FAULT;
      const bitmap = call.longAt(view, 0) as GuestVirtual;
      const ports = view.getUint32(layout.ports, true);
      return call.domain.operations.cpu.updateIoBitmap(call.vcpu.index, bitmap, ports);
    }
    default:
      return NOT_IMPLEMENTED;
  }
};

const vmAssist: Handler = (call) => {
  const command = call.low[0] as number;
  const type = call.low[1] as number;
  if (command > 1) return NOT_IMPLEMENTED;
  if (!call.abi.assists.has(type)) return INVALID;
  if (type === Assist.runstateUpdateFlag) call.domain.runstates.updateFlag = command === 0;
  if (type === Assist.paeExtendedCr3) call.domain.extendedCr3 = command === 0;
  return 0;
};

export const MISC_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [17, xenVersion],
  [18, consoleIo],
  [21, vmAssist],
  [33, physicalDeviceOperation],
];
