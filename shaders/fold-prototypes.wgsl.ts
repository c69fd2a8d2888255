/**
 * The prototypes' side of the decoder's attention, for all decoder blocks at once: keys[m, h] = learnScale[h] k / max(|k|, eps)
 * and U[h M + m, :] = V[m, head h] W[:, head h]^T, small matrix products, one for each block and head, over the prototypes of
 * all images. Backward: dV = dU W, dW[:, head h] = sum over images and m of dU V^T, and the keys through their normalisation.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl } from '../src/gpu/wgsl.ts';
import { groupGrid, linearGrid, reduceSum } from './common.wgsl.ts';
import { chunksOf, each, HeadRows, keepLoop } from './head-rows.wgsl.ts';
import { evenBlock, forEachSum, multiplyAdd, placeOf, type LaneBlocks } from './lane-blocks.wgsl.ts';
import { normalizeEpsilon } from './prototype-attention.wgsl.ts';
import type { BuiltKernel } from './softmax-attention.wgsl.ts';

export interface FoldShape {
  /** Decoder blocks. */
  readonly depth: number;
  readonly batch: number;
  readonly prototypes: number;
  readonly heads: number;
  readonly channels: number;
  /** Elements of a block's row of learnScale, weight and bias; what exceeds the parameter is padding. */
  readonly scaleStride: number;
  readonly weightStride: number;
  readonly biasStride: number;
}

function labelOf(what: string, { depth, batch, prototypes, heads, channels }: FoldShape): string {
  return `${what} ${depth} x [${batch}, ${prototypes}, ${channels}] ${heads}`;
}

/** Keys (half 0) or values (half 1): as a batch the decoder blocks, whose rows are the prototypes of all images. */
export function keyValueRows(variable: string, { batch, prototypes, heads, channels }: FoldShape, half: 0 | 1): HeadRows {
  const layout = { rows: batch * prototypes, stride: 2 * channels, offset: half * channels };
  return new HeadRows(variable, layout, channels / heads, HeadRows.fits(layout, channels / heads));
}

/** The finished keys, or their gradient, in the same way. */
export function keyRows(variable: string, { batch, prototypes, heads, channels }: FoldShape): HeadRows {
  const layout = { rows: batch * prototypes, stride: channels, offset: 0 };
  return new HeadRows(variable, layout, channels / heads, HeadRows.fits(layout, channels / heads));
}

/** The weight's rows; {@link weightBase} finds them, since a block's row may end in padding. */
export function weightRows(variable: string, { heads, channels, weightStride }: FoldShape): HeadRows {
  const layout = { rows: channels, stride: channels, offset: 0 };
  return new HeadRows(variable, layout, channels / heads, HeadRows.fits(layout, channels / heads) && weightStride % 4 === 0);
}

function weightBase(weight: HeadRows, { weightStride }: FoldShape, row: string): string {
  return `(layer * ${weight.type === 'vec4f' ? weightStride / 4 : weightStride}u + ${weight.base('0u', row, 'h')})`;
}

/** Index of the row of U, as an array of f32, that belongs to head h of prototype and image `row` in decoder block `layer`. */
function projectedBase({ batch, prototypes, heads, channels }: FoldShape, row: string): string {
  return `((layer * ${batch}u + ${row} / ${prototypes}u) * ${prototypes * heads + 1}u + h * ${prototypes}u + ${row} % ${prototypes}u) * ${channels}u`;
}

interface ProductGrid {
  readonly blocks: LaneBlocks;
  readonly lanes: number;
  readonly groups: number;
  readonly down: number;
  readonly workgroups: readonly [number, number, number];
  readonly position: string;
}

/**
 * Workgroups for a product of `count` rows and `columns` columns in each head h of each decoder block `layer`, and the
 * lane's first row and column; own0, own1, .. and c0, c1, .. are all of them, clamped. CPU adapters' lanes lie along the columns, where memory is contiguous.
 */
function productGrid({ depth, heads }: FoldShape, count: number, columns: number, most: { rows: number; columns: number }, target: Target): ProductGrid {
  const isGpu = target.family === 'gpu';
  const lanes = isGpu ? 64 : target.family === 'lavapipe' ? 8 : 4;
  const across = isGpu ? 16 : lanes;
  const blocks = { across, rows: evenBlock(Math.ceil(count / (lanes / across)), isGpu ? 4 : most.rows), columns: evenBlock(Math.ceil(columns / across), isGpu ? 2 : most.columns) };
  const { x, y, down } = placeOf(blocks, lanes);
  const high = Math.ceil(count / (down * blocks.rows));
  const wide = Math.ceil(columns / (across * blocks.columns));
  const groups = depth * heads * high * wide;
  const grid = groupGrid(groups, target);
  return {
    blocks, lanes, groups, down, workgroups: grid.workgroups,
    position: `${grid.index}
let part = group / ${high * wide}u;
let layer = part / ${heads}u;
let h = part % ${heads}u;
let row = (group / ${wide}u) % ${high}u * ${down * blocks.rows}u + ${y};
let column = group % ${wide}u * ${across * blocks.columns}u + ${x};
${each(blocks.rows, (k) => `let own${k} = min(row + ${k * down}u, ${count - 1}u);`)}
${each(blocks.columns, (j) => `let c${j} = min(column + ${j * across}u, ${columns - 1}u);`)}`,
  };
}

/** U but for its bias rows. Reads `values` and `weight`, writes `projected` (f32). */
export function foldProductKernel(shape: FoldShape, declarations: string, views: { values: HeadRows; weight: HeadRows }, target: Target): BuiltKernel {
  const { batch, prototypes, heads, channels } = shape;
  const { values, weight } = views;
  const count = batch * prototypes;
  const { blocks, lanes, down, position, workgroups } = productGrid(shape, count, channels, { rows: 8, columns: 4 }, target);
  const source = kernel('fold-prototypes.wgsl.ts', labelOf('foldPrototypes, product', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  ${each(blocks.rows, (k) => `let valueAt${k} = ${values.base('layer', `own${k}`, 'h')};\n${each(blocks.columns, (j) => `var u${k}_${j} = 0.0f;`)}`)}
  ${each(blocks.columns, (j) => `let weightAt${j} = ${weightBase(weight, shape, `c${j}`)};`)}
  for (var c = 0u; c < ${chunksOf(channels / heads)}u${keepLoop(target)}; c++) {
    ${each(blocks.rows, (k) => `let v${k} = ${values.read(`valueAt${k}`, 'c')};`)}
    ${each(blocks.columns, (j) => `let w${j} = ${weight.read(`weightAt${j}`, 'c')};`)}
    ${multiplyAdd('u', blocks, 'v', 'w', 'dot')}
  }
  ${forEachSum('u', blocks, 'f32', target, `let own = row + i * ${down}u;
  let c = column + j * ${blocks.across}u;
  if (own < ${count}u && c < ${channels}u) { projected[${projectedBase(shape, 'own')} + c] = value; }`)}
}
`);
  return { source, workgroups };
}

const inverseNorm = (square: string): string => `1.0f / max(sqrt(${square}), ${f32(normalizeEpsilon)})`;

/** The keys, and U's bias rows: an invocation for each head of each. Reads `keyValue`, `learnScale`, `bias`, writes `keys` and `projected` (f32). */
export function foldRowsKernel(shape: FoldShape, declarations: string, views: { key: HeadRows; output: HeadRows }, target: Target): BuiltKernel {
  const { depth, batch, prototypes, heads, channels, scaleStride, biasStride } = shape;
  const { key, output } = views;
  const headSize = channels / heads;
  const grid = linearGrid(depth * batch * (prototypes + 1) * heads, target);
  const source = kernel('fold-prototypes.wgsl.ts', labelOf('foldPrototypes, keys', shape), wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  let h = i % ${heads}u;
  let m = (i / ${heads}u) % ${prototypes + 1}u;
  let image = i / ${heads * (prototypes + 1)}u;
  let layer = image / ${batch}u;
  if (m < ${prototypes}u) {
    let keyAt = ${key.base('0u', `(image * ${prototypes}u + m)`, 'h')};
    let to = ${output.base('0u', `(image * ${prototypes}u + m)`, 'h')};
    var square = 0.0f;
    for (var c = 0u; c < ${chunksOf(headSize)}u${keepLoop(target)}; c++) { let k = ${key.read('keyAt', 'c')}; square += dot(k, k); }
    let scale = learnScale[layer * ${scaleStride}u + h] * (${inverseNorm('square')});
    for (var c = 0u; c < ${chunksOf(headSize)}u${keepLoop(target)}; c++) { let scaled = scale * ${key.read('keyAt', 'c')}; ${output.write('to', 'c', 'scaled')} }
  } else {
    let to = (image * ${prototypes * heads + 1}u + ${prototypes * heads}u) * ${channels}u + h * ${headSize}u;
    for (var c = 0u; c < ${headSize}u${keepLoop(target)}; c++) { projected[to + c] = bias[layer * ${biasStride}u + h * ${headSize}u + c]; }
  }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** dV = dU W. Reads `weight` and `dprojected` (f32), writes the values' half of the gradient. */
export function foldValueGradientKernel(shape: FoldShape, declarations: string, views: { weight: HeadRows; valueGradient: HeadRows }, target: Target): BuiltKernel {
  const { batch, prototypes, heads, channels } = shape;
  const { weight, valueGradient } = views;
  const count = batch * prototypes;
  const chunks = chunksOf(channels / heads);
  const { blocks, lanes, down, position, workgroups } = productGrid(shape, count, chunks, { rows: 8, columns: 2 }, target);
  const source = kernel('fold-prototypes.wgsl.ts', labelOf('foldPrototypesGradient, values', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  ${each(blocks.rows, (k) => `let gradientAt${k} = ${projectedBase(shape, `own${k}`)};\n${each(blocks.columns, (j) => `var sum${k}_${j} = vec4f();`)}`)}
  for (var c = 0u; c < ${channels}u${keepLoop(target)}; c++) {
    let weightAt = ${weightBase(weight, shape, 'c')};
    ${each(blocks.rows, (k) => `let g${k} = vec4f(dprojected[gradientAt${k} + c]);`)}
    ${each(blocks.columns, (j) => `let w${j} = ${weight.read('weightAt', `c${j}`)};`)}
    ${multiplyAdd('sum', blocks, 'g', 'w', 'outer')}
  }
  ${forEachSum('sum', blocks, 'vec4f', target, `let own = row + i * ${down}u;
  let chunk = column + j * ${blocks.across}u;
  if (own < ${count}u && chunk < ${chunks}u) {
    let to = ${valueGradient.base('layer', 'own', 'h')};
    ${valueGradient.write('to', 'chunk', 'value')}
  }`)}
}
`);
  return { source, workgroups };
}

/** dW[:, head h] = sum over images and prototypes of dU V^T, and 0 in the padding. Reads `dprojected` (f32) and the values. */
export function foldWeightGradientKernel(shape: FoldShape, declarations: string, views: { values: HeadRows; weightGradient: HeadRows }, target: Target): BuiltKernel {
  const { depth, batch, prototypes, heads, channels, weightStride } = shape;
  const { values, weightGradient } = views;
  const chunks = chunksOf(channels / heads);
  const folded = prototypes * heads + 1;
  const { blocks, lanes, groups, down, position, workgroups } = productGrid(shape, channels, chunks, { rows: 8, columns: 2 }, target);
  const unit = weightGradient.type === 'vec4f' ? 4 : 1;
  const padding = (weightStride - channels * channels) / unit;
  const source = kernel('fold-prototypes.wgsl.ts', labelOf('foldPrototypesGradient, weight', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  ${each(blocks.rows, (k) => each(blocks.columns, (j) => `var sum${k}_${j} = vec4f();`))}
  for (var b = 0u; b < ${batch}u${keepLoop(target)}; b++) {
    for (var m = 0u; m < ${prototypes}u${keepLoop(target)}; m++) {
      let gradientAt = ((layer * ${batch}u + b) * ${folded}u + h * ${prototypes}u + m) * ${channels}u;
      let valueAt = ${values.base('layer', `(b * ${prototypes}u + m)`, 'h')};
      ${each(blocks.rows, (k) => `let g${k} = vec4f(dprojected[gradientAt + own${k}]);`)}
      ${each(blocks.columns, (j) => `let v${j} = ${values.read('valueAt', `c${j}`)};`)}
      ${multiplyAdd('sum', blocks, 'g', 'v', 'outer')}
    }
  }
  ${forEachSum('sum', blocks, 'vec4f', target, `let own = row + i * ${down}u;
  let chunk = column + j * ${blocks.across}u;
  if (own < ${channels}u && chunk < ${chunks}u) {
    let to = ${weightBase(weightGradient, shape, 'own')};
    ${weightGradient.write('to', 'chunk', 'value')}
  }`)}
#if ${padding > 0}
  for (var p = group * ${lanes}u + lane; p < ${depth * padding}u; p += ${groups * lanes}u) {
    ${weightGradient.variable}[p / ${padding}u * ${weightStride / unit}u + ${channels * channels / unit}u + p % ${padding}u] = ${weightGradient.type === 'vec4f' ? 'vec4f()' : '0.0f'};
  }
#endif
}
`);
  return { source, workgroups };
}

/**
 * A workgroup for a head of a decoder block: dk where `keyGradient` is given (the keys' half of the gradient), d learnScale, d bias
 * and their padding, those that are wanted. Reads `keyValue`, `learnScale`, `dkeys`, `dprojected` (f32).
 */
export function foldRowsGradientKernel(
  shape: FoldShape, declarations: string,
  views: { key: HeadRows; outputGradient: HeadRows; keyGradient: HeadRows | undefined; wantsScale: boolean; wantsBias: boolean }, target: Target,
): BuiltKernel {
  const { depth, batch, prototypes, heads, channels, scaleStride, biasStride } = shape;
  const { key, outputGradient, keyGradient, wantsScale, wantsBias } = views;
  const headSize = channels / heads;
  const chunks = chunksOf(headSize);
  const folded = prototypes * heads + 1;
  const grid = groupGrid(depth * heads, target);
  const source = kernel('fold-prototypes.wgsl.ts', labelOf('foldPrototypesGradient, keys', shape), wgsl`
${declarations}
#if ${wantsScale}
${reduceSum}
#endif
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let layer = group / ${heads}u;
  let h = group % ${heads}u;
#if ${keyGradient !== undefined || wantsScale}
  var along = 0.0f;
  for (var row = lane; row < ${batch * prototypes}u; row += 64u) {
    let keyAt = ${key.base('layer', 'row', 'h')};
    let gradientAt = ${outputGradient.base('layer', 'row', 'h')};
    var square = 0.0f;
    var product = 0.0f;
    for (var c = 0u; c < ${chunks}u${keepLoop(target)}; c++) {
      let k = ${key.read('keyAt', 'c')};
      square += dot(k, k);
      product += dot(k, ${outputGradient.read('gradientAt', 'c')});
    }
    let inverse = ${inverseNorm('square')};
    along += product * inverse;
#if ${keyGradient !== undefined}
    let scale = learnScale[layer * ${scaleStride}u + h] * inverse;
    let back = select(0.0f, (product * inverse) * inverse, sqrt(square) >= ${f32(normalizeEpsilon)});
    let to = ${keyGradient?.base('layer', 'row', 'h') ?? ''};
    for (var c = 0u; c < ${chunks}u${keepLoop(target)}; c++) {
      let result = scale * (${outputGradient.read('gradientAt', 'c')} - back * ${key.read('keyAt', 'c')});
      ${keyGradient?.write('to', 'c', 'result') ?? ''}
    }
#endif
  }
#endif
#if ${wantsBias}
  for (var c = lane; c < ${headSize}u; c += 64u) {
    var sum = 0.0f;
    for (var b = 0u; b < ${batch}u${keepLoop(target)}; b++) { sum += dprojected[((layer * ${batch}u + b) * ${folded}u + ${folded - 1}u) * ${channels}u + h * ${headSize}u + c]; }
    dbias[layer * ${biasStride}u + h * ${headSize}u + c] = sum;
  }
  for (var p = ${channels}u + h * 64u + lane; p < ${biasStride}u; p += ${64 * heads}u) { dbias[layer * ${biasStride}u + p] = 0.0f; }
#endif
#if ${wantsScale}
  let total = reduceSum(lane, along);
  if (lane == 0u) { dscale[layer * ${scaleStride}u + h] = total; }
  for (var p = ${heads}u + h * 64u + lane; p < ${scaleStride}u; p += ${64 * heads}u) { dscale[layer * ${scaleStride}u + p] = 0.0f; }
#endif
}
`);
  return { source, workgroups: grid.workgroups };
}
