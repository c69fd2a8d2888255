/**
 * C = op(A) op(B) + bias, and the linear layer y = x W^T + b made of it. Its gradients are two more products,
 * dx = g W and dW = g^T x, and the column sums of g. Pointwise steps that follow are taken into the kernel.
 */
import { gemmKernel, sumSplitsKernel, type GemmShape, type GemmVariant } from '../../shaders/gemm.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Target } from '../gpu/target.ts';
import type { Epilogue, Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Shape, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { sumRows } from './sum-rows.ts';

export interface MatmulAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** The shape of C; its last dimension is the columns, the others together the rows. */
  readonly shape: Shape;
  readonly bias: boolean;
  /** Steps taken over from operations that follow; their operands are inputs after A, B and bias. */
  readonly epilogues: readonly Epilogue[];
  /** Instead of the variant that suits the adapter: for tests and tuning. */
  readonly variant?: GemmVariant;
  readonly splits?: number;
}

const addBias: Epilogue = { name: 'bias', operand: 'column', flops: 1, expression: (value, operand) => `${value} + ${operand}` };

/** Kernel variants by measurement: direct loads on CPU adapters, in smaller blocks for small products, workgroup tiles on GPUs. */
export const gemmVariants = {
  small: { kind: 'register', blockRows: 4, blockColumns: 4, groupRows: 4, groupColumns: 4, tileDepth: 4 },
  register: { kind: 'register', blockRows: 8, blockColumns: 8, groupRows: 4, groupColumns: 4, tileDepth: 4 },
  tiled: { kind: 'tiled', blockRows: 4, blockColumns: 4, groupRows: 16, groupColumns: 16, tileDepth: 16 },
} as const satisfies Record<string, GemmVariant>;

function shapeOf([a, b]: readonly TensorSpec[], attributes: MatmulAttributes): GemmShape {
  const { transposeA, transposeB, shape } = attributes;
  const columns = shape.at(-1)!;
  const rows = sizeOf(shape) / columns;
  const depth = transposeA ? sizeOf(a!.shape) / rows : a!.shape.at(-1)!;
  const fits = sizeOf(a!.shape) === rows * depth && sizeOf(b!.shape) === columns * depth
    && (transposeA ? a!.shape.at(-1) === rows : true) && b!.shape.at(-1) === (transposeB ? depth : columns);
  if (!fits) {
    throw new UsageError(
      `matmul: A [${a!.shape.join(', ')}]${transposeA ? '^T' : ''} times B [${b!.shape.join(', ')}]${transposeB ? '^T' : ''} is not [${shape.join(', ')}].`,
    );
  }
  return { rows, columns, depth, transposeA, transposeB };
}

/** A block of 8 x 8 needs rows and columns to fill it, and takes the longest to compile. */
function variantFor({ rows, columns }: GemmShape, target: Target): GemmVariant {
  if (target.family === 'gpu') return gemmVariants.tiled;
  return Math.min(rows, columns) < 64 ? gemmVariants.small : gemmVariants.register;
}

/**
 * Few output tiles and a long sum leave most of a GPU idle: cut the sum so that there are enough workgroups. Only for
 * weight gradients: elsewhere the number of rows is the batch's, and an image's numbers must not depend on its batch.
 */
function splitsFor(shape: GemmShape, variant: GemmVariant, target: Target): number {
  if (!shape.transposeA) return 1;
  const groups = Math.ceil(shape.rows / (variant.blockRows * variant.groupRows)) * Math.ceil(shape.columns / (variant.blockColumns * variant.groupColumns));
  const wanted = target.family === 'gpu' ? 256 : 8;
  const longest = Math.max(1, Math.floor(shape.depth / 256));
  return Math.max(1, Math.min(longest, Math.ceil(wanted / groups), 64));
}

export const matmulOperation: Operation<MatmulAttributes> = {
  name: 'matmul',
  outputs(inputs, attributes) {
    const { columns } = shapeOf(inputs, attributes);
    if (attributes.bias && sizeOf(inputs[2]!.shape) !== columns) throw new UsageError(`matmul: the bias has ${sizeOf(inputs[2]!.shape)} elements, expected ${columns}.`);
    return [{ shape: attributes.shape, dtype: 'f32' }];
  },
  kernels({ inputs, outputs, attributes, target, read, write, scratch }) {
    const shape = shapeOf(inputs, attributes);
    const { rows, columns, depth } = shape;
    const variant = attributes.variant ?? variantFor(shape, target);
    const splits = attributes.splits ?? splitsFor(shape, variant, target);
    const epilogues = [...(attributes.bias ? [addBias] : []), ...attributes.epilogues];
    const operands = inputs.slice(2).map((_, i) => read(i + 2));
    const layout = `${shape.transposeA ? 'T' : 'N'}${shape.transposeB ? 'T' : 'N'}`;
    const label = `gemm ${layout} ${rows}x${columns}x${depth}${epilogues.map((e) => ` ${e.name}`).join('')}`;
    const flops = 2 * rows * columns * depth;
    const extraFlops = epilogues.reduce((sum, e) => sum + e.flops * rows * columns, 0);
    const bytes = 4 * inputs.reduce((sum, t) => sum + sizeOf(t.shape), 0) + 4 * sizeOf(outputs[0]!.shape);
    if (splits === 1) {
      const { source, workgroups } = gemmKernel({ ...shape, label, variant, splits, epilogues });
      return [{ kernel: source, workgroups, bindings: [read(0), read(1), ...operands, write(0)], flops: flops + extraFlops, bytes }];
    }
    const parts = scratch(4 * splits * rows * columns);
    const product = gemmKernel({ ...shape, label: `${label} /${splits}`, variant, splits, epilogues: [] });
    const sum = sumSplitsKernel({ label: `${label} sum of ${splits}`, rows, columns, splits, epilogues, target });
    return [
      { kernel: product.source, workgroups: product.workgroups, bindings: [read(0), read(1), parts.write], flops, bytes: bytes + 4 * splits * rows * columns },
      { kernel: sum.source, workgroups: sum.workgroups, bindings: [parts.read, ...operands, write(0)], flops: extraFlops + splits * rows * columns, bytes: 4 * (splits + 1) * rows * columns },
    ];
  },
  gradient({ inputs: [a, b, bias], attributes, outputGradients: [g], needs }) {
    if (attributes.transposeA || !attributes.transposeB) throw new UsageError('matmul: only the linear layer x W^T + b is differentiated.');
    return [
      needs[0] ? matmul(g!, b!, { shape: a!.shape }) : undefined,
      needs[1] ? matmul(g!, a!, { transposeA: true, shape: b!.shape }) : undefined,
      bias && needs[2] ? sumRows(g!) : undefined,
    ];
  },
  reference(inputs, { inputs: specs, attributes }) {
    const { rows, columns, depth, transposeA, transposeB } = shapeOf(specs, attributes);
    const [a, b, bias] = inputs as [Float64Array, Float64Array, Float64Array | undefined];
    const c = new Float64Array(rows * columns);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = attributes.bias ? bias![j]! : 0;
        for (let k = 0; k < depth; k++) sum += (transposeA ? a[k * rows + i]! : a[i * depth + k]!) * (transposeB ? b[j * depth + k]! : b[k * columns + j]!);
        c[i * columns + j] = sum;
      }
    }
    return [c];
  },
  withEpilogue({ attributes }, epilogue) {
    return { ...attributes, epilogues: [...attributes.epilogues, epilogue] };
  },
};

/** op(A) op(B) of the given shape. A and B are taken as matrices: all but the last dimension together are the rows. */
export function matmul(a: Tensor, b: Tensor, options: { shape: Shape; transposeA?: boolean; transposeB?: boolean; variant?: GemmVariant; splits?: number }): Tensor {
  const { shape, transposeA = false, transposeB = false, ...tuning } = options;
  return apply(matmulOperation, [a, b], { transposeA, transposeB, shape, bias: false, epilogues: [], ...tuning })[0]!;
}

/**
 * y = x W^T + b.
 * @param x [.., K]
 * @param weight [N, K]
 * @param bias [N]
 * @returns [.., N]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, tuning: { variant?: GemmVariant; splits?: number } = {}): Tensor {
  const shape = [...x.shape.slice(0, -1), weight.shape[0]!];
  const attributes: MatmulAttributes = { transposeA: false, transposeB: true, shape, bias: bias !== undefined, epilogues: [], ...tuning };
  return apply(matmulOperation, bias ? [x, weight, bias] : [x, weight], attributes, 'linear')[0]!;
}
