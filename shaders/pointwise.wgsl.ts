/**
 * y[i] = f(a[i], b[...], ...): every pointwise operation is this one kernel around its own expression. Operands are
 * indexed by element, or by column of the last dimension. Four elements an invocation where the sizes allow it.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

export interface PointwiseKernel {
  readonly label: string;
  readonly count: number;
  /** Length of the last dimension. */
  readonly columns: number;
  readonly target: Target;
  readonly operands: readonly ('element' | 'column')[];
  readonly functions: string;
  /** The value as an expression over one expression an operand; f32, or vec4f where `vector`. */
  expression(values: readonly string[], vector: boolean): string;
}

export function pointwiseKernel(p: PointwiseKernel): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const vector = p.count % 4 === 0 && p.columns % 4 === 0;
  const width = vector ? 4 : 1;
  const columns = p.columns / width;
  const grid = linearGrid(p.count / width, p.target);
  const type = vector ? 'vec4f' : 'f32';
  const declarations = p.operands.map((_, n) => `@group(0) @binding(${n}) var<storage, read> x${n}: array<${type}>;`).join('\n');
  const values = p.operands.map((operand, n) => (operand === 'element' ? `x${n}[i]` : `x${n}[i % ${columns}u]`));
  const source = kernel('pointwise.wgsl.ts', p.label, wgsl`
${declarations}
@group(0) @binding(${p.operands.length}) var<storage, read_write> y: array<${type}>;
${p.functions}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[i] = ${p.expression(values, vector)};
}
`);
  return { source, workgroups: grid.workgroups };
}
