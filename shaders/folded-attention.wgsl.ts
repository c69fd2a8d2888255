/**
 * The decoder's attention to prototypes that carry the output projection: with qn = q / max(|q|, eps), A[n, h, m] =
 * max(0, qn_h . keys[m, h]) and z = bias + A U, U [M H, C] the projected prototypes (row h M + m; row M H is the bias).
 * A workgroup owns a tile of tokens and keeps A in workgroup memory. Backward by tokens: dA = g U^T, e = dA where A > 0,
 * dq = (sum_m e keys - qn (sum_m e A)) / |q|; by prototypes: dU = A^T g, d keys[m, h] = sum_n e qn.
 *
 * The products A U, g U^T and A^T g are register blocks on a grid of lanes. On CPU adapters a workgroup is one SIMD vector,
 * whose lanes lie along the tokens, each with tokens of its own, so that there is no barrier (and along the channels in
 * A^T g, which sums over tokens). GPUs' lanes lie along both sides, so that a workgroup's loads meet in the cache.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl } from '../src/gpu/wgsl.ts';
import { groupGrid } from './common.wgsl.ts';
import { blockOf, chunksOf, each, inBlocks, joined, keepLoop, type HeadRows } from './head-rows.wgsl.ts';
import { dotAdd, evenBlock, forEachSum, multiplyAdd, placeOf, type LaneBlocks } from './lane-blocks.wgsl.ts';
import { normalizeEpsilon } from './prototype-attention.wgsl.ts';
import type { BuiltKernel } from './softmax-attention.wgsl.ts';

export interface FoldedShape {
  readonly batch: number;
  readonly tokens: number;
  readonly prototypes: number;
  readonly heads: number;
  readonly channels: number;
}

/** How the kernels divide their work; {@link LaneBlocks} of each product. */
export interface FoldedVariant {
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Tokens of a workgroup. */
  readonly tile: number;
  /** Tokens that a lane handles together when it works head by head. */
  readonly together: number;
  /** A U: rows are tokens, columns vec4f of channels. */
  readonly forward: LaneBlocks;
  /** g U^T: rows are tokens, columns prototypes of heads. */
  readonly weights: LaneBlocks;
  /** [A, 1]^T g and (e / |q|)^T q: rows are prototypes (of heads), columns vec4f of channels. */
  readonly projectedSums: LaneBlocks;
  readonly keySums: LaneBlocks;
}

/** The most prototypes times heads, columns of A: 8 tokens' rows fill the 16 KiB of workgroup memory that every adapter has. */
export const mostFoldedRows = 512;

/** The variant that measured best on the adapter's family. It does not depend on the batch, so that an image in a batch gets the bits that it gets alone. */
export function foldedVariant({ tokens, prototypes, heads, channels }: FoldedShape, target: Target): FoldedVariant {
  const folded = prototypes * heads;
  const fitting = Math.floor(target.maxComputeWorkgroupStorageSize / (4 * folded));
  const columns = Math.ceil(channels / 4);
  if (target.family === 'gpu') {
    const tile = [32, 16, 8].find((t) => t <= fitting) ?? 8;
    return {
      lanes: 64, tile, together: 1,
      forward: { across: 16, rows: tile / 4, columns: 1 },
      weights: { across: 8, rows: tile / 8, columns: evenBlock(Math.ceil(folded / 8), 5) },
      projectedSums: { across: 16, rows: 4, columns: 2 },
      keySums: { across: 16, rows: evenBlock(Math.ceil(prototypes / 4), 4), columns: 1 },
    };
  }
  // A workgroup is one SIMD vector. Measured: a block's loads cost as much as the arithmetic of 2.3 rows.
  const isLavapipe = target.family === 'lavapipe';
  const lanes = isLavapipe ? 8 : 4;
  const cost = (rows: number): number => Math.ceil(tokens / (lanes * rows)) * (rows + 2.3);
  const rows = [1, 2, 3, 4, ...(isLavapipe ? [6, 8] : [])].filter((r) => r === 1 || lanes * r <= fitting).reduce((best, r) => (cost(r) < cost(best) ? r : best));
  const sums = (count: number, chunks: number): LaneBlocks => ({ across: lanes, rows: evenBlock(count, 8), columns: evenBlock(Math.ceil(chunks / lanes), 2) });
  return {
    lanes, tile: lanes * rows, together: [2, 3].find((t) => rows % t === 0) ?? 1,
    forward: { across: 1, rows, columns: evenBlock(columns, Math.min(4, Math.floor(16 / rows))) },
    weights: { across: 1, rows, columns: evenBlock(folded, Math.min(12, Math.floor(48 / rows))) },
    projectedSums: sums(folded + 1, columns),
    keySums: sums(prototypes, Math.ceil(channels / heads / 4)),
  };
}

function labelOf(what: string, { batch, tokens, prototypes, heads, channels }: FoldedShape): string {
  return `${what} [${batch}, ${tokens}, ${channels}] ${heads} x ${prototypes}`;
}

/** Statements for the workgroup's image `b` and first token `first`. */
function tileGrid({ batch, tokens }: FoldedShape, { tile }: FoldedVariant, target: Target): { position: string; workgroups: readonly [number, number, number] } {
  const tiles = Math.ceil(tokens / tile);
  const grid = groupGrid(batch * tiles, target);
  return { workgroups: grid.workgroups, position: `${grid.index}\nlet b = group / ${tiles}u;\nlet first = (group % ${tiles}u) * ${tile}u;` };
}

/**
 * A loop over the heads, in which a lane has tokens t0, t1, .. of the tile (row0, row1, .. of the image, own0, own1, ..
 * clamped to it); `body` gets for count prototypes from m the statements that give the cosines with the scaled keys,
 * s{k}[j], and the queries' inverse norms. Where a tile has fewer tokens than there are lanes, the lanes share out the heads.
 */
function overHeads(shape: FoldedShape, { lanes, tile, together }: FoldedVariant, views: { query: HeadRows; keys: HeadRows }, target: Target, parts: { before: string; body: (count: number, single: boolean) => string }): string {
  const { tokens, prototypes, heads, channels } = shape;
  const { query, keys } = views;
  const headSize = channels / heads;
  const slots = Math.max(1, lanes / tile);
  const block = blockOf(prototypes, headSize);
  const scores = (count: number): string => `
${each(count, (j) => `let keyAt${j} = ${keys.base('b', `(m + ${j}u)`, 'h')};\n${each(together, (k) => `var dot${k}_${j} = 0.0f;`)}`)}
${each(together, (k) => `var square${k} = 0.0f;`)}
for (var c = 0u; c < ${chunksOf(headSize)}u${keepLoop(target)}; c++) {
${each(together, (k) => `let q${k} = ${query.read(`from${k}`, 'c')}; square${k} = ${dotAdd(`q${k}`, `q${k}`, `square${k}`)};`)}
${each(count, (j) => `let t${j} = ${keys.read(`keyAt${j}`, 'c')};\n${each(together, (k) => `dot${k}_${j} = ${dotAdd(`q${k}`, `t${j}`, `dot${k}_${j}`)};`)}`)}
}
${each(together, (k) => `let inverse${k} = 1.0f / max(sqrt(square${k}), ${f32(normalizeEpsilon)});
var s${k} = array<f32, ${count}>(${joined(count, ', ', (j) => `dot${k}_${j} * inverse${k}`)});`)}`;
  return `
for (var t = ${slots === 1 ? 'lane' : `lane % ${tile}u`}; t < ${tile}u${keepLoop(target)}; t += ${lanes * together}u) {
${each(together, (k) => `let t${k} = t + ${k * lanes}u;
let row${k} = first + t${k};
let own${k} = min(row${k}, ${tokens - 1}u);`)}
for (var h = ${slots === 1 ? '0u' : `lane / ${tile}u`}; h < ${heads}u${keepLoop(target)}; h += ${slots}u) {
${each(together, (k) => `let from${k} = ${query.base('b', `own${k}`, 'h')};`)}
${parts.before}
${inBlocks('m', '0u', `${prototypes}u`, block, prototypes % block === 0, target, (count) => `${scores(count)}\n${parts.body(count, prototypes === block)}`)}
}
}`;
}

/** z. Reads `query`, `keys`, `projected`, writes `output`. */
export function foldedAttentionKernel(shape: FoldedShape, variant: FoldedVariant, declarations: string, views: { query: HeadRows; keys: HeadRows; projected: HeadRows; output: HeadRows }, target: Target): BuiltKernel {
  const { tokens, prototypes, heads, channels } = shape;
  const { lanes, tile, forward } = variant;
  const { projected, output } = views;
  const { rows, columns, across } = forward;
  const { x, y, down } = placeOf(forward, lanes);
  const { position, workgroups } = tileGrid(shape, variant, target);
  const folded = prototypes * heads;
  const chunks = chunksOf(channels);
  const wide = across * columns;
  const attend = overHeads(shape, variant, views, target, {
    before: '',
    body: (count) => `for (var j = 0u; j < ${count}u${keepLoop(target)}; j++) {
${each(variant.together, (k) => `weights[(h * ${prototypes}u + m + j) * ${tile}u + t${k}] = max(0.0f, s${k}[j]);`)}
}`,
  });
  const source = kernel('folded-attention.wgsl.ts', labelOf('foldedAttention', shape), wgsl`
${declarations}
var<workgroup> weights: array<f32, ${folded * tile}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  ${attend}
#if ${across > 1}
  workgroupBarrier();
#endif
  let biasAt = ${projected.base('b', `${folded}u`, '0u')};
  for (var c = ${x}; c < ${chunks}u${keepLoop(target)}; c += ${wide}u) {
    ${each(columns, (j) => `let c${j} = min(c + ${j * across}u, ${chunks - 1}u);
    let bias${j} = ${projected.read('biasAt', `c${j}`)};
    ${each(rows, (i) => `var z${i}_${j} = bias${j};`)}`)}
    for (var r = 0u; r < ${folded}u${keepLoop(target)}; r++) {
      let start = ${projected.base('b', 'r', '0u')};
      ${each(rows, (i) => `let a${i} = vec4f(weights[r * ${tile}u + ${y} + ${i * down}u]);`)}
      ${each(columns, (j) => `let u${j} = ${projected.read('start', `c${j}`)};`)}
      ${multiplyAdd('z', forward, 'a', 'u', 'outer')}
    }
    ${forEachSum('z', forward, 'vec4f', target, `let row = first + ${y} + i * ${down}u;
    let chunk = c + j * ${across}u;
    if (row < ${tokens}u && chunk < ${chunks}u) {
      let to = ${output.base('b', 'row', '0u')};
      ${output.write('to', 'chunk', 'value')}
    }`)}
  }
}
`);
  return { source, workgroups };
}

/** Columns of a token's row of weights: A, the bias row's 1, then e / |q|. */
export function weightColumns({ prototypes, heads }: FoldedShape): number {
  return 2 * prototypes * heads + 1;
}

/**
 * The tokens' side of the gradient: dq where `queryGradient` is given; where `keepsWeights`, each token's row of
 * {@link weightColumns} into `weights` [batch, tokens, columns], from which the prototypes' side is summed.
 */
export function foldedTokenGradientKernel(
  shape: FoldedShape, variant: FoldedVariant, declarations: string,
  views: { query: HeadRows; keys: HeadRows; projected: HeadRows; outputGradient: HeadRows; queryGradient: HeadRows | undefined; keepsWeights: boolean }, target: Target,
): BuiltKernel {
  const { tokens, prototypes, heads, channels } = shape;
  const { lanes, tile, together, weights: blocks } = variant;
  const { query, keys, projected, outputGradient, queryGradient, keepsWeights } = views;
  const { rows, columns, across } = blocks;
  const { x, y, down } = placeOf(blocks, lanes);
  const { position, workgroups } = tileGrid(shape, variant, target);
  const folded = prototypes * heads;
  const width = weightColumns(shape);
  const headChunks = chunksOf(channels / heads);
  // With more prototypes than a block's, the sum waits in the gradient itself from block to block.
  const toQuery = (count: number, single: boolean): string => (queryGradient ? `
${each(together, (k) => `let back${k} = select(0.0f, along${k} * inverse${k}, sqrt(square${k}) >= ${f32(normalizeEpsilon)});
let to${k} = ${queryGradient.base('b', `own${k}`, 'h')};`)}
for (var c = 0u; c < ${headChunks}u${keepLoop(target)}; c++) {
${each(count, (j) => `let t${j} = ${keys.read(`keyAt${j}`, 'c')};`)}
${each(together, (k) => `if (row${k} < ${tokens}u) {
  var sum = vec4f();
  ${single ? '' : `if (m > 0u) { sum = ${queryGradient.read(`to${k}`, 'c')}; }`}
  ${each(count, (j) => `sum = fma(vec4f(e${k}[${j}]), t${j}, sum);`)}
  ${single ? '' : `if (m + ${count}u == ${prototypes}u) `}{ sum = inverse${k} * (sum - back${k} * ${query.read(`from${k}`, 'c')}); }
  ${queryGradient.write(`to${k}`, 'c', 'sum')}
}`)}
}` : '');
  const byHead = overHeads(shape, variant, views, target, {
    before: each(together, (k) => `var along${k} = 0.0f;
${keepsWeights ? `if (h == 0u && row${k} < ${tokens}u) { weights[(b * ${tokens}u + row${k}) * ${width}u + ${folded}u] = 1.0f; }` : ''}`),
    body: (count, single) => `
${each(together, (k) => `var e${k}: array<f32, ${count}>;`)}
for (var j = 0u; j < ${count}u${keepLoop(target)}; j++) {
let r = h * ${prototypes}u + m + j;
${each(together, (k) => `let cosine${k} = s${k}[j];
let slope${k} = select(0.0f, slopes[r * ${tile}u + t${k}], cosine${k} > 0.0f);
e${k}[j] = slope${k};
along${k} = fma(slope${k}, cosine${k}, along${k});
${keepsWeights ? `if (row${k} < ${tokens}u) {
  let at = (b * ${tokens}u + row${k}) * ${width}u + r;
  weights[at] = max(0.0f, cosine${k});
  weights[at + ${folded + 1}u] = slope${k} * inverse${k};
}` : ''}`)}
}
${toQuery(count, single)}`,
  });
  const source = kernel('folded-attention.wgsl.ts', labelOf('foldedAttentionGradient, tokens', shape), wgsl`
${declarations}
var<workgroup> slopes: array<f32, ${folded * tile}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${position}
  ${each(rows, (i) => `let gradientAt${i} = ${outputGradient.base('b', `min(first + ${y} + ${i * down}u, ${tokens - 1}u)`, '0u')};`)}
  for (var r = ${x}; r < ${folded}u${keepLoop(target)}; r += ${across * columns}u) {
    ${each(columns, (j) => `let at${j} = ${projected.base('b', `min(r + ${j * across}u, ${folded - 1}u)`, '0u')};
    ${each(rows, (i) => `var d${i}_${j} = 0.0f;`)}`)}
    for (var c = 0u; c < ${chunksOf(channels)}u${keepLoop(target)}; c++) {
      ${each(rows, (i) => `let g${i} = ${outputGradient.read(`gradientAt${i}`, 'c')};`)}
      ${each(columns, (j) => `let u${j} = ${projected.read(`at${j}`, 'c')};`)}
      ${multiplyAdd('d', blocks, 'g', 'u', 'dot')}
    }
    ${forEachSum('d', blocks, 'f32', target, `let column = r + j * ${across}u;
    if (column < ${folded}u) { slopes[column * ${tile}u + ${y} + i * ${down}u] = value; }`)}
  }
#if ${across > 1}
  workgroupBarrier();
#endif
  ${byHead}
}
`);
  return { source, workgroups };
}

/** Sums over the tokens of an image: d projected = [A, 1]^T g where `projectedGradient` is given, d keys = (e / |q|)^T q where `keyGradient` is. */
export function foldedPrototypeGradientKernel(
  shape: FoldedShape, { lanes, projectedSums, keySums }: FoldedVariant, declarations: string,
  views: { query: HeadRows; outputGradient: HeadRows; keyGradient: HeadRows | undefined; projectedGradient: HeadRows | undefined }, target: Target,
): BuiltKernel {
  const { batch, tokens, prototypes, heads, channels } = shape;
  const { query, outputGradient, keyGradient, projectedGradient } = views;
  const folded = prototypes * heads;
  const width = weightColumns(shape);

  /** The workgroup `index` of `parts` (images, or heads of images) sums a block of `count` rows, whose weights begin at `column`. */
  const product = (p: { blocks: LaneBlocks; count: number; chunks: number; index: string; head: string; column: string; from: HeadRows; to: HeadRows }): string => {
    const { across, rows, columns } = p.blocks;
    const { x, y, down } = placeOf(p.blocks, lanes);
    const wide = across * columns;
    const high = Math.ceil(p.count / (down * rows));
    const tiles = Math.ceil(p.chunks / wide);
    return `
let part = ${p.index} / ${high * tiles}u;
let b = ${p.head === '0u' ? 'part' : `part / ${heads}u`};
let h = ${p.head};
let row = (${p.index} / ${tiles}u) % ${high}u * ${down * rows}u + ${y};
let chunk = ${p.index} % ${tiles}u * ${wide}u + ${x};
${each(rows, (i) => `let own${i} = ${p.column} + min(row + ${i * down}u, ${p.count - 1}u);`)}
${each(columns, (j) => `let c${j} = min(chunk + ${j * across}u, ${p.chunks - 1}u);\n${each(rows, (i) => `var sum${i}_${j} = vec4f();`)}`)}
for (var n = 0u; n < ${tokens}u${keepLoop(target)}; n++) {
  let at = (b * ${tokens}u + n) * ${width}u;
  let start = ${p.from.base('b', 'n', 'h')};
  ${each(rows, (i) => `let w${i} = vec4f(weights[at + own${i}]);`)}
  ${each(columns, (j) => `let x${j} = ${p.from.read('start', `c${j}`)};`)}
  ${multiplyAdd('sum', p.blocks, 'w', 'x', 'outer')}
}
${forEachSum('sum', p.blocks, 'vec4f', target, `let to = ${p.to.base('b', `(row + i * ${down}u)`, 'h')};
let own = chunk + j * ${across}u;
if (row + i * ${down}u < ${p.count}u && own < ${p.chunks}u) { ${p.to.write('to', 'own', 'value')} }`)}`;
  };
  const groupsOf = ({ across, rows, columns }: LaneBlocks, parts: number, count: number, chunks: number): number => parts * Math.ceil(count / (lanes / across * rows)) * Math.ceil(chunks / (across * columns));

  const headChunks = chunksOf(channels / heads);
  const forProjected = projectedGradient ? groupsOf(projectedSums, batch, folded + 1, chunksOf(channels)) : 0;
  const forKeys = keyGradient ? groupsOf(keySums, batch * heads, prototypes, headChunks) : 0;
  const grid = groupGrid(forProjected + forKeys, target);
  const source = kernel('folded-attention.wgsl.ts', labelOf('foldedAttentionGradient, prototypes', shape), wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  if (group < ${forProjected}u) {
    ${projectedGradient ? product({ blocks: projectedSums, count: folded + 1, chunks: chunksOf(channels), index: 'group', head: '0u', column: '0u', from: outputGradient, to: projectedGradient }) : ''}
  } else {
    ${keyGradient ? product({ blocks: keySums, count: prototypes, chunks: headChunks, index: `(group - ${forProjected}u)`, head: `part % ${heads}u`, column: `${folded + 1}u + h * ${prototypes}u`, from: query, to: keyGradient }) : ''}
  }
}
`);
  return { source, workgroups: grid.workgroups };
}
