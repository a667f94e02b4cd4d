import { copyWords } from '../memory/words.ts';
import { Cr0, Cr4, Vector } from '../x86/registers.ts';
import { Exit } from './exits.ts';
import { createX87Unit, type X87Unit } from './float/x87.ts';
import { State } from './state.ts';

/** What generated code leaves to TypeScript because it needs no speed; the second parameter of the host function `helper`. */
export const enum HelperOperation {
  /** Called when State.fpuTrap is set: 0, or Exit.exception with #UD or #NM (SDM vol. 3, 2.5). */
  checkSse,
  checkMmx,
  checkX87,
  /** WAIT heeds TS only together with MP. */
  checkWait,
  /** FXSAVE and FXRSTOR. */
  checkImage,
  /** FXSAVE: builds the image in State.scratch, all bytes below `Image.end`. */
  saveImage,
  saveWideImage,
  /** FXRSTOR: loads the image in State.scratch. */
  loadImage,
  loadWideImage,
}

/** Offsets in an FXSAVE image (SDM vol. 1, table 10-2). */
export const enum Image {
  mxcsr = 24,
  mxcsrMask = 28,
  xmm = 160,
  /** End of XMM7: all that code outside 64-bit mode saves and loads. */
  legacyEnd = 288,
  /** End of XMM15. What follows belongs to software. */
  end = 416,
  size = 512,
}

/** MXCSR bits that may be set; FXSAVE reports them. */
export const MXCSR_MASK = 0xffff;

export type Helpers = (state: number, operation: HelperOperation) => number;

/** The host function `helper`, on the memory behind `view`. */
export function createHelpers(view: DataView, x87: X87Unit = createX87Unit(view)): Helpers {
  const words = new Uint32Array(view.buffer);
  const raise = (state: number, vector: Vector): number => {
    view.setUint32(state + State.exitDetail, vector, true);
    view.setUint32(state + State.exitError, 0, true);
    return Exit.exception;
  };

  const check = (state: number, operation: HelperOperation): number => {
    const cr0 = view.getUint32(state + State.cr0, true);
    const cr4 = view.getUint32(state + State.cr4, true);
    const emulated = (cr0 & Cr0.emulation) !== 0;
    const switched = (cr0 & Cr0.taskSwitched) !== 0;
    switch (operation) {
      case HelperOperation.checkSse:
        if (emulated || (cr4 & Cr4.fxsave) === 0) return raise(state, Vector.invalidOpcode);
        break;
      case HelperOperation.checkMmx:
        if (emulated) return raise(state, Vector.invalidOpcode);
        break;
      case HelperOperation.checkWait:
        return switched && (cr0 & Cr0.monitorCoprocessor) !== 0 ? raise(state, Vector.deviceNotAvailable) : 0;
      default:
        if (emulated) return raise(state, Vector.deviceNotAvailable);
    }
    return switched ? raise(state, Vector.deviceNotAvailable) : 0;
  };

  const saveImage = (state: number, wide: boolean): number => {
    const image = state + State.scratch;
    x87.saveFxsaveArea(state + State.x87, image, wide);
    view.setUint32(image + Image.mxcsr, view.getUint32(state + State.mxcsr, true), true);
    view.setUint32(image + Image.mxcsrMask, MXCSR_MASK, true);
    copyWords(words, image + Image.xmm, state + State.xmm, Image.end - Image.xmm);
    return 0;
  };

  const loadImage = (state: number, wide: boolean): number => {
    const image = state + State.scratch;
    if ((view.getUint32(image + Image.mxcsr, true) & ~MXCSR_MASK) !== 0) return raise(state, Vector.generalProtection);
    x87.loadFxsaveArea(state + State.x87, image, wide);
    view.setUint32(state + State.mxcsr, view.getUint32(image + Image.mxcsr, true), true);
    const end = view.getUint32(state + State.codeSize, true) === 64 ? Image.end : Image.legacyEnd;
    copyWords(words, state + State.xmm, image + Image.xmm, end - Image.xmm);
    return 0;
  };

  return (state, operation) => {
    switch (operation) {
      case HelperOperation.saveImage:
      case HelperOperation.saveWideImage:
        return saveImage(state, operation === HelperOperation.saveWideImage);
      case HelperOperation.loadImage:
      case HelperOperation.loadWideImage:
        return loadImage(state, operation === HelperOperation.loadWideImage);
      default:
        return check(state, operation);
    }
  };
}
