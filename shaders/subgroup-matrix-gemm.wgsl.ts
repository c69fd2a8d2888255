/**
 * C = epilogue(op(A) op(B)) on a GPU's matrix units, which Chromium reaches through its experimental subgroup matrices: the
 * lanes of a subgroup hold small matrices together and multiply them in one instruction. A workgroup stages tiles of A and B
 * in its memory, converted to the units' type and zero past the edges; each subgroup keeps several result matrices, which go
 * through that memory once more to be finished and stored, so that any size works.
 *
 * The units sum in an order of their own, and most take their inputs in f16. So this is not a variant of gemm.wgsl.ts that
 * tuning may pick, but a kernel for where its numbers are what was asked for: {@link usesSubgroupMatrix}.
 */
import { kernel, wgsl } from '../src/gpu/wgsl.ts';
import { roundUp, type SubgroupMatrix, type Target } from '../src/gpu/target.ts';
import { declareOperands, finish, functionsOf, operandsOf } from './epilogue.wgsl.ts';
import type { GemmDispatch, GemmKernel } from './gemm.wgsl.ts';

export type SubgroupMatrixGemm = Omit<GemmKernel, 'variant' | 'batch' | 'strides'>;

export interface SubgroupMatrixTiling {
  /** Result matrices that a subgroup keeps, along the rows and columns of C. */
  readonly matrixRows: number;
  readonly matrixColumns: number;
  /** Subgroups of a workgroup, likewise. */
  readonly groupRows: number;
  readonly groupColumns: number;
  /** The workgroup's block of C, and how much of K is staged at a time. */
  readonly tileRows: number;
  readonly tileColumns: number;
  readonly tileDepth: number;
  readonly tileA: StagedTile;
  readonly tileB: StagedTile;
  readonly invocations: number;
  /** Workgroup memory. */
  readonly bytes: number;
  readonly workgroups: readonly [number, number, number];
}

/** A tile in workgroup memory, in the order of its operand: lines of `length` elements, `stride` from one to the next. */
export interface StagedTile {
  readonly lines: number;
  readonly length: number;
  readonly stride: number;
}

/** Result matrices of a subgroup, rows by columns: from the best reuse of what is loaded to the most workgroups. */
const blocks = [[4, 2], [2, 2], [2, 1], [1, 1]] as const;
/** Fewer workgroups than this leave parts of a GPU idle: a smaller block is better then. */
const enoughWorkgroups = 64;

/**
 * How a product is cut for a device: the largest block that its memory holds and that makes enough workgroups. The order in
 * which an element is summed does not depend on it.
 * @returns undefined where the device's workgroups can't hold the smallest, whatever the product's size
 */
export function tiling(
  { config: { M, N, K, componentType }, subgroupSize }: SubgroupMatrix,
  p: Pick<SubgroupMatrixGemm, 'rows' | 'columns' | 'transposeA' | 'transposeB' | 'splits'>,
  target: Pick<Target, 'maxComputeInvocationsPerWorkgroup' | 'maxComputeWorkgroupStorageSize'>,
): SubgroupMatrixTiling | undefined {
  const elementBytes = componentType === 'f16' ? 2 : 4;
  const subgroups = Math.floor(target.maxComputeInvocationsPerWorkgroup / subgroupSize);
  if (subgroups < 1) return undefined;
  const [groupRows, groupColumns] = subgroups >= 4 ? [2, 2] : subgroups >= 2 ? [2, 1] : [1, 1];
  const depths = [32, 16, 8].filter((depth) => depth % K === 0);
  // Lines begin at multiples of 16 bytes, as some drivers want them, and in different memory banks.
  const staged = (lines: number, length: number): StagedTile => ({ lines, length, stride: roundUp(length, 16 / elementBytes) + 16 / elementBytes });
  let best: SubgroupMatrixTiling | undefined;
  for (const [matrixRows, matrixColumns] of blocks) {
    const [tileRows, tileColumns] = [groupRows * matrixRows * M, groupColumns * matrixColumns * N];
    const workgroups = [Math.ceil(p.columns / tileColumns), Math.ceil(p.rows / tileRows), p.splits] as const;
    for (const tileDepth of depths.length > 0 ? depths : [K]) {
      const tileA = p.transposeA ? staged(tileDepth, tileRows) : staged(tileRows, tileDepth);
      const tileB = p.transposeB ? staged(tileColumns, tileDepth) : staged(tileDepth, tileColumns);
      const bytes = elementBytes * (tileA.lines * tileA.stride + tileB.lines * tileB.stride) + 4 * groupRows * M * tileColumns;
      if (bytes > target.maxComputeWorkgroupStorageSize) continue;
      best = {
        matrixRows, matrixColumns, groupRows, groupColumns, tileRows, tileColumns, tileDepth, tileA, tileB,
        invocations: groupRows * groupColumns * subgroupSize, bytes, workgroups,
      };
      break;
    }
    if (best && best.workgroups[0] * best.workgroups[1] * p.splits >= enoughWorkgroups) break;
  }
  return best;
}

/**
 * Whether a product is done on the matrix units. Units that compute in f32 throughout take any. Where they round their
 * inputs to f16 they take the forward layout with weights that the user chose to have in f16: elsewhere the results would
 * have fewer digits than were asked for, and gradients would underflow. The product's size has no say, so that an image's
 * numbers do not depend on its batch.
 */
export function usesSubgroupMatrix(p: Pick<GemmKernel, 'rows' | 'columns' | 'batch' | 'transposeA' | 'transposeB' | 'splits' | 'halfB'>, target: Target): boolean {
  const matrix = target.subgroupMatrix;
  if (!matrix || target.family !== 'gpu' || p.batch > 1 || !tiling(matrix, p, target)) return false;
  return matrix.config.componentType === 'f32' || (p.halfB === true && !p.transposeA && p.transposeB);
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Binds what gemmKernel binds: A, B, operands, C, row sums, the kept value. Only where {@link usesSubgroupMatrix}. */
export function subgroupMatrixGemmKernel(p: SubgroupMatrixGemm, target: Target): GemmDispatch {
  const { rows, columns, depth, splits } = p;
  const matrix = target.subgroupMatrix!;
  const { M, N, K, componentType } = matrix.config;
  const t = tiling(matrix, p, target)!;
  const subgroups = t.groupRows * t.groupColumns;
  const [blockRows, blockColumns] = [t.matrixRows * M, t.matrixColumns * N];
  const width = columns % 4 === 0 ? 4 : 1;
  const type = width === 4 ? 'vec4f' : 'f32';
  const perRow = blockColumns / width;
  const outputs = [`C: array<${type}>`, ...(p.rowSums ? ['rowSums: array<f32>'] : []), ...(p.keptBefore === undefined ? [] : [`kept: array<${type}>`])];
  const firstOutput = 2 + operandsOf(p.epilogues).length;
  const { text, result } = finish(p.epilogues, width === 4, (operand) => (operand === 'column' ? 'c' : 'at'));
  const to = splits > 1 ? `wid.z * ${(rows * columns) / width}u + at` : 'at';

  // The same ranges of K as in gemm.wgsl.ts: multiples of 4 long, the last one to the end.
  const chunk = Math.floor(depth / 4 / splits) * 4;
  const begin = splits === 1 ? '0u' : `wid.z * ${chunk}u`;
  const end = splits === 1 ? `${depth}u` : `select((wid.z + 1u) * ${chunk}u, ${depth}u, wid.z == ${splits - 1}u)`;
  const alongRows: Extent = { start: 'row', end: `${rows}u`, size: rows, isFilled: rows % t.tileRows === 0 };
  const alongColumns: Extent = { start: 'column', end: `${columns}u`, size: columns, isFilled: columns % t.tileColumns === 0 };
  const alongDepth: Extent = { start: 'k', end: 'end', size: depth, isFilled: splits === 1 && depth % t.tileDepth === 0 };
  const a = operand('A', 'f32', p.transposeA ? [alongDepth, alongRows] : [alongRows, alongDepth], t.tileA, p.transposeA, matrix, t);
  const b = operand('B', p.halfB ? 'f16' : 'f32', p.transposeB ? [alongColumns, alongDepth] : [alongDepth, alongColumns], t.tileB, p.transposeB, matrix, t);

  const source = kernel('subgroup-matrix-gemm.wgsl.ts', p.label, wgsl`
// Which subgroup computes what is uniform in each of them, not in the workgroup, which is all that the analysis knows.
diagnostic(off, chromium.subgroup_matrix_uniformity);
enable subgroups;
enable chromium_experimental_subgroup_matrix;
${componentType === 'f16' || p.halfB ? 'enable f16;' : ''}
alias Left = subgroup_matrix_left<${componentType}, ${K}, ${M}>;
alias Right = subgroup_matrix_right<${componentType}, ${N}, ${K}>;
alias Result = subgroup_matrix_result<f32, ${N}, ${M}>;
@group(0) @binding(0) var<storage, read> A: array<${a.type}>;
@group(0) @binding(1) var<storage, read> B: array<${b.type}>;
${declareOperands(p.epilogues, 2, type)}
${outputs.map((declaration, n) => `@group(0) @binding(${firstOutput + n}) var<storage, read_write> ${declaration};`).join('\n')}
${functionsOf(p.epilogues)}
var<workgroup> tileA: array<${componentType}, ${t.tileA.lines * t.tileA.stride}>;
var<workgroup> tileB: array<${componentType}, ${t.tileB.lines * t.tileB.stride}>;
// One row of every subgroup's result matrices.
var<workgroup> results: array<f32, ${subgroups * M * blockColumns}>;

fn store(wid: vec3u, lane: u32, matrixRow: u32) {
  for (var e = lane; e < ${subgroups * M * perRow}u; e += ${t.invocations}u) {
    let owner = e / ${M * perRow}u;
    let r = wid.y * ${t.tileRows}u + owner / ${t.groupColumns}u * ${blockRows}u + matrixRow * ${M}u + e / ${perRow}u % ${M}u;
    let c = wid.x * ${t.tileColumns / width}u + owner % ${t.groupColumns}u * ${perRow}u + e % ${perRow}u;
    if (r < ${rows}u && c < ${columns / width}u) {
      let at = r * ${columns / width}u + c;
      let v0 = ${width === 4 ? `vec4f(${range(4).map((s) => `results[e * 4u + ${s}u]`).join(', ')})` : 'results[e]'};
      ${text}
      C[${to}] = ${result};
      ${p.keptBefore === undefined ? '' : `kept[${to}] = v${p.keptBefore};`}
    }
  }
}

@compute @workgroup_size(${t.invocations})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) owner: u32) {
  let row = wid.y * ${t.tileRows}u;
  let column = wid.x * ${t.tileColumns}u;
  let blockRow = owner / ${t.groupColumns}u * ${blockRows}u;
  let blockColumn = owner % ${t.groupColumns}u * ${blockColumns}u;
  // The workgroup has room for the adapter's largest subgroups. Of smaller ones there are more: they help to stage and store.
  let computes = owner < ${subgroups}u;
  ${range(t.matrixRows).flatMap((i) => range(t.matrixColumns).map((j) => `var c${i}_${j}: Result;`)).join(' ')}
  let end = ${end};
  for (var k = ${begin}; k < end; k += ${t.tileDepth}u) {
    ${a.stage}
    ${b.stage}
    workgroupBarrier();
    if (computes) {
      for (var d = 0u; d < ${t.tileDepth}u; d += ${K}u) {
        ${range(t.matrixRows).map((i) => `let a${i} = ${a.load('Left', `blockRow + ${i * M}u`)};`).join(' ')}
        ${range(t.matrixColumns).map((j) => `let b${j} = ${b.load('Right', `blockColumn + ${j * N}u`)};`).join(' ')}
        ${range(t.matrixRows).flatMap((i) => range(t.matrixColumns).map((j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`)).join(' ')}
      }
    }
    workgroupBarrier();
  }
  ${range(t.matrixRows).map((i) => `if (computes) {
    ${range(t.matrixColumns).map((j) => storeResult(matrix, `owner * ${M * blockColumns}u + ${j * N}u`, `c${i}_${j}`, blockColumns)).join(' ')}
  }
  workgroupBarrier();
  store(wid, lane, ${i}u);
  workgroupBarrier();`).join('\n  ')}
  ${p.rowSums ? `if (wid.x == 0u) {
    for (var n = row + lane; n < min(row + ${t.tileRows}u, ${rows}u); n += ${t.invocations}u) {
      var sum = 0.0f;
      for (var k = ${begin}; k < end; k++) {
        let at = k * ${rows}u + n;
        sum += ${a.type === 'f32' ? 'A[at]' : 'A[at / 4u][at % 4u]'};
      }
      rowSums[wid.z * ${rows}u + n] = sum;
    }
  }` : ''}
}
`);
  return { source, workgroups: t.workgroups };
}

/** One dimension of an operand, in WGSL where a tile starts and where the elements end; `isFilled`: no tile reaches past that. */
interface Extent {
  readonly start: string;
  readonly end: string;
  readonly size: number;
  readonly isFilled: boolean;
}

/**
 * How an operand is read: its buffer's type, the statement that stages a tile, and the expression for the matrix of its
 * tile that begins at `across`, its row or column of C, and at `d` along K.
 */
function operand(
  name: 'A' | 'B', stored: 'f32' | 'f16', [lines, inLine]: [Extent, Extent], tile: StagedTile, isTransposed: boolean,
  { config, spelling }: SubgroupMatrix, { invocations }: SubgroupMatrixTiling,
): { type: string; stage: string; load(matrix: 'Left' | 'Right', across: string): string } {
  const width = inLine.size % 4 === 0 ? 4 : 1;
  const type = width === 1 ? stored : stored === 'f32' ? 'vec4f' : 'vec4<f16>';
  const perLine = tile.length / width;
  const value = `${name}[(line * ${inLine.size}u + first) / ${width}u]`;
  const inside = [...(lines.isFilled ? [] : [`line < ${lines.end}`]), ...(inLine.isFilled ? [] : [`first < ${inLine.end}`])].join(' && ');
  const stage = `for (var e = lane; e < ${tile.lines * perLine}u; e += ${invocations}u) {
      let line = ${lines.start} + e / ${perLine}u;
      let first = ${inLine.start} + e % ${perLine}u * ${width}u;
      ${inside ? `var value = ${type}(); if (${inside}) { value = ${value}; }` : `let value = ${value};`}
      let to = e / ${perLine}u * ${tile.stride}u + e % ${perLine}u * ${width}u;
      ${range(width).map((s) => `tile${name}[to + ${s}u] = ${config.componentType}(value${width === 4 ? `[${s}]` : ''});`).join(' ')}
    }`;
  // A is [rows, depth] and B [depth, columns]; the tile of one that is transposed lies by columns.
  const linesRunAlongDepth = (name === 'B') !== isTransposed;
  const load = (matrix: string, across: string): string => {
    const offset = linesRunAlongDepth ? `d * ${tile.stride}u + ${across}` : `(${across}) * ${tile.stride}u + d`;
    return spelling === 'template'
      ? `subgroupMatrixLoad<${matrix}, ${isTransposed ? 'col_major' : 'row_major'}>(&tile${name}, ${offset}, ${tile.stride}u)`
      : `subgroupMatrixLoad<${matrix}>(&tile${name}, ${offset}, ${isTransposed}, ${tile.stride}u)`;
  };
  return { type, stage, load };
}

function storeResult({ spelling }: SubgroupMatrix, offset: string, value: string, stride: number): string {
  return spelling === 'template'
    ? `subgroupMatrixStore<row_major>(&results, ${offset}, ${value}, ${stride}u);`
    : `subgroupMatrixStore(&results, ${offset}, ${value}, false, ${stride}u);`;
}
