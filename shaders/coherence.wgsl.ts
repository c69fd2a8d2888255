/**
 * Cosine distances between every token and the prototypes of its image, with both gradients. The prototypes are few,
 * so a token is read once for up to 8 of them, and a gradient by the prototypes is one pass over the tokens in chunks
 * whose sums are combined in a fixed order.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, lanes, linearGrid, reduceSum } from './common.wgsl.ts';
import { normFloor, rowAccess, teamLanes, teams } from './cosine.wgsl.ts';

/** Prototypes that a lane accumulates at once. */
const block = 8;
/** Tokens that one partial sum of the prototypes' gradient covers. */
const chunk = 64;

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

export interface CoherenceSize {
  readonly label: string;
  readonly batch: number;
  readonly tokens: number;
  readonly prototypes: number;
  readonly channels: number;
  readonly target: Target;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** y[row] = max(|x[row]|, 1e-8); one workgroup a row; bindings x, y. */
export function normKernel(p: { label: string; rows: number; channels: number; target: Target }): Compiled {
  const { type, columns, total } = rowAccess(p.channels);
  const grid = groupGrid(p.rows, p.target);
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  var value = ${type}();
  for (var c = lane; c < ${columns}u; c += ${lanes}u) { value += x[group * ${columns}u + c] * x[group * ${columns}u + c]; }
  let sum = reduceSum(lane, ${total('value')});
  if (lane == 0u) { y[group] = max(sqrt(sum), ${f32(normFloor)}); }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** distance[t, m] = 1 - x_t.P_m / (|x_t| |P_m|), and |x_t|; bindings x, P, |P|, distance, |x|. */
export function prototypeDistanceKernel(p: CoherenceSize): Compiled {
  const { type, columns, total } = rowAccess(p.channels);
  const all = p.batch * p.tokens;
  const width = Math.min(block, p.prototypes);
  const stride = width + 1;
  const grid = groupGrid(Math.ceil(all / teams), p.target);
  const each = (line: (m: number) => string) => range(width).map(line).join('\n');
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read> prototypes: array<${type}>;
@group(0) @binding(2) var<storage, read> prototypeNorm: array<f32>;
@group(0) @binding(3) var<storage, read_write> distance: array<f32>;
@group(0) @binding(4) var<storage, read_write> tokenNorm: array<f32>;
var<workgroup> sums: array<f32, ${stride * lanes}>;
fn teamSum(team: u32, k: u32) -> f32 {
  var sum = 0.0f;
  for (var l = 0u; l < ${teamLanes}u; l++) { sum += sums[(team * ${teamLanes}u + l) * ${stride}u + k]; }
  return sum;
}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let token = group * ${teams}u + lane / ${teamLanes}u;
  let image = min(token / ${p.tokens}u, ${p.batch - 1}u);
  for (var first = 0u; first < ${p.prototypes}u; first += ${width}u) {
    var norm = ${type}();
    ${each((m) => `var dot${m} = ${type}();`)}
    // Past the last prototype the last one is read again, and nothing is written.
    ${each((m) => `let row${m} = (image * ${p.prototypes}u + min(first + ${m}u, ${p.prototypes - 1}u)) * ${columns}u;`)}
    if (token < ${all}u) {
      for (var c = lane % ${teamLanes}u; c < ${columns}u; c += ${teamLanes}u) {
        let value = x[token * ${columns}u + c];
        norm += value * value;
        ${each((m) => `dot${m} += value * prototypes[row${m} + c];`)}
      }
    }
    ${each((m) => `sums[lane * ${stride}u + ${m}u] = ${total(`dot${m}`)};`)}
    sums[lane * ${stride}u + ${width}u] = ${total('norm')};
    workgroupBarrier();
    let team = lane / ${width}u;
    let t = group * ${teams}u + team;
    let m = first + lane % ${width}u;
    if (team < ${teams}u && t < ${all}u && m < ${p.prototypes}u) {
      let length = max(sqrt(teamSum(team, ${width}u)), ${f32(normFloor)});
      let cosine = teamSum(team, lane % ${width}u) / (length * prototypeNorm[t / ${p.tokens}u * ${p.prototypes}u + m]);
      let cosineDistance = 1.0f - cosine;
      distance[t * ${p.prototypes}u + m] = select(cosineDistance, 0.0f, cosineDistance < 0.0f); // unlike max(), keeps NaN
      if (m == 0u) { tokenNorm[t] = length; }
    }
    workgroupBarrier();
  }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Gradient by x: -sum_m g_m P_m / (|x| |P_m|) + (sum_m g_m cos_m) x / |x|^2; bindings g, distance, |x|, |P|, x, P, y. */
export function tokenGradientKernel(p: CoherenceSize): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const grid = linearGrid(p.batch * p.tokens * columns, p.target);
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> distance: array<f32>;
@group(0) @binding(2) var<storage, read> tokenNorm: array<f32>;
@group(0) @binding(3) var<storage, read> prototypeNorm: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<${type}>;
@group(0) @binding(5) var<storage, read> prototypes: array<${type}>;
@group(0) @binding(6) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let token = i / ${columns}u;
  let image = token / ${p.tokens}u;
  var direction = ${type}();
  var radial = 0.0f;
  for (var m = 0u; m < ${p.prototypes}u; m++) {
    let gradient = g[token * ${p.prototypes}u + m];
    let row = image * ${p.prototypes}u + m;
    direction += gradient / prototypeNorm[row] * prototypes[row * ${columns}u + i % ${columns}u];
    radial += gradient * (1.0f - distance[token * ${p.prototypes}u + m]);
  }
  let norm = tokenNorm[token];
  y[i] = select(0.0f, radial / (norm * norm), norm > ${f32(normFloor)}) * x[i] - direction / norm;
}
`);
  return { source, workgroups: grid.workgroups };
}

/** radial[b, m] = sum over tokens of g cos, one workgroup each; bindings g, distance, radial. */
export function prototypeRadialKernel(p: CoherenceSize): Compiled {
  const grid = groupGrid(p.batch * p.prototypes, p.target);
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> distance: array<f32>;
@group(0) @binding(2) var<storage, read_write> radial: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let first = group / ${p.prototypes}u * ${p.tokens * p.prototypes}u + group % ${p.prototypes}u;
  var value = 0.0f;
  for (var n = lane; n < ${p.tokens}u; n += ${lanes}u) {
    let at = first + n * ${p.prototypes}u;
    value += g[at] * (1.0f - distance[at]);
  }
  let sum = reduceSum(lane, value);
  if (lane == 0u) { radial[group] = sum; }
}
`);
  return { source, workgroups: grid.workgroups };
}

export function chunksOf(tokens: number): number {
  return Math.ceil(tokens / chunk);
}

/** partial[b, chunk, m, c] = sum over the chunk's tokens of g[t, m] x[t, c] / |x_t|; bindings g, |x|, x, partial. */
export function prototypePartialKernel(p: CoherenceSize): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const chunks = chunksOf(p.tokens);
  const width = Math.min(block, p.prototypes);
  const blocks = Math.ceil(p.prototypes / width);
  const grid = linearGrid(p.batch * chunks * blocks * columns, p.target);
  const each = (line: (m: number) => string) => range(width).map(line).join('\n');
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> tokenNorm: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<${type}>;
@group(0) @binding(3) var<storage, read_write> partial: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${columns}u;
  let first = i / ${columns}u % ${blocks}u * ${width}u;
  let part = i / ${columns * blocks}u;
  let start = part % ${chunks}u * ${chunk}u;
  let end = min(start + ${chunk}u, ${p.tokens}u);
  ${each((m) => `var sum${m} = ${type}();`)}
  for (var n = start; n < end; n++) {
    let token = part / ${chunks}u * ${p.tokens}u + n;
    let direction = x[token * ${columns}u + c] / tokenNorm[token];
    let at = token * ${p.prototypes}u;
    ${each((m) => `sum${m} += g[at + min(first + ${m}u, ${p.prototypes - 1}u)] * direction;`)}
  }
  ${each((m) => `if (first + ${m}u < ${p.prototypes}u) { partial[(part * ${p.prototypes}u + first + ${m}u) * ${columns}u + c] = sum${m}; }`)}
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Gradient by P: -(sum of the partial sums) / |P| + radial P / |P|^2; bindings partial, radial, |P|, P, y. */
export function prototypeGradientKernel(p: CoherenceSize): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const chunks = chunksOf(p.tokens);
  const size = p.prototypes * columns;
  const grid = linearGrid(p.batch * size, p.target);
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> partial: array<${type}>;
@group(0) @binding(1) var<storage, read> radial: array<f32>;
@group(0) @binding(2) var<storage, read> prototypeNorm: array<f32>;
@group(0) @binding(3) var<storage, read> prototypes: array<${type}>;
@group(0) @binding(4) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let first = i / ${size}u * ${size * chunks}u + i % ${size}u;
  var direction = ${type}();
  for (var k = 0u; k < ${chunks}u; k++) { direction += partial[first + k * ${size}u]; }
  let row = i / ${columns}u;
  let norm = prototypeNorm[row];
  y[i] = select(0.0f, radial[row] / (norm * norm), norm > ${f32(normFloor)}) * prototypes[i] - direction / norm;
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Smallest of each row of `columns` and where it is, the first on ties; bindings x, smallest, index. */
export function nearestKernel(p: { label: string; rows: number; columns: number; target: Target }): Compiled {
  const grid = linearGrid(p.rows, p.target);
  const source = kernel('coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> smallest: array<f32>;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  var best = x[i * ${p.columns}u];
  var at = 0u;
  for (var m = 1u; m < ${p.columns}u; m++) {
    let value = x[i * ${p.columns}u + m];
    if (value < best) {
      best = value;
      at = m;
    }
  }
  smallest[i] = best;
  index[i] = at;
}
`);
  return { source, workgroups: grid.workgroups };
}
