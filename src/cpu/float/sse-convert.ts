import { roundFinite } from './arithmetic.ts';
import { fromInteger, integer, toInteger } from './integers.ts';
import { FloatFlag, FloatKind, RoundingMode } from './softfloat.ts';
import { formatOf, type SseHandler, type SseHandlers, type SseMachine, type Width } from './sse-machine.ts';
import { SseOperation } from './sse-operations.ts';

/** SSE conversions. A truncating one (CVTT…) rounds towards zero, the others as MXCSR says. */

function roundingOf(sse: SseMachine, truncates: boolean): RoundingMode {
  return truncates ? RoundingMode.zero : sse.context.rounding;
}

/** Lanes to 32-bit integers; bytes of the result beyond them become zero. */
function toIntegers(width: Width, count: number, truncates: boolean, size: 8 | 16): SseHandler {
  return (sse, _a, b) => {
    for (let i = 0; i < count; i++) {
      sse.unpack(sse.memory, width, b + i * width, sse.y);
      toInteger(sse.context, roundingOf(sse, truncates), sse.y, 32);
      sse.lanes.setInt32(i * 4, integer.low, true);
    }
    sse.clear(count * 4);
    return size;
  };
}

/** One lane to a general register. */
function toRegister(width: Width, bits: 32 | 64, truncates: boolean): SseHandler {
  return (sse, _a, b) => {
    sse.unpack(sse.memory, width, b, sse.y);
    toInteger(sse.context, roundingOf(sse, truncates), sse.y, bits);
    sse.lanes.setInt32(0, integer.low, true);
    sse.lanes.setInt32(4, bits === 64 ? integer.high : 0, true);
    return 8;
  };
}

function convertInteger(sse: SseMachine, high: number, low: number, width: Width, offset: number): void {
  const { x, z } = sse;
  fromInteger(high, low, x);
  if (x.kind === FloatKind.zero) z.copy(x);
  else roundFinite(sse.context, formatOf(width), x, z);
  sse.pack(sse.lanes, width, offset, z);
}

/** 32-bit integers to lanes; the others stay as they are. */
function fromIntegers(width: Width, count: number): SseHandler {
  return (sse, a, b) => {
    sse.keep(a, count * width, 16);
    for (let i = 0; i < count; i++) {
      const value = sse.memory.getInt32(b + i * 4, true);
      convertInteger(sse, value >> 31, value, width, i * width);
    }
    return 16;
  };
}

function fromLongInteger(width: Width): SseHandler {
  return (sse, a, b) => {
    sse.keep(a, width, 16);
    convertInteger(sse, sse.memory.getInt32(b + 4, true), sse.memory.getInt32(b, true), width, 0);
    return 16;
  };
}

function convertLane(sse: SseMachine, from: Width, address: number, offset: number): void {
  const { context, y, z } = sse;
  const to: Width = from === 4 ? 8 : 4;
  sse.unpack(sse.memory, from, address, y);
  if (!sse.propagate(y, y, z)) {
    if (y.denormal) context.flags |= FloatFlag.denormal;
    if (y.kind === FloatKind.finite) roundFinite(context, formatOf(to), y, z);
    else z.copy(y);
  }
  sse.pack(sse.lanes, to, offset, z);
}

export const convertHandlers: SseHandlers = {
  [SseOperation.cvtsi2ss32]: fromIntegers(4, 1),
  [SseOperation.cvtsi2sd32]: fromIntegers(8, 1),
  [SseOperation.cvtsi2ss64]: fromLongInteger(4),
  [SseOperation.cvtsi2sd64]: fromLongInteger(8),
  [SseOperation.cvtss2si32]: toRegister(4, 32, false),
  [SseOperation.cvtss2si64]: toRegister(4, 64, false),
  [SseOperation.cvtsd2si32]: toRegister(8, 32, false),
  [SseOperation.cvtsd2si64]: toRegister(8, 64, false),
  [SseOperation.cvttss2si32]: toRegister(4, 32, true),
  [SseOperation.cvttss2si64]: toRegister(4, 64, true),
  [SseOperation.cvttsd2si32]: toRegister(8, 32, true),
  [SseOperation.cvttsd2si64]: toRegister(8, 64, true),
  [SseOperation.cvtdq2ps]: fromIntegers(4, 4),
  [SseOperation.cvtdq2pd]: fromIntegers(8, 2),
  [SseOperation.cvtpi2ps]: fromIntegers(4, 2),
  [SseOperation.cvtpi2pd]: fromIntegers(8, 2),
  [SseOperation.cvtps2dq]: toIntegers(4, 4, false, 16),
  [SseOperation.cvttps2dq]: toIntegers(4, 4, true, 16),
  [SseOperation.cvtpd2dq]: toIntegers(8, 2, false, 16),
  [SseOperation.cvttpd2dq]: toIntegers(8, 2, true, 16),
  [SseOperation.cvtps2pi]: toIntegers(4, 2, false, 8),
  [SseOperation.cvttps2pi]: toIntegers(4, 2, true, 8),
  [SseOperation.cvtpd2pi]: toIntegers(8, 2, false, 8),
  [SseOperation.cvttpd2pi]: toIntegers(8, 2, true, 8),
  [SseOperation.cvtss2sd]: (sse, a, b) => {
    sse.keep(a, 8, 16);
    convertLane(sse, 4, b, 0);
    return 16;
  },
  [SseOperation.cvtsd2ss]: (sse, a, b) => {
    sse.keep(a, 4, 16);
    convertLane(sse, 8, b, 0);
    return 16;
  },
  [SseOperation.cvtps2pd]: (sse, _a, b) => {
    convertLane(sse, 4, b, 0);
    convertLane(sse, 4, b + 4, 8);
    return 16;
  },
  [SseOperation.cvtpd2ps]: (sse, _a, b) => {
    sse.clear(8);
    convertLane(sse, 8, b, 0);
    convertLane(sse, 8, b + 8, 4);
    return 16;
  },
};
