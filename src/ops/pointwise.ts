/**
 * The factory for pointwise operations: from an expression and its f64 twin it makes the shape rule, the kernel, the
 * reference, and the epilogue by which a GEMM can take the step over.
 */
import { pointwiseKernel } from '../../shaders/pointwise.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Epilogue, GradientContext, Operation } from '../graph/operation.ts';
import { sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';

export interface PointwiseDefinition<A> {
  readonly name: string;
  /** How each operand is indexed: the first always by element of the output's shape; 'column' is a vector over the last dimension. */
  readonly operands: readonly ('element' | 'column')[];
  readonly functions?: string;
  /** Floating-point operations an element. */
  readonly flops: number;
  expression(values: readonly string[], attributes: A, vector: boolean): string;
  value(values: readonly number[], attributes: A): number;
  gradient?(context: GradientContext<A>): (Tensor | undefined)[];
}

export function definePointwise<A>(d: PointwiseDefinition<A>): Operation<A> {
  return {
    name: d.name,
    isCheap: true,
    outputs(inputs) {
      const [first] = inputs as [TensorSpec];
      inputs.forEach((t, i) => {
        const expected = d.operands[i] === 'column' ? [first.shape.at(-1)!] : first.shape;
        if (t.shape.join() !== expected.join()) {
          throw new UsageError(`${d.name}: operand ${i} has shape [${t.shape.join(', ')}], expected [${expected.join(', ')}].`);
        }
      });
      return [{ shape: first.shape, dtype: 'f32' }];
    },
    kernels({ inputs, outputs, attributes, target, read, write }) {
      const shape = outputs[0]!.shape;
      const count = sizeOf(shape);
      const { source, workgroups } = pointwiseKernel({
        label: `${d.name} [${shape.join(', ')}]`, count, columns: shape.at(-1)!, target,
        operands: d.operands, functions: d.functions ?? '',
        expression: (values, vector) => d.expression(values, attributes, vector),
      });
      return [{
        kernel: source, workgroups,
        bindings: [...inputs.map((_, i) => read(i)), write(0)],
        flops: count * d.flops,
        bytes: 4 * (count + inputs.reduce((sum, t) => sum + sizeOf(t.shape), 0)),
      }];
    },
    ...(d.gradient ? { gradient: d.gradient } : {}),
    reference(inputs, { outputs, attributes }) {
      const columns = outputs[0]!.shape.at(-1)!;
      return [inputs[0]!.map((_, i) => d.value(inputs.map((x, n) => x[d.operands[n] === 'column' ? i % columns : i]!), attributes))];
    },
    asEpilogue({ attributes }) {
      if (d.operands.length > 2) return [];
      const epilogue = (index: number): Epilogue => ({
        name: d.name,
        operand: d.operands.length === 1 ? 'none' : d.operands[1 - index]!,
        ...(d.functions ? { functions: d.functions } : {}),
        flops: d.flops,
        expression: (value, operand, vector) => d.expression(index === 0 ? [value, operand] : [operand, value], attributes, vector),
      });
      // The value that is being written can stand in for any operand that is indexed by element.
      return d.operands.flatMap((operand, index) => (operand === 'element'
        ? [{ index, ...(d.operands.length > 1 ? { operandIndex: 1 - index } : {}), epilogue: epilogue(index) }]
        : []));
    },
  };
}

/** Calls a scalar WGSL function on each component where the value is a vector. */
export function componentwise(name: string, value: string, vector: boolean): string {
  return vector ? `vec4f(${['x', 'y', 'z', 'w'].map((c) => `${name}((${value}).${c})`).join(', ')})` : `${name}(${value})`;
}
