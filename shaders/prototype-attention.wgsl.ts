/**
 * The weights of INP-Former's decoder attention, to be looked at: with cosines s = q.k / (max(|q|, eps) max(|k|, eps)),
 * A = max(0, learnScale[h] s). An invocation owns a head of a token and walks over the prototypes.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';
import { overChunks, type HeadRows } from './head-rows.wgsl.ts';
import type { AttentionShape, BuiltKernel } from './softmax-attention.wgsl.ts';

/** The smallest norm that is divided by, PyTorch's F.normalize's. */
export const normalizeEpsilon = 1e-12;

const inverseNorm = (square: string): string => `1.0f / max(sqrt(${square}), ${f32(normalizeEpsilon)})`;

/** A [batch, heads, tokens, prototypes] into `weights`. Reads query and key sources and `learnScale`. */
export function prototypeWeightsKernel(shape: AttentionShape, declarations: string, { query, key }: { query: HeadRows; key: HeadRows }, target: Target): BuiltKernel {
  const { batch, heads, headSize, queries, keys } = shape;
  const grid = linearGrid(batch * heads * queries, target);
  const source = kernel('prototype-attention.wgsl.ts', `prototypeAttentionWeights [${batch}, ${heads}, ${queries}x${keys}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  let b = i / ${heads * queries}u;
  let h = i / ${queries}u % ${heads}u;
  let queryAt = ${query.base('b', `(i % ${queries}u)`, 'h')};
  for (var m = 0u; m < ${keys}u; m++) {
    let keyAt = ${key.base('b', 'm', 'h')};
    var square = 0.0f;
    var keySquare = 0.0f;
    var product = 0.0f;
    ${overChunks(headSize, target, (c) => `let q = ${query.read('queryAt', c)}; let k = ${key.read('keyAt', c)};
    square += dot(q, q); keySquare += dot(k, k); product += dot(q, k);`)}
    weights[i * ${keys}u + m] = max(0.0f, learnScale[h] * (product * ${inverseNorm('square')}) * ${inverseNorm('keySquare')});
  }
}
`);
  return { source, workgroups: grid.workgroups };
}
