/**
 * INP-Former's decoder attention: with cosines s = q.k / (max(|q|, eps) max(|k|, eps)), A = max(0, learnScale[h] s) and
 * y = A v; no softmax, so nothing couples the prototypes. There are few of them (6): an invocation owns token rows and walks
 * over all prototypes, a block at a time. Backward, with e = dA where A > 0 (dA = dy.v):
 *   by token      d qn = learnScale sum_m e kn,    dq = (d qn - qn (qn.d qn)) / |q|
 *   by prototype  dv = sum_n A dy,  E = sum_n e qn,  d kn = learnScale E,  dk as dq,  d learnScale = sum kn.E
 * The sums over tokens are made in chunks of tokens, then combined. Where a norm is below eps, qn = q / eps is linear.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl } from '../src/gpu/wgsl.ts';
import { groupGrid, linearGrid, reduceSum } from './common.wgsl.ts';
import { blockOf, chunksOf, each, inBlocks, joined, overChunks, type HeadRows } from './head-rows.wgsl.ts';
import type { AttentionShape, BuiltKernel } from './softmax-attention.wgsl.ts';

/** The smallest norm that is divided by, PyTorch's F.normalize's. */
export const normalizeEpsilon = 1e-12;

/** Tokens that one invocation sums for the prototypes' gradients. */
export const tokenChunk = 64;

const inverseNorm = (square: string): string => `1.0f / max(sqrt(${square}), ${f32(normalizeEpsilon)})`;

function labelOf(what: string, { batch, heads, headSize, queries, keys }: AttentionShape): string {
  return `${what} [${batch}, ${heads}, ${queries}x${keys}, ${headSize}]`;
}

/** Walks over all prototypes; `body` handles `count` of them from `m`. */
function overPrototypes({ keys, headSize }: AttentionShape, target: Target, body: (count: number) => string): string {
  const block = blockOf(keys, headSize);
  return `{\n${inBlocks('m', '0u', `${keys}u`, block, keys % block === 0, target, body)}\n}`;
}

interface TokenGrid {
  readonly lanes: number;
  readonly rows: number;
  readonly workgroups: readonly [number, number, number];
  /** Defines bh, b, h and the invocation's rows row0, row1, .. (clamped: own0, own1, ..). */
  readonly position: string;
}

/** CPU adapters: a workgroup is one SIMD vector, and a prototype's values that are loaded serve several token rows. */
function tokenGrid({ batch, heads, queries }: AttentionShape, mostRows: number, target: Target): TokenGrid {
  const lanes = target.family === 'gpu' ? 64 : target.family === 'lavapipe' ? 8 : 4;
  const rows = target.family === 'gpu' ? 1 : Math.max(1, Math.min(mostRows, Math.ceil(queries / lanes)));
  const groups = Math.ceil(queries / (lanes * rows));
  const grid = groupGrid(batch * heads * groups, target);
  return {
    lanes, rows, workgroups: grid.workgroups,
    position: `${grid.index}
let bh = group / ${groups}u;
let b = bh / ${heads}u;
let h = bh % ${heads}u;
${each(rows, (r) => `let row${r} = (group % ${groups}u) * ${lanes * rows}u + ${r * lanes}u + lane;
let own${r} = min(row${r}, ${queries - 1}u);`)}`,
  };
}

/**
 * Statements that read the invocation's query rows into query0, query1, .. with their inverse norms (inverse0, ..), and,
 * in `scores`, give the cosines s{r}_{j} of the prototypes m .. m + count - 1 with their inverse norms (inverseKey{j}).
 */
function cosines(shape: AttentionShape, rows: number, query: HeadRows, key: HeadRows, target: Target): { load: string; scores: (count: number) => string } {
  const loop = (body: (c: string) => string): string => overChunks(shape.headSize, target, body);
  return {
    load: each(rows, (r) => `
let from${r} = ${query.base('b', `own${r}`, 'h')};
var query${r}: array<vec4f, ${chunksOf(shape.headSize)}>;
var square${r} = 0.0f;
${loop((c) => `let q = ${query.read(`from${r}`, c)}; query${r}[${c}] = q; square${r} += dot(q, q);`)}
let inverse${r} = ${inverseNorm(`square${r}`)};`),
    scores: (count) => `
${each(count, (j) => `let keyAt${j} = ${key.base('b', `(m + ${j}u)`, 'h')};
var keySquare${j} = 0.0f;
${each(rows, (r) => `var dot${r}_${j} = 0.0f;`)}`)}
${loop((c) => `
${each(count, (j) => `let t${j} = ${key.read(`keyAt${j}`, c)}; keySquare${j} += dot(t${j}, t${j});`)}
${each(rows, (r) => `let q${r} = query${r}[${c}];\n${each(count, (j) => `dot${r}_${j} += dot(q${r}, t${j});`)}`)}
`)}
${each(count, (j) => `let inverseKey${j} = ${inverseNorm(`keySquare${j}`)};
${each(rows, (r) => `let s${r}_${j} = (dot${r}_${j} * inverse${r}) * inverseKey${j};`)}`)}`,
  };
}

/** y = A v. Reads the sources and `learnScale`. */
export function prototypeAttentionKernel(shape: AttentionShape, declarations: string, tensors: { query: HeadRows; key: HeadRows; value: HeadRows; output: HeadRows }, target: Target): BuiltKernel {
  const { headSize, queries } = shape;
  const { query, key, value, output } = tensors;
  const { lanes, rows, workgroups, position } = tokenGrid(shape, 4, target);
  const loop = (body: (c: string) => string): string => overChunks(headSize, target, body);
  const { load, scores } = cosines(shape, rows, query, key, target);
  const source = kernel('prototype-attention.wgsl.ts', labelOf('prototypeAttention', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  let scale = learnScale[h];
  ${load}
  ${each(rows, (r) => `var sum${r}: array<vec4f, ${chunksOf(headSize)}>;`)}
  ${overPrototypes(shape, target, (count) => `
  ${scores(count)}
  ${each(count, (j) => `let valueAt${j} = ${value.base('b', `(m + ${j}u)`, 'h')};
  ${each(rows, (r) => `let a${r}_${j} = max(0.0f, s${r}_${j} * scale);`)}`)}
  ${loop((c) => `
  ${each(count, (j) => `let t${j} = ${value.read(`valueAt${j}`, c)};`)}
  ${each(rows, (r) => `sum${r}[${c}] += ${joined(count, ' + ', (j) => `a${r}_${j} * t${j}`)};`)}`)}`)}
  ${each(rows, (r) => `if (row${r} < ${queries}u) {
    let to = ${output.base('b', `row${r}`, 'h')};
    ${loop((c) => `let result = sum${r}[${c}]; ${output.write('to', c, 'result')}`)}
  }`)}
}
`);
  return { source, workgroups };
}

/** A [batch, heads, tokens, prototypes] into `weights`. Reads query and key sources and `learnScale`. */
export function prototypeWeightsKernel(shape: AttentionShape, declarations: string, tensors: { query: HeadRows; key: HeadRows }, target: Target): BuiltKernel {
  const { queries, keys } = shape;
  const { lanes, rows, workgroups, position } = tokenGrid(shape, 1, target);
  const { load, scores } = cosines(shape, rows, tensors.query, tensors.key, target);
  const source = kernel('prototype-attention.wgsl.ts', labelOf('prototypeAttentionWeights', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  if (row0 >= ${queries}u) { return; }
  let scale = learnScale[h];
  ${load}
  ${overPrototypes(shape, target, (count) => `
  ${scores(count)}
  ${each(count, (j) => `weights[(bh * ${queries}u + row0) * ${keys}u + m + ${j}u] = max(0.0f, s0_${j} * scale);`)}`)}
}
`);
  return { source, workgroups };
}

/**
 * The tokens' side of the gradient: dq where `queryGradient` is given; where `keepsWeights`, (A, e / |q|) of every token and
 * prototype into `weights` (vec2f), from which the prototypes' side is summed.
 */
export function prototypeTokenGradientKernel(
  shape: AttentionShape, declarations: string,
  tensors: { query: HeadRows; key: HeadRows; value: HeadRows; outputGradient: HeadRows; queryGradient: HeadRows | undefined; keepsWeights: boolean }, target: Target,
): BuiltKernel {
  const { headSize, queries, keys } = shape;
  const { query, key, value, outputGradient, queryGradient, keepsWeights } = tensors;
  const { lanes, rows, workgroups, position } = tokenGrid(shape, 2, target);
  const loop = (body: (c: string) => string): string => overChunks(headSize, target, body);
  const { load, scores } = cosines(shape, rows, query, key, target);
  const source = kernel('prototype-attention.wgsl.ts', labelOf('prototypeAttentionGradient, tokens', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  let scale = learnScale[h];
  ${load}
  ${each(rows, (r) => `let gradientAt${r} = ${outputGradient.base('b', `own${r}`, 'h')};
  var along${r} = 0.0f;
  var sum${r}: array<vec4f, ${chunksOf(headSize)}>;`)}
  ${overPrototypes(shape, target, (count) => `
  ${scores(count)}
  ${each(count, (j) => `let valueAt${j} = ${value.base('b', `(m + ${j}u)`, 'h')};
  ${each(rows, (r) => `var da${r}_${j} = 0.0f;`)}`)}
  ${loop((c) => `
  ${each(count, (j) => `let t${j} = ${value.read(`valueAt${j}`, c)};`)}
  ${each(rows, (r) => `let dy${r} = ${outputGradient.read(`gradientAt${r}`, c)};\n${each(count, (j) => `da${r}_${j} += dot(dy${r}, t${j});`)}`)}`)}
  ${each(rows, (r) => each(count, (j) => `let a${r}_${j} = s${r}_${j} * scale;
  let e${r}_${j} = select(0.0f, da${r}_${j}, a${r}_${j} > 0.0f);
  along${r} += (scale * e${r}_${j}) * s${r}_${j};
  let ds${r}_${j} = (scale * e${r}_${j}) * inverseKey${j};`))}
  ${keepsWeights ? each(rows, (r) => `if (row${r} < ${queries}u) {
    ${each(count, (j) => `weights[(bh * ${queries}u + row${r}) * ${keys}u + m + ${j}u] = vec2f(max(0.0f, a${r}_${j}), e${r}_${j} * inverse${r});`)}
  }`) : ''}
  ${queryGradient ? loop((c) => `
  ${each(count, (j) => `let t${j} = ${key.read(`keyAt${j}`, c)};`)}
  ${each(rows, (r) => `sum${r}[${c}] += ${joined(count, ' + ', (j) => `ds${r}_${j} * t${j}`)};`)}`) : ''}`)}
  ${queryGradient ? each(rows, (r) => `if (row${r} < ${queries}u) {
    let to = ${queryGradient.base('b', `row${r}`, 'h')};
    let back = select(0.0f, along${r} * inverse${r}, sqrt(square${r}) >= ${f32(normalizeEpsilon)});
    ${loop((c) => `let result = inverse${r} * (sum${r}[${c}] - back * query${r}[${c}]); ${queryGradient.write('to', c, 'result')}`)}
  }`) : ''}
}
`);
  return { source, workgroups };
}

/** Chunks of tokens that the prototypes' sums are made in. */
export function tokenChunks(shape: AttentionShape): number {
  return Math.ceil(shape.queries / tokenChunk);
}

/**
 * Sums over chunks of tokens of A dy into `partialValue` and of e qn into `partialKey`, vec4f [batch, heads, chunks of tokens,
 * prototypes, chunks of channels]. One invocation for four channels, so that neighbours read neighbouring addresses.
 */
export function prototypePartialKernel(shape: AttentionShape, declarations: string, tensors: { query: HeadRows; outputGradient: HeadRows }, target: Target): BuiltKernel {
  const { batch, heads, headSize, queries, keys } = shape;
  const chunks = chunksOf(headSize);
  const parts = tokenChunks(shape);
  const grid = linearGrid(batch * heads * parts * chunks, target);
  const { query, outputGradient } = tensors;
  const source = kernel('prototype-attention.wgsl.ts', labelOf('prototypeAttentionGradient, partial sums', shape), wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  let c = i % ${chunks}u;
  let part = i / ${chunks}u;
  let bh = part / ${parts}u;
  let b = bh / ${heads}u;
  let h = bh % ${heads}u;
  let first = (part % ${parts}u) * ${tokenChunk}u;
  let end = min(first + ${tokenChunk}u, ${queries}u);
  ${overPrototypes(shape, target, (count) => `
  ${each(count, (j) => `var value${j} = vec4f();\nvar key${j} = vec4f();`)}
  for (var n = first; n < end; n++) {
    let queryAt = ${query.base('b', 'n', 'h')};
    let gradientAt = ${outputGradient.base('b', 'n', 'h')};
    let q = ${query.read('queryAt', 'c')};
    let dy = ${outputGradient.read('gradientAt', 'c')};
    let at = (bh * ${queries}u + n) * ${keys}u + m;
    ${each(count, (j) => `let w${j} = weights[at + ${j}u];
    value${j} += w${j}.x * dy;
    key${j} += w${j}.y * q;`)}
  }
  ${each(count, (j) => `partialValue[(part * ${keys}u + m + ${j}u) * ${chunks}u + c] = value${j};
  partialKey[(part * ${keys}u + m + ${j}u) * ${chunks}u + c] = key${j};`)}`)}
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Combines the partial sums: one invocation for a prototype and head writes its dv, dk and kn.E (`alongKey`), those that are wanted. */
export function prototypeKeyGradientKernel(
  shape: AttentionShape, declarations: string,
  tensors: { key: HeadRows; keyGradient: HeadRows | undefined; valueGradient: HeadRows | undefined; keepsAlong: boolean }, target: Target,
): BuiltKernel {
  const { batch, heads, headSize, keys } = shape;
  const chunks = chunksOf(headSize);
  const parts = tokenChunks(shape);
  const { key, keyGradient, valueGradient, keepsAlong } = tensors;
  const grid = linearGrid(batch * heads * keys, target);
  const loop = (body: (c: string) => string): string => overChunks(headSize, target, body);
  const total = (name: string, c: string): string => `var total = vec4f();
    for (var p = 0u; p < ${parts}u; p++) { total += ${name}[((bh * ${parts}u + p) * ${keys}u + m) * ${chunks}u + ${c}]; }`;
  const source = kernel('prototype-attention.wgsl.ts', labelOf('prototypeAttentionGradient, prototypes', shape), wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  let m = i % ${keys}u;
  let bh = i / ${keys}u;
  let b = bh / ${heads}u;
  let h = bh % ${heads}u;
#if ${valueGradient !== undefined}
  let valueTo = ${valueGradient?.base('b', 'm', 'h') ?? ''};
  ${valueGradient ? loop((c) => `${total('partialValue', c)} ${valueGradient.write('valueTo', c, 'total')}`) : ''}
#endif
#if ${keyGradient !== undefined || keepsAlong}
  let keyAt = ${key.base('b', 'm', 'h')};
  var sum: array<vec4f, ${chunks}>;
  var square = 0.0f;
  var product = 0.0f;
  ${loop((c) => `${total('partialKey', c)}
  let k = ${key.read('keyAt', c)};
  sum[${c}] = total;
  square += dot(k, k);
  product += dot(k, total);`)}
  let inverse = ${inverseNorm('square')};
  let along = product * inverse;
#endif
#if ${keepsAlong}
  alongKey[i] = along;
#endif
#if ${keyGradient !== undefined}
  let scale = learnScale[h] * inverse;
  let back = select(0.0f, along * inverse, sqrt(square) >= ${f32(normalizeEpsilon)});
  let keyTo = ${keyGradient?.base('b', 'm', 'h') ?? ''};
  ${keyGradient ? loop((c) => `let result = scale * (sum[${c}] - back * ${key.read('keyAt', c)}); ${keyGradient.write('keyTo', c, 'result')}`) : ''}
#endif
}
`);
  return { source, workgroups: grid.workgroups };
}

/** d learnScale[h] = sum over images and prototypes of `alongKey` [batch, heads, prototypes]: a workgroup a head. */
export function prototypeScaleGradientKernel({ batch, heads, keys }: AttentionShape, declarations: string, target: Target): BuiltKernel {
  const grid = groupGrid(heads, target);
  const source = kernel('prototype-attention.wgsl.ts', `prototypeAttentionGradient, learnScale [${batch}, ${heads}, ${keys}]`, wgsl`
${declarations}
${reduceSum}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  var sum = 0.0f;
  for (var i = lane; i < ${batch * keys}u; i += 64u) { sum += alongKey[(i / ${keys}u * ${heads}u + group) * ${keys}u + i % ${keys}u]; }
  let total = reduceSum(lane, sum);
  if (lane == 0u) { scaleGradient[group] = total; }
}
`);
  return { source, workgroups: grid.workgroups };
}
