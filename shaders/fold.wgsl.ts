/**
 * Overlapping K x K patches on a grid of pixels, and back: `fold` adds up at each pixel what the patches that cover it hold
 * there, `unfold` reads each patch out of the pixels. Both gather, one invocation for four channels of an output, so that
 * nothing is written twice and the order of the sums is fixed.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Epilogue } from '../src/graph/operation.ts';
import { lanes, linearGrid } from './common.wgsl.ts';
import { declareOperands, finish, functionsOf, operandsOf } from './epilogue.wgsl.ts';

export interface FoldSize {
  readonly label: string;
  readonly batch: number;
  /** The grid that patches lie on. Patch (i, j) covers the pixels from (i stride - padding, j stride - padding) on. */
  readonly rows: number;
  readonly columns: number;
  readonly pixelRows: number;
  readonly pixelColumns: number;
  readonly channels: number;
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const vectorOf = (channels: number) => (channels % 4 === 0 ? { type: 'vec4f', width: channels / 4 } : { type: 'f32', width: channels });

/** y[b, pixel, c] = epilogues(sum of the patches' elements that lie there), patches [b, patch, K K C]; bindings patches, operands, y. */
export function foldKernel(p: FoldSize & { readonly epilogues: readonly Epilogue[] }): Compiled {
  const { type, width } = vectorOf(p.channels);
  const grid = linearGrid(p.batch * p.pixelRows * p.pixelColumns * width, p.target);
  // A pixel is covered by at most this many patches along an axis: `base`, and those before it.
  const taps = range(Math.ceil(p.kernel / p.stride));
  const { text, result } = finish(p.epilogues, type === 'vec4f', (operand) => (operand === 'column' ? 'c' : 'i'));
  // Whether the patch exists and reaches so far; an index below 0 wraps to a large one.
  const inside = (phase: string, tap: number, index: string, count: number) =>
    `${index} < ${count}u${p.kernel % p.stride === 0 ? '' : ` && ${phase} + ${tap * p.stride}u < ${p.kernel}u`}`;
  const source = kernel('fold.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> patches: array<${type}>;
${declareOperands(p.epilogues, 1, type)}
@group(0) @binding(${1 + operandsOf(p.epilogues).length}) var<storage, read_write> y: array<${type}>;
${functionsOf(p.epilogues)}
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${width}u;
  let pixel = i / ${width}u;
  let atColumn = pixel % ${p.pixelColumns}u + ${p.padding}u;
  let atRow = pixel / ${p.pixelColumns}u % ${p.pixelRows}u + ${p.padding}u;
  let image = pixel / ${p.pixelColumns * p.pixelRows}u * ${p.rows * p.columns}u;
  let phaseRow = atRow % ${p.stride}u;
  let phaseColumn = atColumn % ${p.stride}u;
  var v0 = ${type}();
  ${taps.map((a) => `{
    let row = atRow / ${p.stride}u - ${a}u;
    if (${inside('phaseRow', a, 'row', p.rows)}) {
      ${taps.map((b) => `{
        let column = atColumn / ${p.stride}u - ${b}u;
        if (${inside('phaseColumn', b, 'column', p.columns)}) {
          let element = (phaseRow + ${a * p.stride}u) * ${p.kernel}u + phaseColumn + ${b * p.stride}u;
          v0 += patches[((image + row * ${p.columns}u + column) * ${p.kernel ** 2}u + element) * ${width}u + c];
        }
      }`).join('\n      ')}
    }
  }`).join('\n  ')}
  ${text}
  y[i] = ${result};
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y[b, patch, K K C]: the pixels under each patch, 0 beyond the border; bindings x [b, pixel, C], y. */
export function unfoldKernel(p: FoldSize): Compiled {
  const { type, width } = vectorOf(p.channels);
  const grid = linearGrid(p.batch * p.rows * p.columns * p.kernel ** 2 * width, p.target);
  const source = kernel('fold.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let element = i / ${width}u % ${p.kernel ** 2}u;
  let patchIndex = i / ${width * p.kernel ** 2}u;
  let row = patchIndex / ${p.columns}u % ${p.rows}u * ${p.stride}u + element / ${p.kernel}u - ${p.padding}u;
  let column = patchIndex % ${p.columns}u * ${p.stride}u + element % ${p.kernel}u - ${p.padding}u;
  let image = patchIndex / ${p.rows * p.columns}u;
  var value = ${type}();
  if (row < ${p.pixelRows}u && column < ${p.pixelColumns}u) {
    value = x[((image * ${p.pixelRows}u + row) * ${p.pixelColumns}u + column) * ${width}u + i % ${width}u];
  }
  y[i] = value;
}
`);
  return { source, workgroups: grid.workgroups };
}
