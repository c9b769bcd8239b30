// Numbers of SPEC.md that more than one module needs (sections 2, 3, 5 and 7).

export const READS = [1, 2]; // the newest read version this decoder knows
export const MOTION_CHANNELS = 34;
export const PLACEMENT_CHANNELS = 4;
export const FIRST_CONTROL = 2;
export const MAX_INTEGER = 2 ** 20 - 1;
export const MAX_FRAMES = 2 ** 24;
export const MAX_GROUP_FRAMES = 1024;
export const MAX_TIME = 2 ** 53;
export const MAX_TIME_BASE = 2 ** 32 - 1;
export const MAX_PACKETS = 4096;
export const MAX_LAYERS = 64;
export const SCALES = 36;
export const HELD = 1; // frame flags
export const CUT = 2;

/** Chunk types: flags, payload cap in bytes, whether it may occur once only. */
export const CHUNKS = new Map([
  ["HEAD", [0, 2 ** 16, true]],
  ["IDEN", [0, 2 ** 20, true]],
  ["LAYR", [0, 2 ** 24 - 1, false]],
  ["IREF", [0, 2 ** 10, true]],
  ["MOTN", [0, 2 ** 20, false]],
  ["PLAC", [1, 2 ** 18, false]],
  ["AHDR", [1, 2 ** 17, true]],
  ["APKT", [1, 2 ** 22, false]],
  ["PLAT", [1, 2 ** 23, true]],
  ["THMB", [1, 2 ** 20, true]],
  ["PROV", [1, 2 ** 16, true]],
  ["NEUT", [1, 68, true]],
  ["META", [1, 2 ** 20, true]],
  ["INDX", [3, 2 ** 23, true]],
  ["ENDS", [0, 48, true]],
]);
export const EXACT_LENGTH = new Set(["NEUT", "ENDS"]);
