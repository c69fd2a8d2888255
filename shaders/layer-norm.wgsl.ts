/**
 * Layer normalisation over the last dimension, y = (x - mean) / sqrt(var + eps) * w + b, with the biased variance
 * taken in a second pass around the mean (one pass loses the digits of rows that vary little around a large mean).
 * CPU adapters give a row to an invocation; GPUs give it to a workgroup, whose lanes read neighbouring channels.
 * A stack of norms of one x, with `stack` rows of weights `stride` elements apart, shares the statistics; backward, with
 * h = sum over the stack of g w, n = (x - mean) scale: dx = scale (h - mean(h) - n mean(h n)), dw = sum of g n, db = sum of g.
 */
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Target } from '../src/gpu/target.ts';
import type { Epilogue } from '../src/graph/operation.ts';
import { groupGrid, lanes, linearGrid, reduceSum } from './common.wgsl.ts';
import { declareOperands, finish, functionsOf, operandsOf } from './epilogue.wgsl.ts';

interface RowKernel {
  readonly label: string;
  readonly rows: number;
  readonly columns: number;
  readonly stack: number;
  readonly stride: number;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** How an invocation runs over its share of a row, and how shares are summed. */
function rowWise(p: RowKernel) {
  const perGroup = p.target.family === 'gpu';
  const vector = !perGroup && p.columns % 4 === 0 && p.stride % 4 === 0;
  const width = vector ? 4 : 1;
  const grid = perGroup ? groupGrid(p.rows, p.target) : linearGrid(p.rows, p.target);
  return {
    vector,
    type: vector ? 'vec4f' : 'f32',
    columns: p.columns / width,
    stride: p.stride / width,
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

/** Writes y [stack, rows, columns] and, per row, (mean, 1 / sqrt(var + eps)). */
export function layerNormKernel(p: RowKernel & { epsilon: number }): Compiled {
  const r = rowWise(p);
  const store = p.stack === 1
    ? `${r.loop} { y[base + c] = (x[base + c] - mean) * scale * weight[c] + bias[c]; }`
    : `for (var d = 0u; d < ${p.stack}u; d++) {
    ${r.loop} { y[d * ${p.rows}u * ${r.columns}u + base + c] = (x[base + c] - mean) * scale * weight[d * ${r.stride}u + c] + bias[d * ${r.stride}u + c]; }
  }`;
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${r.type}>;
@group(0) @binding(1) var<storage, read> weight: array<${r.type}>;
@group(0) @binding(2) var<storage, read> bias: array<${r.type}>;
@group(0) @binding(3) var<storage, read_write> y: array<${r.type}>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2f>;
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
  ${store}
  ${r.once} { statistics[row] = vec2f(mean, scale); }
}
`);
  return { source, workgroups: r.workgroups };
}

/** dx, taken through the epilogues. */
export function layerNormInputGradientKernel(p: RowKernel & { epilogues: readonly Epilogue[] }): Compiled {
  const r = rowWise(p);
  const { text, result } = finish(p.epilogues, r.vector, (operand) => (operand === 'column' ? 'c' : 'base + c'));
  const h = p.stack === 1 ? 'let h = g[base + c] * weight[c];' : `var h = ${r.vector ? 'vec4f()' : '0.0f'};
    for (var d = 0u; d < ${p.stack}u; d++) { h = h + g[d * ${p.rows}u * ${r.columns}u + base + c] * weight[d * ${r.stride}u + c]; }`;
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<${r.type}>;
@group(0) @binding(1) var<storage, read> x: array<${r.type}>;
@group(0) @binding(2) var<storage, read> weight: array<${r.type}>;
@group(0) @binding(3) var<storage, read> statistics: array<vec2f>;
${declareOperands(p.epilogues, 4, r.type)}
@group(0) @binding(${4 + operandsOf(p.epilogues).length}) var<storage, read_write> dx: array<${r.type}>;
${functionsOf(p.epilogues)}
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
    ${h}
    sumH = sumH + h;
    sumHN = sumHN + h * ((x[base + c] - mean) * scale);
  }
  let meanH = ${r.sum('sumH')} * ${f32(1 / p.columns)};
  let meanHN = ${r.sum('sumHN')} * ${f32(1 / p.columns)};
  ${r.loop} {
    ${h}
    let n = (x[base + c] - mean) * scale;
    let v0 = scale * (h - meanH - n * meanHN);
    ${text}
    dx[base + c] = ${result};
  }
}
`);
  return { source, workgroups: r.workgroups };
}

/** For each chunk of rows, the sums of g n and of g by channel: [2, chunks, stack, stride], the two halves in a binding each. */
export function layerNormWeightGradientKernel(p: RowKernel & { chunk: number }): Compiled {
  const chunks = Math.ceil(p.rows / p.chunk);
  const width = p.stack * p.stride;
  const grid = linearGrid(chunks * width, p.target);
  const source = kernel('layer-norm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> weightParts: array<f32>;
@group(0) @binding(4) var<storage, read_write> biasParts: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i % ${p.stride}u;
  let begin = (i / ${width}u) * ${p.chunk}u;
  let end = min(begin + ${p.chunk}u, ${p.rows}u);
  var ofWeight = 0.0f;
  var ofBias = 0.0f;
  ${p.stride === p.columns ? '' : `if (column < ${p.columns}u) {`}
  for (var r = begin; r < end; r++) {
    let s = statistics[r];
    let slope = g[(${p.stack === 1 ? '' : `(i / ${p.stride}u) % ${p.stack}u * ${p.rows}u + `}r) * ${p.columns}u + column];
    ofWeight = ofWeight + slope * ((x[r * ${p.columns}u + column] - s.x) * s.y);
    ofBias = ofBias + slope;
  }
  ${p.stride === p.columns ? '' : '}'}
  weightParts[i] = ofWeight;
  biasParts[i] = ofBias;
}
`);
  return { source, workgroups: grid.workgroups };
}
