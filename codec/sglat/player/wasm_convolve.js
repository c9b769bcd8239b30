// A 3 x 3 convolution in WebAssembly with 128-bit vectors, assembled here: two groups of 4 output
// channels, four pixels at a time, so that eight sums stay in registers.
//
// convolve(x, filters, out, inGroups, size, gains, bias, slope): addresses in bytes. Input is
// [groups][size + 2][size + 2] of 4 floats with a border of zeros; filters and results are as in
// generator.js, those of the second group behind the first.
//
// Source: https://webassembly.github.io/spec/core/binary/, section 5.

const F32 = 0x7d;
const I32 = 0x7f;
const V128 = 0x7b;
const TAP_BYTES = 64; // 4 inputs x 4 outputs
const FILTER_BYTES = 9 * TAP_BYTES;
const PIXELS = 4; // at a time

const uleb = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...uleb(value >>> 7)]);
const sleb = (value) =>
  value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...sleb(value >> 7)];
const vector = (items) => [...uleb(items.length), ...items.flat()];
const section = (id, bytes) => [id, ...uleb(bytes.length), ...bytes];
const name = (text) => vector([...text].map((c) => [c.charCodeAt(0)]));

const get = (local) => [0x20, ...uleb(local)];
const set = (local) => [0x21, ...uleb(local)];
const number = (value) => [0x41, ...sleb(value)];
const add = [0x6a];
const sub = [0x6b];
const times = [0x6c];
const isLess = [0x49];
const loop = (...body) => [0x03, 0x40, ...body.flat(), 0x0b];
const again = [0x0d, 0]; // to the loop's start, if the value is not 0
const simd = (code, ...more) => [0xfd, ...uleb(code), ...more];
const load = (address, offset) => [...get(address), ...simd(0x00, 4, ...uleb(offset))];
const loadSplat = (address, offset) => [...get(address), ...simd(0x09, 2, ...uleb(offset))];
const store = (offset) => simd(0x0b, 4, ...uleb(offset));
const splat = simd(0x13);
const addVectors = simd(0xe4);
const multiply = simd(0xe6);
const greater = simd(0xeb);
const zero = simd(0x0c, ...new Array(16).fill(0));

// parameters, then locals
const [X, FILTERS, OUT, IN_GROUPS, SIZE, GAINS, BIAS, SLOPE] = [0, 1, 2, 3, 4, 5, 6, 7];
const [Y, COLUMN, LEFT, STRIDE, PLANE, PAIR, AREA] = [8, 9, 10, 11, 12, 13, 14];
const [ROW0, ROW1, ROW2, FIRST, SECOND, TO, TO2] = [15, 16, 17, 18, 19, 20, 21];
const I32_LOCALS = 14;
const SUMS = 22; // eight
const [W0, W1, INPUT] = [30, 31, 32];
const V128_LOCALS = 11;

const assign = (local, ...code) => [...code.flat(), ...set(local)];
const step = (local, by) => assign(local, get(local), number(by), add);

/** Add the products of one tap and input channel to all sums. */
function tapCode(tap, lane) {
  const row = [ROW0, ROW1, ROW2][Math.floor(tap / 3)];
  const offset = tap * TAP_BYTES + 16 * lane;
  const code = [assign(W0, load(FIRST, offset)), assign(W1, load(SECOND, offset))];
  for (let pixel = 0; pixel < PIXELS; pixel++) {
    code.push(assign(INPUT, loadSplat(row, 16 * ((tap % 3) + pixel) + 4 * lane)));
    for (const [weight, sum] of [
      [W0, SUMS + pixel],
      [W1, SUMS + PIXELS + pixel],
    ]) {
      code.push(assign(sum, get(sum), get(INPUT), get(weight), multiply, addVectors));
    }
  }
  return code.flat();
}

/** Scale a sum, add the bias, activate and store it. */
function finishCode(group, pixel) {
  const sum = SUMS + PIXELS * group + pixel;
  return [
    ...assign(sum, get(sum), load(GAINS, 16 * group), multiply, load(BIAS, 16 * group), addVectors),
    ...get(group ? TO2 : TO),
    ...[get(sum), get(SLOPE), splat, multiply, get(sum), greater].flat(),
    ...store(16 * pixel),
  ];
}

function bodyCode() {
  const taps = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((tap) =>
    [0, 1, 2, 3].flatMap((lane) => tapCode(tap, lane)),
  );
  const each = [0, 1, 2, 3].flatMap((pixel) => [finishCode(0, pixel), finishCode(1, pixel)]).flat();
  return [
    assign(STRIDE, get(SIZE), number(2), add, number(16), times),
    assign(PLANE, get(SIZE), number(2), add, get(STRIDE), times),
    assign(PAIR, get(IN_GROUPS), number(FILTER_BYTES), times),
    assign(AREA, get(SIZE), get(SIZE), times, number(16), times),
    assign(TO, get(OUT)),
    loop(
      assign(COLUMN, number(0)),
      loop(
        Array.from({ length: 8 }, (_, at) => assign(SUMS + at, zero)).flat(),
        assign(ROW0, get(X), get(Y), get(STRIDE), times, add, get(COLUMN), number(16), times, add),
        assign(FIRST, get(FILTERS)),
        assign(SECOND, get(FILTERS), get(PAIR), add),
        assign(LEFT, get(IN_GROUPS)),
        loop(
          assign(ROW1, get(ROW0), get(STRIDE), add),
          assign(ROW2, get(ROW1), get(STRIDE), add),
          taps,
          assign(ROW0, get(ROW0), get(PLANE), add),
          step(FIRST, FILTER_BYTES),
          step(SECOND, FILTER_BYTES),
          assign(LEFT, get(LEFT), number(1), sub),
          get(LEFT),
          again,
        ),
        assign(TO2, get(TO), get(AREA), add),
        each,
        step(TO, 16 * PIXELS),
        step(COLUMN, PIXELS),
        [...get(COLUMN), ...get(SIZE), ...isLess],
        again,
      ),
      step(Y, 1),
      [...get(Y), ...get(SIZE), ...isLess],
      again,
    ),
  ].flat(2);
}

/** Return the module. */
function moduleBytes() {
  const parameters = [I32, I32, I32, I32, I32, I32, I32, F32].map((type) => [type]);
  const locals = vector([
    [...uleb(I32_LOCALS), I32],
    [...uleb(V128_LOCALS), V128],
  ]);
  const body = [...locals, ...bodyCode(), 0x0b];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([[0x60, ...vector(parameters), 0]])),
    ...section(2, vector([[...name("page"), ...name("memory"), 2, 0, 1]])),
    ...section(3, vector([[0]])),
    ...section(7, vector([[...name("convolve"), 0, 0]])),
    ...section(10, vector([[...uleb(body.length), ...body]])),
  ]);
}

/** Return `{memory, convolve}` with some bytes of memory; null where the browser cannot do it. */
export async function wasmConvolution(byteCount) {
  try {
    const bytes = moduleBytes();
    if (!WebAssembly.validate(bytes)) return null;
    const memory = new WebAssembly.Memory({ initial: Math.ceil(byteCount / 65536) });
    const { instance } = await WebAssembly.instantiate(bytes, { page: { memory } });
    return { memory, convolve: instance.exports.convolve };
  } catch {
    return null; // no WebAssembly, or forbidden here
  }
}
