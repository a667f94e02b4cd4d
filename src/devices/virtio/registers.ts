/** What the Virtual I/O Device specification 1.2 says in numbers. */

/** Registers of a device in memory (4.2.2, version 2), 32 bits each; the device's own configuration follows. */
export const enum Register {
  magic = 0x000,
  version = 0x004,
  deviceId = 0x008,
  vendorId = 0x00c,
  deviceFeatures = 0x010,
  deviceFeaturesSelect = 0x014,
  driverFeatures = 0x020,
  driverFeaturesSelect = 0x024,
  queueSelect = 0x030,
  queueSizeMaximum = 0x034,
  queueSize = 0x038,
  queueReady = 0x044,
  queueNotify = 0x050,
  interruptStatus = 0x060,
  interruptAcknowledge = 0x064,
  status = 0x070,
  queueDescriptorsLow = 0x080,
  queueDescriptorsHigh = 0x084,
  queueDriverLow = 0x090,
  queueDriverHigh = 0x094,
  queueDeviceLow = 0x0a0,
  queueDeviceHigh = 0x0a4,
  sharedMemoryLengthLow = 0x0b0,
  sharedMemoryLengthHigh = 0x0b4,
  sharedMemoryBaseLow = 0x0b8,
  sharedMemoryBaseHigh = 0x0bc,
  configurationGeneration = 0x0fc,
  configuration = 0x100,
}

/** Bytes that a device takes up in guest-physical memory. */
export const REGISTER_WINDOW = 0x200;

/** "virt" */
export const MAGIC = 0x7472_6976;
export const VERSION = 2;
/** Any number; drivers show it. "ring" */
export const VENDOR = 0x676e_6972;

/** Device status (2.1). */
export const enum Status {
  acknowledge = 1,
  driver = 2,
  driverOk = 4,
  featuresOk = 8,
  needsReset = 64,
  failed = 128,
}

/** Bits of the interrupt status. */
export const enum Interrupt {
  usedBuffer = 1,
  configuration = 2,
}

/** Numbers of feature bits that do not belong to one kind of device (6). */
export const enum Feature {
  indirectDescriptors = 28,
  eventIndex = 29,
  version1 = 32,
}

/** Kinds of devices (5). */
export const enum DeviceKind {
  network = 1,
  block = 2,
  console = 3,
  entropy = 4,
}
