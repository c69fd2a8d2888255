/**
 * A plain WGSL matrix product, as a good first try looks: a block of 8 x 8 a thread in registers, 4 x 4 threads a
 * workgroup, vec4 loads, no workgroup memory. It runs on this engine's device but shares none of its kernels; sizes must be
 * multiples of 32.
 */
import { UsageError } from '../../src/errors.ts';
import { kernel, wgsl } from '../../src/gpu/wgsl.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { apply, type Tensor } from '../../src/graph/tensor.ts';

const block = 8;
const group = 4;
const range = (n: number) => Array.from({ length: n }, (_, i) => i);

const plainGemmOperation: Operation<null> = {
  name: 'plainGemm',
  outputs([a, b]) {
    const [rows, depth, columns] = [a!.shape[0]!, a!.shape[1]!, b!.shape[1]!];
    if (b!.shape[0] !== depth || rows % (block * group) !== 0 || columns % (block * group) !== 0 || depth % 4 !== 0) {
      throw new UsageError(`The plain kernel takes multiples of ${block * group}, got ${rows} x ${columns} x ${depth}.`);
    }
    return [{ shape: [rows, columns], dtype: 'f32' }];
  },
  kernels({ inputs: [a, b], read, write }) {
    const [rows, depth, columns] = [a!.shape[0]!, a!.shape[1]!, b!.shape[1]!];
    const step = (s: number) => `{
      let b0 = B[(k * 4u + ${s}u) * ${columns / 4}u + column];
      let b1 = B[(k * 4u + ${s}u) * ${columns / 4}u + column + 1u];
      ${range(block).map((i) => `c${i}_0 = fma(vec4f(a${i}.${'xyzw'[s]}), b0, c${i}_0); c${i}_1 = fma(vec4f(a${i}.${'xyzw'[s]}), b1, c${i}_1);`).join('\n      ')}
    }`;
    const text = wgsl`
@group(0) @binding(0) var<storage, read> A: array<vec4f>;
@group(0) @binding(1) var<storage, read> B: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> C: array<vec4f>;
@compute @workgroup_size(${group}, ${group})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  let row = gid.y * ${block}u;
  let column = gid.x * ${block / 4}u;
  ${range(block).map((i) => `var c${i}_0 = vec4f(); var c${i}_1 = vec4f();`).join('\n  ')}
  for (var k = 0u; k < ${depth / 4}u; k++) {
    ${range(block).map((i) => `let a${i} = A[(row + ${i}u) * ${depth / 4}u + k];`).join('\n    ')}
    ${range(4).map(step).join('\n    ')}
  }
  ${range(block).map((i) => `C[(row + ${i}u) * ${columns / 4}u + column] = c${i}_0; C[(row + ${i}u) * ${columns / 4}u + column + 1u] = c${i}_1;`).join('\n  ')}
}
`;
    return [{
      kernel: kernel('plain-gemm.ts', `plain gemm ${rows}x${columns}x${depth}`, text), workgroups: [columns / (block * group), rows / (block * group), 1],
      bindings: [read(0), read(1), write(0)], flops: 2 * rows * columns * depth, bytes: 4 * (rows * depth + depth * columns + rows * columns),
    }];
  },
  reference() {
    throw new UsageError('The plain kernel is a contender, not an operation: its results are checked by the race.');
  },
};

/** A [rows, depth] times B [depth, columns]. */
export const plainGemm = (a: Tensor, b: Tensor): Tensor => apply(plainGemmOperation, [a, b], null)[0]!;
