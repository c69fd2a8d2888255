/**
 * softmax(q k^T d^-1/2) v without the N x N matrix (FlashAttention). Forward: an invocation owns a few query rows, walks the
 * keys in blocks, and keeps a running maximum, sum and weighted value sum, rescaled once a block; keys come straight from
 * storage (CPU adapters: no barriers) or from tiles in workgroup memory (GPUs). Backward: with the saved log-sum-exp
 * p = exp(s - lse), ds = p (dO.v - dO.O), and dq = ds k, dk = ds^T q, dv = p^T dO, each row of the result by one invocation.
 * Where rows are few, the other side is split in parts, and a second kernel combines them. Logits are in units of ln 2.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, linearGrid } from './common.wgsl.ts';
import { blockOf, chunksOf, each, inBlocks, joined, overChunks, type HeadRows } from './head-rows.wgsl.ts';

export interface AttentionShape {
  readonly batch: number;
  readonly heads: number;
  readonly headSize: number;
  readonly queries: number;
  readonly keys: number;
  readonly masked?: NeighbourMask | undefined;
}

/** How a kernel divides `rows` results that each need all of `others`. */
export interface AttentionVariant {
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Lanes beside each other on rows; the `lanes / slots` lanes of one row share out what it walks over. */
  readonly slots: number;
  /** Rows of an invocation. */
  readonly rows: number;
  /** Keys (or queries) handled together; the forward kernel rescales once for them. */
  readonly block: number;
  /** Keys staged in workgroup memory at a time; 0 reads them from storage. */
  readonly tile: number;
  /** Workgroups that share out what one row walks over. */
  readonly splits: number;
}

/** Keys in the square of side 2 radius + 1 around a query are left out; tokens n lie in rows of `columns`. */
export interface NeighbourMask {
  readonly columns: number;
  readonly radius: number;
}

export interface BuiltKernel {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/**
 * The logits of masked pairs become so low that their probability is 0; each row has a pair that is not masked. `other(j)` is
 * the token of the j-th logit, the invocation's r-th own token has its place in `place<r>` (see {@link placeOf}).
 */
function maskLogits(mask: NeighbourMask | undefined, rows: number, count: number, other: (j: number) => string): string {
  if (!mask) return '';
  return each(count, (j) => `let place_${j} = vec2i(vec2u(${other(j)} / ${mask.columns}u, ${other(j)} % ${mask.columns}u));
${each(rows, (r) => `s${r}_${j} = select(s${r}_${j}, -1e38f, all(abs(place${r} - place_${j}) <= vec2i(${mask.radius})));`)}`);
}

const placeOf = (mask: NeighbourMask | undefined, r: number, token: string): string => (mask ? `let place${r} = vec2i(vec2u((${token}) / ${mask.columns}u, (${token}) % ${mask.columns}u));` : '');

/** Partial results of a row. */
export function partsOf(variant: AttentionVariant): number {
  return variant.splits * (variant.lanes / variant.slots);
}

/** Enough workgroups to keep the adapter busy, each with at least 64 of `others`. */
function splitsFor(groups: number, others: number, target: Target): number {
  const wanted = target.family === 'gpu' ? 256 : 8;
  return Math.max(1, Math.min(Math.floor(others / 64), Math.ceil(wanted / groups)));
}

/** CPU adapters: a workgroup is one SIMD vector, and each value that is loaded serves several rows. */
function cpuVariant(shape: AttentionShape, rows: number, others: number, most: { rows: number; block: number }, target: Target): AttentionVariant {
  const lanes = target.family === 'lavapipe' ? 8 : 4;
  // Measured: a load costs as much as the arithmetic of 2.3 rows; rows past the end cost as much as others.
  const cost = (own: number): number => Math.ceil(rows / (own * lanes)) * (own + 2.3);
  const own = Array.from({ length: most.rows }, (_, i) => i + 1).reduce((best, r) => (cost(r) < cost(best) ? r : best));
  const groups = shape.batch * shape.heads * Math.ceil(rows / (own * lanes));
  return { lanes, slots: lanes, rows: own, block: Math.min(most.block, blockOf(others, shape.headSize)), tile: 0, splits: splitsFor(groups, others, target) };
}

/**
 * The forward variant that measured best on the adapter's family. It does not depend on the batch, so that an image in
 * a batch is summed up in the order in which it is alone, and gets the same bits.
 */
export function forwardVariant(shape: AttentionShape, target: Target): AttentionVariant {
  const { heads, headSize, queries, keys } = shape;
  if (target.family !== 'gpu') {
    const variant = cpuVariant({ ...shape, batch: 1 }, queries, keys, keys < 128 ? { rows: queries < 16 ? 1 : 2, block: 4 } : { rows: 8, block: 8 }, target);
    // Among few keys the attention is a small part of the work, and a kernel that compiles in a third of the time gains more:
    // few rows, and blocks without a rest, whose body would be compiled again.
    return keys > 8 && keys < 128 ? { ...variant, block: [5, 4, 3].find((size) => keys % size === 0) ?? 4 } : variant;
  }
  const lanes = 64;
  // A tile's rows are padded by one vector, so that lanes on different keys hit different banks.
  const fitting = Math.floor(target.maxComputeWorkgroupStorageSize / (2 * 16 * (chunksOf(headSize) + 1)));
  const tile = [16, 8, 4, 2, 1].find((t) => t <= fitting) ?? 0;
  const slots = [8, 16, 32].find((s) => s >= queries && lanes / s <= tile) ?? lanes;
  const groups = heads * Math.ceil(queries / slots);
  return { lanes, slots, rows: 1, block: Math.max(1, Math.min(8, (tile * slots) / lanes)), tile, splits: splitsFor(groups, keys, target) };
}

/** As {@link forwardVariant}, for the kernel that computes `rows` gradient rows, each from all of `others`. */
export function backwardVariant(shape: AttentionShape, rows: number, others: number, target: Target): AttentionVariant {
  if (target.family !== 'gpu') return cpuVariant(shape, rows, others, { rows: 2, block: 4 }, target);
  const lanes = 64;
  const slots = [8, 16, 32].find((s) => s >= rows && others >= 16 * (lanes / s)) ?? lanes;
  const groups = shape.batch * shape.heads * Math.ceil(rows / slots);
  return { lanes, slots, rows: 1, block: blockOf(others, shape.headSize), tile: 0, splits: splitsFor(groups, others, target) };
}

/** Statements for the workgroup's image `b`, head `h`, split `split` and the lane's first row and share. */
function position(shape: AttentionShape, variant: AttentionVariant, rowCount: number, target: Target): { text: string; workgroups: readonly [number, number, number] } {
  const { lanes, slots, rows, splits } = variant;
  const rowGroups = Math.ceil(rowCount / (slots * rows));
  const grid = groupGrid(shape.batch * shape.heads * splits * rowGroups, target);
  return {
    workgroups: grid.workgroups,
    text: `${grid.index}
let bh = group / ${rowGroups * splits}u;
let b = bh / ${shape.heads}u;
let h = bh % ${shape.heads}u;
let split = (group / ${rowGroups}u) % ${splits}u;
let firstRow = (group % ${rowGroups}u) * ${slots * rows}u + lane % ${slots}u;
let share = lane / ${slots}u;
let part = split * ${lanes / slots}u + share;`,
  };
}

function describe(variant: AttentionVariant): string {
  const parts = partsOf(variant);
  return `${variant.tile > 0 ? `tile ${variant.tile}` : 'no tile'}, ${variant.rows}x${variant.block}${parts > 1 ? `, ${parts} parts` : ''}`;
}

/** Writes to `logSumExp` and the output, or, in several parts, to `partial` (vec4f) and `partialSoftmax` (vec2f: maximum, sum). */
export function softmaxAttentionKernel(
  shape: AttentionShape, variant: AttentionVariant, declarations: string,
  tensors: { query: HeadRows; key: HeadRows; value: HeadRows; output: HeadRows }, target: Target,
): BuiltKernel {
  const { batch, heads, headSize, queries, keys, masked } = shape;
  const { lanes, slots, rows, block, tile, splits } = variant;
  const { query, key, value, output } = tensors;
  const chunks = chunksOf(headSize);
  const parts = partsOf(variant);
  const shareOfTile = (tile * slots) / lanes;
  const keysOfSplit = Math.ceil(keys / splits);
  const staged = tile > 0;
  const { text: place, workgroups } = position(shape, variant, queries, target);
  const loop = (body: (c: string) => string): string => overChunks(headSize, target, body);

  // The keys n .. n + count - 1 against all rows of the invocation. Tile rows are padded by one vector.
  const keyAt = (j: number, c: string) => (staged ? `keyTile[(n + ${j}u) * ${chunks + 1}u + ${c}]` : key.read(`k${j}`, c));
  const valueAt = (j: number, c: string) => (staged ? `valueTile[(n + ${j}u) * ${chunks + 1}u + ${c}]` : value.read(`v${j}`, c));
  const attend = (count: number): string => `
${staged ? '' : each(count, (j) => `let k${j} = ${key.base('b', `(n + ${j}u)`, 'h')};\nlet v${j} = ${value.base('b', `(n + ${j}u)`, 'h')};`)}
${each(rows, (r) => each(count, (j) => `var s${r}_${j} = 0.0f;`))}
${loop((c) => `
${each(count, (j) => `let t${j} = ${keyAt(j, c)};`)}
${each(rows, (r) => `let q${r} = query${r}[${c}];\n${each(count, (j) => `s${r}_${j} += dot(q${r}, t${j});`)}`)}
`)}
${maskLogits(masked, rows, count, (j) => `(${staged ? 'start + ' : ''}n + ${j}u)`)}
${each(rows, (r) => `let top${r} = ${Array.from({ length: count }, (_, j) => `s${r}_${j}`).reduce((a, s) => `max(${a}, ${s})`, `m${r}`)};
let decay${r} = exp2(m${r} - top${r});
m${r} = top${r};
${each(count, (j) => `let p${r}_${j} = exp2(s${r}_${j} - top${r});`)}
l${r} = l${r} * decay${r} + (${joined(count, ' + ', (j) => `p${r}_${j}`)});`)}
${loop((c) => `
${each(count, (j) => `let t${j} = ${valueAt(j, c)};`)}
${each(rows, (r) => `sum${r}[${c}] = sum${r}[${c}] * decay${r} + (${joined(count, ' + ', (j) => `p${r}_${j} * t${j}`)});`)}
`)}`;

  const text = wgsl`
${declarations}
#if ${staged}
var<workgroup> keyTile: array<vec4f, ${Math.max(1, tile * (chunks + 1))}>;
var<workgroup> valueTile: array<vec4f, ${Math.max(1, tile * (chunks + 1))}>;
#endif
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${place}
  let firstKey = split * ${keysOfSplit}u;
  let endKey = min(firstKey + ${keysOfSplit}u, ${keys}u);
  ${each(rows, (r) => `
  let row${r} = firstRow + ${r * slots}u;
  let from${r} = ${query.base('b', `min(row${r}, ${queries - 1}u)`, 'h')};
  ${placeOf(masked, r, `row${r}`)}
  var query${r}: array<vec4f, ${chunks}>;
  var sum${r}: array<vec4f, ${chunks}>;
  ${loop((c) => `query${r}[${c}] = ${f32(Math.LOG2E / Math.sqrt(headSize))} * ${query.read(`from${r}`, c)};`)}
  var m${r} = -1e38f;
  var l${r} = 0.0f;`)}
#if ${staged}
  for (var start = firstKey; start < endKey; start += ${tile}u) {
    let count = min(${tile}u, endKey - start);
    workgroupBarrier();
    for (var i = lane; i < count * ${chunks}u; i += ${lanes}u) {
      let n = i / ${chunks}u;
      let c = i % ${chunks}u;
      let k = ${key.base('b', '(start + n)', 'h')};
      let v = ${value.base('b', '(start + n)', 'h')};
      keyTile[n * ${chunks + 1}u + c] = ${key.read('k', 'c')};
      valueTile[n * ${chunks + 1}u + c] = ${value.read('v', 'c')};
    }
    workgroupBarrier();
    ${inBlocks('n', `share * ${Math.floor(shareOfTile)}u`, `min(n + ${Math.floor(shareOfTile)}u, count)`, block, shareOfTile % block === 0 && keysOfSplit * splits === keys && keysOfSplit % tile === 0, target, attend)}
  }
#else
  ${inBlocks('n', 'firstKey', 'endKey', block, keysOfSplit * splits === keys && keysOfSplit % block === 0, target, attend)}
#endif
  ${each(rows, (r) => `if (row${r} < ${queries}u) {
  ${parts === 1
    ? `let scale = 1.0f / l${r};
  let to = ${output.base('b', `row${r}`, 'h')};
  ${loop((c) => `let result = scale * sum${r}[${c}]; ${output.write('to', c, 'result')}`)}
  logSumExp[bh * ${queries}u + row${r}] = (m${r} + log2(l${r})) * ${f32(Math.LN2)};`
    : `let to = (bh * ${queries}u + row${r}) * ${parts}u + part;
  ${loop((c) => `partial[to * ${chunks}u + ${c}] = sum${r}[${c}];`)}
  partialSoftmax[to] = vec2f(m${r}, l${r});`}
}`)}
}
`;
  return { source: kernel('softmax-attention.wgsl.ts', `softmaxAttention [${batch}, ${heads}, ${queries}x${keys}, ${headSize}] (${describe(variant)}${masked ? ', neighbours masked' : ''})`, text), workgroups };
}

/** Reads `partial` and `partialSoftmax`, writes the output and `logSumExp`: one invocation for four channels of a query. */
export function combineAttentionKernel(shape: AttentionShape, parts: number, declarations: string, output: HeadRows, target: Target): BuiltKernel {
  const { batch, heads, headSize, queries } = shape;
  const chunks = chunksOf(headSize);
  const grid = linearGrid(batch * heads * queries * chunks, target);
  const source = kernel('softmax-attention.wgsl.ts', `softmaxAttention, ${parts} parts [${batch}, ${heads}, ${queries}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${chunks}u;
  let row = i / ${chunks}u;
  let bh = row / ${queries}u;
  let first = row * ${parts}u;
  var top = partialSoftmax[first].x;
  for (var p = 1u; p < ${parts}u; p++) { top = max(top, partialSoftmax[first + p].x); }
  var total = 0.0f;
  var weighted = vec4f();
  for (var p = 0u; p < ${parts}u; p++) {
    let weight = exp2(partialSoftmax[first + p].x - top);
    total += weight * partialSoftmax[first + p].y;
    weighted += weight * partial[(first + p) * ${chunks}u + c];
  }
  let result = weighted / total;
  let to = ${output.base(`(bh / ${heads}u)`, `(row % ${queries}u)`, `(bh % ${heads}u)`)};
  ${output.write('to', 'c', 'result')}
  if (c == 0u) { logSumExp[row] = (top + log2(total)) * ${f32(Math.LN2)}; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** delta = dO.O of each query and head, into `delta` [batch, heads, queries]. */
export function attentionDeltaKernel(shape: AttentionShape, declarations: string, output: HeadRows, outputGradient: HeadRows, target: Target): BuiltKernel {
  const { batch, heads, headSize, queries } = shape;
  const grid = linearGrid(batch * heads * queries, target);
  const source = kernel('softmax-attention.wgsl.ts', `softmaxAttentionGradient, delta [${batch}, ${heads}, ${queries}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  // Neighbouring invocations take neighbouring heads, which lie beside each other.
  let h = i % ${heads}u;
  let b = i / ${heads * queries}u;
  let n = (i / ${heads}u) % ${queries}u;
  let at = ${output.base('b', 'n', 'h')};
  let gradientAt = ${outputGradient.base('b', 'n', 'h')};
  var sum = vec4f();
  ${overChunks(headSize, target, (c) => `sum += ${output.read('at', c)} * ${outputGradient.read('gradientAt', c)};`)}
  delta[(b * ${heads}u + h) * ${queries}u + n] = (sum.x + sum.y) + (sum.z + sum.w);
}
`);
  return { source, workgroups: grid.workgroups };
}

export interface AttentionGradientTensors {
  readonly query: HeadRows;
  readonly key: HeadRows;
  readonly value: HeadRows;
  readonly outputGradient: HeadRows;
  /** What is written; those that nobody wants are missing. */
  readonly queryGradient?: HeadRows;
  readonly keyGradient?: HeadRows;
  readonly valueGradient?: HeadRows;
}

/**
 * The gradient rows of one side. For 'query': dq = d^-1/2 sum over keys of ds k. For 'key': dk = d^-1/2 sum over queries of
 * ds q, and dv = sum of p dO. Reads `logSumExp` and, unless dv alone is wanted, `delta`. In several parts (side 'query'
 * or 'key') sums go to `partial` [results][batch, heads, rows, parts] of rows in vec4f.
 */
export function attentionGradientKernel(side: 'query' | 'key', shape: AttentionShape, variant: AttentionVariant, declarations: string, t: AttentionGradientTensors, target: Target): BuiltKernel {
  const { batch, heads, headSize, queries, keys, masked } = shape;
  const { lanes, slots, rows, block } = variant;
  const chunks = chunksOf(headSize);
  const parts = partsOf(variant);
  const isQuery = side === 'query';
  const [rowCount, otherCount] = isQuery ? [queries, keys] : [keys, queries];
  const othersOfPart = Math.ceil(otherCount / parts);
  const { text: place, workgroups } = position(shape, variant, rowCount, target);
  const loop = (body: (c: string) => string): string => overChunks(headSize, target, body);
  // Logits are own.other, the derivatives of the probabilities ownDual.otherDual.
  const [own, ownDual, other, otherDual] = isQuery ? [t.query, t.outputGradient, t.key, t.value] : [t.key, t.value, t.query, t.outputGradient];
  const results = [
    ...(isQuery && t.queryGradient ? [{ to: t.queryGradient, weight: 'ds', of: other, scale: 1 / Math.sqrt(headSize) }] : []),
    ...(!isQuery && t.keyGradient ? [{ to: t.keyGradient, weight: 'ds', of: other, scale: 1 / Math.sqrt(headSize) }] : []),
    ...(!isQuery && t.valueGradient ? [{ to: t.valueGradient, weight: 'p', of: otherDual, scale: 1 }] : []),
  ];
  const needsDual = results.some((result) => result.weight === 'ds');
  const baseOf = (rowsOf: HeadRows, j: number): string => (rowsOf === other ? `at${j}` : `dualAt${j}`);
  const statistics = (name: string, j: number, r: number): string => `${name}[bh * ${queries}u + ${isQuery ? `own${r}` : `n + ${j}u`}]`;

  const accumulate = (count: number): string => `
${each(count, (j) => `let at${j} = ${other.base('b', `(n + ${j}u)`, 'h')};\nlet dualAt${j} = ${otherDual.base('b', `(n + ${j}u)`, 'h')};`)}
${each(rows, (r) => each(count, (j) => `var s${r}_${j} = 0.0f;\nvar dp${r}_${j} = 0.0f;`))}
${loop((c) => `
${each(count, (j) => `let tx${j} = ${other.read(`at${j}`, c)};`)}
${each(rows, (r) => `let a${r} = rowOf${r}[${c}];\n${each(count, (j) => `s${r}_${j} += dot(a${r}, tx${j});`)}`)}
${needsDual ? `${each(count, (j) => `let tz${j} = ${otherDual.read(`dualAt${j}`, c)};`)}
${each(rows, (r) => `let d${r} = dualOf${r}[${c}];\n${each(count, (j) => `dp${r}_${j} += dot(d${r}, tz${j});`)}`)}` : ''}
`)}
${maskLogits(masked, rows, count, (j) => `(n + ${j}u)`)}
${each(rows, (r) => each(count, (j) => `let p${r}_${j} = exp2(s${r}_${j} - ${f32(Math.LOG2E)} * ${statistics('logSumExp', j, r)});
${needsDual ? `let ds${r}_${j} = p${r}_${j} * (dp${r}_${j} - ${statistics('delta', j, r)});` : ''}`))}
${loop((c) => each(results.length, (i) => `{
${each(count, (j) => `let t${j} = ${results[i]!.of.read(baseOf(results[i]!.of, j), c)};`)}
${each(rows, (r) => `sum${r}_${i}[${c}] += ${joined(count, ' + ', (j) => `${results[i]!.weight}${r}_${j} * t${j}`)};`)}
}`))}`;

  const text = wgsl`
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${place}
  ${each(rows, (r) => `
  let row${r} = firstRow + ${r * slots}u;
  let own${r} = min(row${r}, ${rowCount - 1}u);
  ${placeOf(masked, r, `own${r}`)}
  let from${r} = ${own.base('b', `own${r}`, 'h')};
  let dual${r} = ${ownDual.base('b', `own${r}`, 'h')};
  var rowOf${r}: array<vec4f, ${chunks}>;
  var dualOf${r}: array<vec4f, ${chunks}>;
  ${each(results.length, (i) => `var sum${r}_${i}: array<vec4f, ${chunks}>;`)}
  ${loop((c) => `rowOf${r}[${c}] = ${f32(Math.LOG2E / Math.sqrt(headSize))} * ${own.read(`from${r}`, c)};
  ${needsDual ? `dualOf${r}[${c}] = ${ownDual.read(`dual${r}`, c)};` : ''}`)}`)}
  let first = part * ${othersOfPart}u;
  ${inBlocks('n', 'first', `min(first + ${othersOfPart}u, ${otherCount}u)`, block, othersOfPart * parts === otherCount && othersOfPart % block === 0, target, accumulate)}
  ${each(rows, (r) => `if (row${r} < ${rowCount}u) {
  ${each(results.length, (i) => (parts === 1
    ? `let to${i} = ${results[i]!.to.base('b', `row${r}`, 'h')};
  ${loop((c) => `let result = ${f32(results[i]!.scale)} * sum${r}_${i}[${c}]; ${results[i]!.to.write(`to${i}`, c, 'result')}`)}`
    : `let to${i} = (${i * batch * heads * rowCount}u + bh * ${rowCount}u + row${r}) * ${parts}u + part;
  ${loop((c) => `partial[to${i} * ${chunks}u + ${c}] = ${f32(results[i]!.scale)} * sum${r}_${i}[${c}];`)}`))}
}`)}
}
`;
  return { source: kernel('softmax-attention.wgsl.ts', `softmaxAttentionGradient, ${side} [${batch}, ${heads}, ${queries}x${keys}, ${headSize}] (${describe(variant)}${masked ? ', neighbours masked' : ''})`, text), workgroups };
}

/** Sums the parts of the `results` gradients of a side: one invocation for four channels of a row. */
export function combineGradientKernel(shape: AttentionShape, rowCount: number, parts: number, declarations: string, results: readonly HeadRows[], target: Target): BuiltKernel {
  const { batch, heads, headSize } = shape;
  const chunks = chunksOf(headSize);
  const grid = linearGrid(batch * heads * rowCount * chunks, target);
  const source = kernel('softmax-attention.wgsl.ts', `softmaxAttentionGradient, ${parts} parts [${batch}, ${heads}, ${rowCount}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${chunks}u;
  let row = i / ${chunks}u;
  let bh = row / ${rowCount}u;
  ${each(results.length, (k) => `
  let first${k} = (${k * batch * heads * rowCount}u + row) * ${parts}u;
  var sum${k} = vec4f();
  for (var p = 0u; p < ${parts}u; p++) { sum${k} += partial[(first${k} + p) * ${chunks}u + c]; }
  let to${k} = ${results[k]!.base(`(bh / ${heads}u)`, `(row % ${rowCount}u)`, `(bh % ${heads}u)`)};
  ${results[k]!.write(`to${k}`, 'c', `sum${k}`)}`)}
}
`);
  return { source, workgroups: grid.workgroups };
}
