/**
 * The largest products of the rows of A with the rows of B: the matrix product's own blocks (gemm.wgsl.ts) in a walk over tiles
 * of B, each block folded into a running maximum per row of A before the next one is begun. Workgroups beside each other walk
 * over different tiles; a second kernel takes the maximum over their parts, which rounds nothing, and makes the distance.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';
import { normFloor, rowAccess } from './cosine.wgsl.ts';
import { productBlock, tileOf, type GemmShape, type GemmVariant } from './gemm.wgsl.ts';

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** best[row, part] = max over the part's rows b of A[row] . B[b]; bindings A, B, best. Rows of B past the end stand for the last one. */
export function nearestRowKernel(p: GemmShape & { label: string; variant: GemmVariant; lanes: 4 | 8 | undefined; halfB: boolean; target: Target }): Compiled & { parts: number } {
  const { variant: v, rows, columns } = p;
  const exchange = v.kind === 'exchange';
  const tile = tileOf(v, p.lanes);
  const block = productBlock({ ...p, splits: 1, epilogues: [] });
  const [tiles, rowTiles] = [Math.ceil(columns / tile.columns), Math.ceil(rows / tile.rows)];
  const walks = Math.min(tiles, Math.max(1, Math.ceil((p.target.family === 'gpu' ? 512 : 8) / rowTiles)));
  const tilesEach = Math.ceil(tiles / walks);
  const across = Math.ceil(tiles / tilesEach);
  const [x, y] = exchange ? ['lane', 'lane'] : ['lid.x', 'lid.y'];
  const shares = exchange ? 1 : v.groupColumns;
  const parts = across * shares;
  const own = Array.from({ length: v.blockRows }, (_, i) => i);
  const fold = (i: number): string => Array.from({ length: block.columns }, (_, j) => `c${i}_${j}`).reduce((a, c) => `max(${a}, ${c})`, `best${i}`);
  const source = kernel('nearest-neighbour.wgsl.ts', p.label, wgsl`${block.enables}
@group(0) @binding(0) var<storage, read> A: ${block.arrayA};
@group(0) @binding(1) var<storage, read> B: ${block.arrayB};
@group(0) @binding(2) var<storage, read_write> best: array<f32>;
${block.declarations}
@compute @workgroup_size(${tile.invocations.join(', ')})
fn main(@builtin(workgroup_id) place: vec3u, @builtin(local_invocation_id) lid: vec3u, @builtin(${exchange ? 'subgroup_invocation_id' : 'local_invocation_index'}) lane: u32) {
  let row = place.y * ${tile.rows}u + ${y} * ${v.blockRows}u;
  ${own.map((i) => `var best${i} = -3e38f;`).join(' ')}
  // The same number of tiles for all, the last one more than once where they don't divide: it changes no maximum.
  for (var n = 0u; n < ${tilesEach}u; n++) {
    let wid = vec3u(min(place.x * ${tilesEach}u + n, ${tiles - 1}u), place.y, 0u);
    let column = wid.x * ${tile.columns}u + ${x} * ${v.blockColumns}u;
    ${block.accumulators}
    ${block.code}
    ${own.map((i) => `best${i} = ${fold(i)};`).join('\n    ')}
  }
  let part = place.x * ${shares}u${exchange ? '' : ' + lid.x'};
  ${own.map((i) => `let row${i} = ${block.rowOf(i, 'place.y')}; if (row${i} < ${rows}u) { best[row${i} * ${parts}u + part] = best${i}; }`).join('\n  ')}
}
`);
  return { source, workgroups: [across, rowTiles, 1], parts };
}

/** distance[row] = min(previous, 1 - max over parts of best / |x|); bindings best, x, previous where there is one, distance. */
export function nearestRowResultKernel(p: { label: string; rows: number; depth: number; parts: number; hasPrevious: boolean; target: Target }): Compiled {
  const { type, columns, total } = rowAccess(p.depth);
  const grid = linearGrid(p.rows, p.target);
  const source = kernel('nearest-neighbour.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> best: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<${type}>;
${p.hasPrevious ? '@group(0) @binding(2) var<storage, read> previous: array<f32>;' : ''}
@group(0) @binding(${p.hasPrevious ? 3 : 2}) var<storage, read_write> distance: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  var largest = best[i * ${p.parts}u];
  for (var part = 1u; part < ${p.parts}u; part++) { largest = max(largest, best[i * ${p.parts}u + part]); }
  var squares = ${type}();
  for (var c = 0u; c < ${columns}u; c++) {
    let value = x[i * ${columns}u + c];
    squares += value * value;
  }
  let found = 1.0f - largest / max(sqrt(${total('squares')}), ${f32(normFloor)});
  // Rounding can't make it negative; max() might turn NaN into 0, the best of scores.
  let clamped = select(found, 0.0f, found < 0.0f);
  distance[i] = ${p.hasPrevious ? 'select(clamped, previous[i], previous[i] < clamped)' : 'clamped'};
}
`);
  return { source, workgroups: grid.workgroups };
}
