/**
 * Matrix products in register blocks on a grid of lanes: a workgroup's lanes lie along the columns and the rows of its
 * tile, and each computes every down-th row and every across-th column of it, so that neighbours meet neighbouring memory.
 */
import type { Target } from '../src/gpu/target.ts';
import { each, keepLoop } from './head-rows.wgsl.ts';

export interface LaneBlocks {
  /** Lanes along the columns; the others lie along the rows. */
  readonly across: number;
  /** Rows of a lane's block. */
  readonly rows: number;
  /** Columns of a lane's block: values, or vec4f of four columns. */
  readonly columns: number;
}

/** A lane's place: WGSL of its column x and row y, and how many lanes lie along the rows. */
export function placeOf({ across }: LaneBlocks, lanes: number): { x: string; y: string; down: number } {
  return {
    x: across === 1 ? '0u' : across === lanes ? 'lane' : `lane % ${across}u`,
    y: across === lanes ? '0u' : across === 1 ? 'lane' : `lane / ${across}u`,
    down: lanes / across,
  };
}

/** The multiply-adds of one step: `name`{i}_{j} += a{i} b{j}. Dot products of vec4f, or a{i} times the vec4f of four columns. */
export function multiplyAdd(name: string, { rows, columns }: LaneBlocks, a: string, b: string, kind: 'dot' | 'outer'): string {
  return each(rows, (i) => each(columns, (j) => {
    const sum = `${name}${i}_${j}`;
    return `${sum} = ${kind === 'dot' ? dotAdd(`${a}${i}`, `${b}${j}`, sum) : `fma(${a}${i}, ${b}${j}, ${sum})`};`;
  }));
}

/**
 * A loop over the sums `name`{i}_{j}, so that their stores are compiled once, for which CPU adapters take long: `body` finds
 * a sum in `value`, and its row and column of the block in `i` and `j`.
 */
export function forEachSum(name: string, { rows, columns }: LaneBlocks, type: 'f32' | 'vec4f', target: Target, body: string): string {
  const sums = Array.from({ length: rows * columns }, (_, n) => `${name}${Math.floor(n / columns)}_${n % columns}`);
  return `var block = array<${type}, ${sums.length}>(${sums.join(', ')});
for (var n = 0u; n < ${sums.length}u${keepLoop(target)}; n++) {
let i = n / ${columns}u;
let j = n % ${columns}u;
let value = block[n];
${body}
}`;
}

/** sum + a.b of two vec4f, as multiply-adds. */
export function dotAdd(a: string, b: string, sum: string): string {
  return [...'xyzw'].reduce((text, s) => `fma(${a}.${s}, ${b}.${s}, ${text})`, sum);
}

/** `count` in the fewest blocks of at most `most`, as even as they can be. */
export function evenBlock(count: number, most: number): number {
  return Math.ceil(count / Math.ceil(count / most));
}
