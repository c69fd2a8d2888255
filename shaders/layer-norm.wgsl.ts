/**
 * Layer normalisation over the last dimension, y = (x - mean) / sqrt(var + eps) * w + b, with the biased variance
 * taken in a second pass around the mean (one pass loses the digits of rows that vary little around a large mean).
 * CPU adapters give a row to an invocation; GPUs give it to a workgroup, whose lanes read neighbouring channels.
 */
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Target } from '../src/gpu/target.ts';
import { groupGrid, lanes, linearGrid, reduceSum } from './common.wgsl.ts';

interface RowKernel {
  readonly label: string;
  readonly rows: number;
  readonly columns: number;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** How an invocation runs over its share of a row, and how shares are summed. */
function rowWise(p: RowKernel) {
  const perGroup = p.target.family === 'gpu';
  const vector = !perGroup && p.columns % 4 === 0;
  const width = vector ? 4 : 1;
  const grid = perGroup ? groupGrid(p.rows, p.target) : linearGrid(p.rows, p.target);
  return {
    type: vector ? 'vec4f' : 'f32',
    columns: p.columns / width,
    zero: vector ? 'vec4f()' : '0.0f',
    workgroups: grid.workgroups,
    declarations: perGroup ? reduceSum : '',
    builtins: perGroup ? '@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32' : '@builtin(global_invocation_id) gid: vec3u',
    row: perGroup ? `${grid.index}\n  let row = group;` : `${grid.index}\n  let row = i;`,
    loop: perGroup ? `for (var c = lane; c < ${p.columns}u; c += ${lanes}u)` : `for (var c = 0u; c < ${p.columns / width}u; c++)`,
    sum: (value: string) => (perGroup ? `reduceSum(lane, ${value})` : vector ? `dot(${value}, vec4f(1.0f))` : value),
    once: perGroup ? 'if (lane == 0u)' : 'if (true)',
  };
}

/** Writes y and, per row, (mean, 1 / sqrt(var + eps)). */
export function layerNormKernel(p: RowKernel & { epsilon: number; keepStatistics: boolean }): Compiled {
  const r = rowWise(p);
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${r.type}>;
@group(0) @binding(1) var<storage, read> weight: array<${r.type}>;
@group(0) @binding(2) var<storage, read> bias: array<${r.type}>;
@group(0) @binding(3) var<storage, read_write> y: array<${r.type}>;
#if ${p.keepStatistics}
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2f>;
#endif
${r.declarations}
@compute @workgroup_size(64)
fn main(${r.builtins}) {
  ${r.row}
  let base = row * ${r.columns}u;
  var total = ${r.zero};
  ${r.loop} { total = total + x[base + c]; }
  let mean = ${r.sum('total')} * ${f32(1 / p.columns)};
  var squares = ${r.zero};
  ${r.loop} { let d = x[base + c] - mean; squares = squares + d * d; }
  let scale = 1.0f / sqrt(${r.sum('squares')} * ${f32(1 / p.columns)} + ${f32(p.epsilon)});
  ${r.loop} { y[base + c] = (x[base + c] - mean) * scale * weight[c] + bias[c]; }
#if ${p.keepStatistics}
  ${r.once} { statistics[row] = vec2f(mean, scale); }
#endif
}
`);
  return { source, workgroups: r.workgroups };
}

/** dx = scale * (h - mean(h) - n mean(h n)), h = g w, n = (x - mean) scale. */
export function layerNormInputGradientKernel(p: RowKernel): Compiled {
  const r = rowWise(p);
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<${r.type}>;
@group(0) @binding(1) var<storage, read> x: array<${r.type}>;
@group(0) @binding(2) var<storage, read> weight: array<${r.type}>;
@group(0) @binding(3) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> dx: array<${r.type}>;
${r.declarations}
@compute @workgroup_size(64)
fn main(${r.builtins}) {
  ${r.row}
  let base = row * ${r.columns}u;
  let mean = statistics[row].x;
  let scale = statistics[row].y;
  var sumH = ${r.zero};
  var sumHN = ${r.zero};
  ${r.loop} {
    let h = g[base + c] * weight[c];
    sumH = sumH + h;
    sumHN = sumHN + h * ((x[base + c] - mean) * scale);
  }
  let meanH = ${r.sum('sumH')} * ${f32(1 / p.columns)};
  let meanHN = ${r.sum('sumHN')} * ${f32(1 / p.columns)};
  ${r.loop} {
    let n = (x[base + c] - mean) * scale;
    dx[base + c] = scale * (g[base + c] * weight[c] - meanH - n * meanHN);
  }
}
`);
  return { source, workgroups: r.workgroups };
}

/** For each chunk of rows, sum of g n by channel; the chunks are then summed as rows. */
export function layerNormWeightGradientKernel(p: RowKernel & { chunk: number }): Compiled {
  const chunks = Math.ceil(p.rows / p.chunk);
  const grid = linearGrid(chunks * p.columns, p.target);
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i % ${p.columns}u;
  let begin = (i / ${p.columns}u) * ${p.chunk}u;
  let end = min(begin + ${p.chunk}u, ${p.rows}u);
  var sum = 0.0f;
  for (var r = begin; r < end; r++) {
    let s = statistics[r];
    sum = sum + g[r * ${p.columns}u + column] * ((x[r * ${p.columns}u + column] - s.x) * s.y);
  }
  parts[i] = sum;
}
`);
  return { source, workgroups: grid.workgroups };
}
