// The shaders of webgpu.js. Features are [groups of 4 channels][rows][columns] vectors of 4.

export const GROUP = 64; // invocations of a workgroup

const PARAMETERS = `
struct Parameters {
  size: u32,       // of the picture that is computed, in pixels
  in_groups: u32,
  out_groups: u32,
  first: u32,      // of this layer's vectors in \`changing\`
  slope: f32,
  has_image: u32,
};
`;

const PATCH = [0, 1, 2, 3].flatMap((y) => [0, 1, 2, 3].map((x) => [x, y]));

const tap = (number) => {
  const [x, y] = [number % 3, Math.floor(number / 3)];
  const columns = [0, 1, 2, 3].map((c) => `filters[at + ${4 * number + c}u]`);
  const sums = [0, 1, 2, 3].map((p) => `    s${p} += m * a${x + (p & 1)}${y + (p >> 1)};`);
  return `    m = mat4x4f(${columns.join(", ")});\n${sums.join("\n")}`;
};

/** 3 x 3 convolution of styled features, times gains, plus bias, leaky with a slope. */
export const CONVOLVE = `${PARAMETERS}
@group(0) @binding(0) var<storage, read> features: array<vec4f>;
@group(0) @binding(1) var<storage, read> filters: array<vec4f>;
@group(0) @binding(2) var<storage, read> changing: array<vec4f>; // styles, gains, bias
@group(0) @binding(3) var<uniform> p: Parameters;
@group(0) @binding(4) var<storage, read_write> results: array<vec4f>;

fn finish(sum: vec4f, group: u32) -> vec4f {
  let at = p.first + p.in_groups + group;
  let x = sum * changing[at] + changing[at + p.out_groups];
  return max(x, p.slope * x);
}

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let blocks = p.size / 2u;
  let group = id.x / (blocks * blocks);
  if (group >= p.out_groups) { return; }
  let q = id.x - group * blocks * blocks;
  let x = 2u * (q % blocks);
  let y = 2u * (q / blocks);
  let columns = vec4u(max(x, 1u) - 1u, x, x + 1u, min(x + 2u, p.size - 1u));
  let rows = vec4u(max(y, 1u) - 1u, y, y + 1u, min(y + 2u, p.size - 1u)) * p.size;
  let across = vec4f(select(0.0, 1.0, x > 0u), 1.0, 1.0, select(0.0, 1.0, x + 2u < p.size));
  let down = vec4f(select(0.0, 1.0, y > 0u), 1.0, 1.0, select(0.0, 1.0, y + 2u < p.size));
  var s0 = vec4f(0.0);
  var s1 = s0;
  var s2 = s0;
  var s3 = s0;
  var m: mat4x4f;
  for (var g = 0u; g < p.in_groups; g++) {
    let base = g * p.size * p.size;
    let at = (group * p.in_groups + g) * 36u;
    let style = changing[p.first + g];
    let styled = mat4x4f(style * down.x, style * down.y, style * down.z, style * down.w);
${PATCH.map(
  ([x, y]) =>
    `    let a${x}${y} = features[base + rows[${y}] + columns[${x}]] * styled[${y}] * across[${x}];`,
).join("\n")}
${[0, 1, 2, 3, 4, 5, 6, 7, 8].map(tap).join("\n")}
  }
  let to = group * p.size * p.size + y * p.size + x;
  results[to] = finish(s0, group);
  results[to + 1u] = finish(s1, group);
  results[to + p.size] = finish(s2, group);
  results[to + p.size + 1u] = finish(s3, group);
}
`;

// bilinear: a pixel of twice the size takes 9/16, 3/16, 3/16, 1/16 of four, the border repeated
const enlarge = (source) => `
fn enlarged(base: u32, size: u32, x: u32, y: u32) -> vec4f {
  let near = vec2u(x / 2u, y / 2u);
  let last = size - 1u;
  let far = vec2u(
    select(max(near.x, 1u) - 1u, min(near.x + 1u, last), (x & 1u) == 1u),
    select(max(near.y, 1u) - 1u, min(near.y + 1u, last), (y & 1u) == 1u),
  );
  let upper = 0.75 * ${source}[base + near.y * size + near.x] + 0.25 * ${source}[base + near.y * size + far.x];
  let lower = 0.75 * ${source}[base + far.y * size + near.x] + 0.25 * ${source}[base + far.y * size + far.x];
  return 0.75 * upper + 0.25 * lower;
}
`;

/** Twice the size, then leaky ReLU. */
export const UPSAMPLE = `${PARAMETERS}
@group(0) @binding(0) var<storage, read> features: array<vec4f>;
@group(0) @binding(1) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read_write> results: array<vec4f>;
${enlarge("features")}
@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let area = p.size * p.size;
  let group = id.x / area;
  if (group >= p.out_groups) { return; }
  let q = id.x - group * area;
  let v = enlarged(group * area / 4u, p.size / 2u, q % p.size, q / p.size);
  results[id.x] = max(v, 0.2 * v);
}
`;

/** Colours of features, added to the enlarged picture of half the size. */
export const COLOURS = `${PARAMETERS}
@group(0) @binding(0) var<storage, read> features: array<vec4f>;
@group(0) @binding(1) var<storage, read> image: array<vec4f>;
@group(0) @binding(2) var<storage, read> changing: array<vec4f>; // bias, then styled filters
@group(0) @binding(3) var<uniform> p: Parameters;
@group(0) @binding(4) var<storage, read_write> results: array<vec4f>;
${enlarge("image")}
@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let area = p.size * p.size;
  if (id.x >= area) { return; }
  var sum = changing[p.first].xyz;
  for (var g = 0u; g < p.in_groups; g++) {
    let v = features[g * area + id.x];
    let at = p.first + 1u + g;
    let n = p.in_groups;
    sum += vec3f(dot(changing[at], v), dot(changing[at + n], v), dot(changing[at + 2u * n], v));
  }
  if (p.has_image == 1u) {
    sum += enlarged(0u, p.size / 2u, id.x % p.size, id.x / p.size).xyz;
  }
  results[id.x] = vec4f(sum, 1.0);
}
`;

/** The picture as RGBA bytes, one number a pixel. */
export const SHOW = `${PARAMETERS}
@group(0) @binding(0) var<storage, read> image: array<vec4f>;
@group(0) @binding(1) var<uniform> p: Parameters;
@group(0) @binding(2) var<storage, read_write> results: array<u32>;

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= p.size * p.size) { return; }
  results[id.x] = pack4x8unorm(vec4f(image[id.x].xyz * 0.5 + 0.5, 1.0));
}
`;
