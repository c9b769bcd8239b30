// The shaders of webgl2.js. A block is 2 x 2 pixels; its pixel (x, y) lies in layer x + 2 y.

const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2DArray;
`;

const OUTPUTS = `
layout(location = 0) out vec4 out0;
layout(location = 1) out vec4 out1;
layout(location = 2) out vec4 out2;
layout(location = 3) out vec4 out3;
`;

export const QUAD = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
`;

const PATCH = [0, 1, 2, 3].flatMap((y) => [0, 1, 2, 3].map((x) => [x, y]));

// a pixel of the 4 x 4 around a block: columns -1, 0, 1, 2 lie in blocks -1, 0, 0, +1
const fetchPixel = ([x, y]) => {
  const place = ["l", "0", "0", "r"][x];
  const row = ["t", "0", "0", "b"][y];
  const layer = ((x + 1) & 1) + 2 * ((y + 1) & 1);
  const inside = [place, row].filter((edge) => edge !== "0").map((edge) => `in_${edge}`);
  const at = `base + ivec2(${place === "0" ? "0" : `to_${place}`}, ${
    row === "0" ? "0" : `to_${row}`
  })`;
  const factor = ["style", ...inside].join(" * ");
  return `    vec4 a${x}${y} = ${factor} * texelFetch(features, ivec3(${at}, ${layer}), 0);`;
};

const accumulate = (tap) => {
  const [x, y] = [tap % 3, Math.floor(tap / 3)];
  const columns = [0, 1, 2, 3].map((c) => `texelFetch(filters, at + ivec2(${4 * tap + c}, 0), 0)`);
  const sums = [0, 1, 2, 3].map((p) => `    s${p} += m * a${x + (p & 1)}${y + (p >> 1)};`);
  return `    m = mat4(${columns.join(", ")});\n${sums.join("\n")}`;
};

/** 3 x 3 convolution of styled features, times gains, plus bias, leaky with a slope. */
export const CONVOLVE = `${HEAD}${OUTPUTS}
uniform sampler2DArray features;
uniform highp sampler2D filters;
uniform vec4 styles[64], gains[64], bias[64];
uniform int inGroups, inTiles, outGroups, outTiles, blocks;
uniform float slope;

vec4 finish(vec4 sum, int group) {
  vec4 x = sum * gains[group] + bias[group];
  return max(x, slope * x);
}

void main() {
  ivec2 p = ivec2(gl_FragCoord.xy);
  ivec2 tile = p / blocks;
  ivec2 q = p - tile * blocks;
  int group = tile.y * outTiles + tile.x;
  vec4 s0 = vec4(0.0), s1 = s0, s2 = s0, s3 = s0;
  if (group >= outGroups) { out0 = s0; out1 = s0; out2 = s0; out3 = s0; return; }
  int to_l = q.x > 0 ? -1 : 0, to_r = q.x < blocks - 1 ? 1 : 0;
  int to_t = q.y > 0 ? -1 : 0, to_b = q.y < blocks - 1 ? 1 : 0;
  float in_l = float(-to_l), in_r = float(to_r), in_t = float(-to_t), in_b = float(to_b);
  int rows = (inGroups + 27) / 28;
  mat4 m;
  for (int g = 0; g < inGroups; g++) {
    ivec2 base = ivec2(g % inTiles, g / inTiles) * blocks + q;
    ivec2 at = ivec2(36 * (g % 28), group * rows + g / 28);
    vec4 style = styles[g];
${PATCH.map(fetchPixel).join("\n")}
${[0, 1, 2, 3, 4, 5, 6, 7, 8].map(accumulate).join("\n")}
  }
  out0 = finish(s0, group);
  out1 = finish(s1, group);
  out2 = finish(s2, group);
  out3 = finish(s3, group);
}
`;

// bilinear: a pixel and its neighbours above, below and beside, the border repeated
const UP = `
vec4 pixel(sampler2DArray source, ivec2 corner, ivec2 at, int size) {
  ivec2 p = clamp(at, ivec2(0), ivec2(size - 1));
  return texelFetch(source, ivec3(corner + (p >> 1), (p.x & 1) + 2 * (p.y & 1)), 0);
}

void enlarge(sampler2DArray source, ivec2 corner, ivec2 q, int size, out vec4 up[4]) {
  vec4 rows[6];
  for (int y = 0; y < 3; y++) {
    vec4 left = pixel(source, corner, q + ivec2(-1, y - 1), size);
    vec4 here = pixel(source, corner, q + ivec2(0, y - 1), size);
    vec4 right = pixel(source, corner, q + ivec2(1, y - 1), size);
    rows[2 * y] = 0.75 * here + 0.25 * left;
    rows[2 * y + 1] = 0.75 * here + 0.25 * right;
  }
  up[0] = 0.75 * rows[2] + 0.25 * rows[0];
  up[1] = 0.75 * rows[3] + 0.25 * rows[1];
  up[2] = 0.75 * rows[2] + 0.25 * rows[4];
  up[3] = 0.75 * rows[3] + 0.25 * rows[5];
}
`;

/** Twice the size, then leaky ReLU. `size` is that of the source. */
export const UPSAMPLE = `${HEAD}${OUTPUTS}
uniform sampler2DArray features;
uniform int tiles, size;
${UP}
void main() {
  ivec2 p = ivec2(gl_FragCoord.xy);
  ivec2 tile = p / size;
  vec4 up[4];
  enlarge(features, tile * (size / 2), p - tile * size, size, up);
  out0 = max(up[0], 0.2 * up[0]);
  out1 = max(up[1], 0.2 * up[1]);
  out2 = max(up[2], 0.2 * up[2]);
  out3 = max(up[3], 0.2 * up[3]);
}
`;

/** Colours of features, added to the enlarged picture of half the size. */
export const COLOURS = `${HEAD}${OUTPUTS}
uniform sampler2DArray features, image;
uniform vec4 colours[192];
uniform vec3 bias;
uniform int groups, tiles, blocks, hasImage;
${UP}
vec4 colour(ivec2 q, int layer) {
  vec3 sum = bias;
  for (int g = 0; g < groups; g++) {
    vec4 x = texelFetch(features, ivec3(ivec2(g % tiles, g / tiles) * blocks + q, layer), 0);
    sum += vec3(dot(colours[g], x), dot(colours[groups + g], x), dot(colours[2 * groups + g], x));
  }
  return vec4(sum, 1.0);
}

void main() {
  ivec2 q = ivec2(gl_FragCoord.xy);
  vec4 up[4];
  if (hasImage == 1) enlarge(image, ivec2(0), q, blocks, up);
  else for (int at = 0; at < 4; at++) up[at] = vec4(0.0);
  out0 = up[0] + colour(q, 0);
  out1 = up[1] + colour(q, 1);
  out2 = up[2] + colour(q, 2);
  out3 = up[3] + colour(q, 3);
}
`;

/** The picture itself, rows from the top. */
export const SHOW = `${HEAD}
uniform sampler2DArray image;
uniform int size;
out vec4 shown;
void main() {
  ivec2 p = ivec2(gl_FragCoord.x, float(size) - gl_FragCoord.y);
  vec4 x = texelFetch(image, ivec3(p / 2, (p.x & 1) + 2 * (p.y & 1)), 0);
  shown = vec4(clamp(x.rgb * 0.5 + 0.5, 0.0, 1.0), 1.0);
}
`;
