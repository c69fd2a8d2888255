/**
 * C = op(A) op(B) + bias, and the linear layer y = x W^T + b made of it. Its gradients are two more products,
 * dx = g W and dW = g^T x, the latter giving db, the column sums of g, as well; those of A B are g B^T and A^T g. Pointwise steps that follow are taken
 * into the kernel. A stack of layers of one shape, each on its own input, is one batch of products.
 */
import { gemmKernel, sumSplitsKernel, tileOf, type GemmShape, type GemmVariant } from '../../shaders/gemm.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Target } from '../gpu/target.ts';
import type { Epilogue, KernelTuning, Operation } from '../graph/operation.ts';
import { apply, dataBytesOf, sizeOf, type Shape, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { gemmCandidates, lanesOf, variantFor } from './gemm-variants.ts';
import { matrixUnits } from './matrix-units.ts';

export { gemmCandidates, gemmVariants } from './gemm-variants.ts';

export interface MatmulAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** The shape of C: all products of the batch together, with gaps between them or without. */
  readonly shape: Shape;
  /** Rows and columns of one product. */
  readonly rows: number;
  readonly columns: number;
  /** Products of a batch, which may have gaps between their matrices. */
  readonly batch?: number;
  readonly bias: boolean;
  /** The shape of a further output, the sums of op(A)'s rows: the bias gradient, where A is the gradient of y. */
  readonly rowSums?: Shape;
  /** Steps taken over from operations that follow; their operands are inputs after A, B and bias. */
  readonly epilogues: readonly Epilogue[];
  /** The last output is the value before this epilogue. */
  readonly keptBefore?: number;
  /** Instead of the variant that suits the adapter: for tests and tuning. */
  readonly variant?: GemmVariant;
  readonly splits?: number;
}

const addBias: Epilogue = { name: 'bias', operand: 'column', flops: 1, expression: (value, operand) => `${value} + ${operand}` };

function shapeOf([a, b, bias]: readonly TensorSpec[], attributes: MatmulAttributes): GemmShape {
  const { transposeA, transposeB, shape, rows, columns, batch = 1, rowSums } = attributes;
  const stacked = attributes.batch !== undefined;
  const stride = (t: Shape): number => sizeOf(t) / batch;
  const strides = { a: stride(a!.shape), b: stride(b!.shape), c: stride(shape), bias: attributes.bias ? stride(bias!.shape) : columns, rowSums: rowSums ? stride(rowSums) : rows };
  // Without a batch nothing lies between the products, so A tells how long the sums are; in a batch its last dimension does.
  const depth = stacked && !transposeA ? a!.shape.at(-1)! : Math.floor(strides.a / rows);
  const fits = Object.values(strides).every(Number.isInteger)
    && (stacked || (strides.a === rows * depth && strides.b === columns * depth && strides.c === rows * columns))
    && strides.a >= rows * depth && strides.b >= columns * depth && strides.c >= rows * columns
    && strides.bias >= columns && strides.rowSums >= rows && depth > 0
    && a!.shape.at(-1) === (transposeA ? rows : depth) && (stacked || b!.shape.at(-1) === (transposeB ? depth : columns));
  if (!fits) {
    throw new UsageError(
      `matmul: A [${a!.shape.join(', ')}]${transposeA ? '^T' : ''} times B [${b!.shape.join(', ')}]${transposeB ? '^T' : ''} is not [${shape.join(', ')}]`
      + `${stacked ? `, ${batch} products of ${rows} x ${columns}` : ''}.`,
    );
  }
  if (attributes.bias && !stacked && strides.bias !== columns) throw new UsageError(`matmul: the bias has ${sizeOf(bias!.shape)} elements, expected ${columns}.`);
  if (a!.dtype !== 'f32' || bias?.dtype === 'f16') throw new UsageError(`matmul: A is ${a!.dtype}; only B may be f16.`);
  if (rowSums && !transposeA) throw new UsageError('matmul: row sums are made where A is transposed.');
  return { rows, columns, depth, transposeA, transposeB, batch, strides };
}

/**
 * Few output tiles and a long sum leave most of a GPU idle: cut the sum so that there are enough workgroups. Only for
 * weight gradients: elsewhere the number of rows is the batch's, and an image's numbers must not depend on its batch.
 */
function splitsFor(shape: GemmShape, variant: GemmVariant, target: Target): number {
  if (!shape.transposeA || shape.batch > 1) return 1;
  const tile = tileOf(variant, lanesOf(target));
  const groups = Math.ceil(shape.rows / tile.rows) * Math.ceil(shape.columns / tile.columns);
  const wanted = target.family === 'gpu' ? 256 : 8;
  const longest = Math.max(1, Math.floor(shape.depth / 256));
  return Math.max(1, Math.min(longest, Math.ceil(wanted / groups), 64));
}

export const matmulOperation: Operation<MatmulAttributes> = {
  name: 'matmul',
  outputs(inputs, attributes) {
    shapeOf(inputs, attributes);
    return [attributes.shape, ...(attributes.rowSums ? [attributes.rowSums] : [])].map((shape) => ({ shape, dtype: 'f32' }));
  },
  kernels({ inputs, outputs, attributes, target, read, write, scratch }) {
    const shape = shapeOf(inputs, attributes);
    const { rows, columns, depth, batch } = shape;
    const { keptBefore } = attributes;
    const preferred = variantFor(shape, target);
    // How the sum is cut decides the bits, so it does not depend on what tuning finds.
    const splits = attributes.splits ?? splitsFor(shape, preferred, target);
    const rowSums = attributes.rowSums !== undefined;
    // The bias is the first epilogue.
    const epilogues = [...(attributes.bias ? [addBias] : []), ...attributes.epilogues];
    const kept = keptBefore === undefined ? undefined : keptBefore + epilogues.length - attributes.epilogues.length;
    const operands = inputs.slice(2).map((_, i) => read(i + 2));
    const results = outputs.map((_, i) => write(i));
    const layout = `${shape.transposeA ? 'T' : 'N'}${shape.transposeB ? 'T' : 'N'}`;
    const label = `gemm ${layout} ${batch > 1 ? `${batch} x ` : ''}${rows}x${columns}x${depth}${epilogues.map((e) => ` ${e.name}`).join('')}${rowSums ? ', row sums' : ''}${inputs[1]!.dtype === 'f16' ? ', f16 weights' : ''}`;
    const key = splits > 1 ? `${label} /${splits}` : label;
    const variant = attributes.variant ?? gemmCandidates(shape, target)[target.tuning?.get(key) ?? ''] ?? preferred;
    const halfB = inputs[1]!.dtype === 'f16';
    const lanes = lanesOf(target);
    const flops = batch * (2 * rows * columns * depth + (rowSums ? rows * depth : 0));
    const extraFlops = batch * epilogues.reduce((sum, e) => sum + e.flops * rows * columns, 0);
    const bytes = [...inputs, ...outputs].reduce((sum, t) => sum + dataBytesOf(t), 0);
    // By rule and not by tuning, since the bits differ.
    const units = attributes.variant === undefined ? matrixUnits() : undefined;
    const onMatrixUnits = units?.usesSubgroupMatrix({ ...shape, splits, halfB }, target) ? units.subgroupMatrixGemmKernel : undefined;
    const product = (of: GemmVariant) => (onMatrixUnits ?? gemmKernel)(splits === 1
      ? { ...shape, label, variant: of, lanes, splits, epilogues, keptBefore: kept, rowSums, halfB }
      : { ...shape, label: key, variant: of, lanes, splits, epilogues: [], rowSums, halfB }, target);
    const { source, workgroups } = product(variant);
    const tuning: KernelTuning | undefined = onMatrixUnits ? undefined : {
      key, variants: () => Object.entries(gemmCandidates(shape, target)).map(([name, candidate]) => {
        const { source: kernel, workgroups: groups } = product(candidate);
        return { name, kernel, workgroups: groups };
      }),
    };
    if (splits === 1) return [{ kernel: source, workgroups, tuning, bindings: [read(0), read(1), ...operands, ...results], flops: flops + extraFlops, bytes }];
    const parts = [scratch(4 * splits * rows * columns), ...(rowSums ? [scratch(4 * splits * rows)] : [])];
    const partBytes = 4 * splits * rows * columns;
    const sum = sumSplitsKernel({ label: `${label} sum of ${splits}`, rows, columns, splits, epilogues, keptBefore: kept, rowSums, target });
    return [
      { kernel: source, workgroups, tuning, bindings: [read(0), read(1), ...parts.map((p) => p.write)], flops, bytes: bytes + partBytes },
      { kernel: sum.source, workgroups: sum.workgroups, bindings: [...parts.map((p) => p.read), ...operands, ...results], flops: extraFlops + splits * rows * columns, bytes: partBytes + 4 * rows * columns },
    ];
  },
  gradient({ inputs: [a, b, bias], attributes, outputGradients: [g], needs }) {
    const { transposeA, transposeB, batch, rows, columns } = attributes;
    const depth = a!.shape.at(-1)!;
    const common = { bias: false, epilogues: [], ...(batch !== undefined && { batch }) };
    if (!transposeA && !transposeB && !bias) {
      // C = A B: dA = g B^T, dB = A^T g.
      return [
        needs[0] ? apply(matmulOperation, [g!, b!], { ...common, transposeA: false, transposeB: true, shape: a!.shape, rows, columns: depth })[0] : undefined,
        needs[1] ? apply(matmulOperation, [a!, g!], { ...common, transposeA: true, transposeB: false, shape: b!.shape, rows: depth, columns })[0] : undefined,
      ];
    }
    if (transposeA || !transposeB) throw new UsageError('matmul: only A B and the linear layer x W^T + b are differentiated.');
    const ofInput = needs[0] ? apply(matmulOperation, [g!, b!], { ...common, transposeA: false, transposeB: false, shape: a!.shape, rows, columns: depth })[0] : undefined;
    if (!needs[1] && !needs[2]) return [ofInput];
    const [ofWeight, ofBias] = apply(matmulOperation, [g!, a!], {
      ...common, transposeA: true, transposeB: false, shape: b!.shape, rows: columns, columns: depth, ...(bias && needs[2] && { rowSums: bias.shape }),
    });
    return [ofInput, ofWeight, ofBias];
  },
  reference(inputs, { inputs: specs, attributes }) {
    const { rows, columns, depth, transposeA, transposeB, batch, strides } = shapeOf(specs, attributes);
    const [a, b, bias] = inputs as [Float64Array, Float64Array, Float64Array | undefined];
    const c = new Float64Array(sizeOf(attributes.shape));
    const sums = new Float64Array(batch * strides.rowSums);
    for (let z = 0; z < batch; z++) {
      for (let i = 0; i < rows; i++) {
        const left = (k: number): number => a[z * strides.a + (transposeA ? k * rows + i : i * depth + k)]!;
        for (let j = 0; j < columns; j++) {
          let sum = attributes.bias ? bias![z * strides.bias + j]! : 0;
          for (let k = 0; k < depth; k++) sum += left(k) * b[z * strides.b + (transposeB ? j * depth + k : k * columns + j)]!;
          c[z * strides.c + i * columns + j] = sum;
        }
        for (let k = 0; k < depth; k++) sums[z * strides.rowSums + i]! += left(k);
      }
    }
    return attributes.rowSums ? [c, sums] : [c];
  },
  withEpilogue({ attributes }, epilogue, _operand, keep) {
    if (attributes.batch !== undefined || (keep && attributes.keptBefore !== undefined)) return undefined;
    return { ...attributes, epilogues: [...attributes.epilogues, epilogue], ...(keep && { keptBefore: attributes.epilogues.length }) };
  },
};

export interface MatmulTuning {
  readonly variant?: GemmVariant;
  readonly splits?: number;
}

/** op(A) op(B) of the given shape. A and B are taken as matrices: all but the last dimension together are the rows. */
export function matmul(a: Tensor, b: Tensor, options: { shape: Shape; transposeA?: boolean; transposeB?: boolean } & MatmulTuning): Tensor {
  const { shape, transposeA = false, transposeB = false, ...tuning } = options;
  const columns = shape.at(-1)!;
  return apply(matmulOperation, [a, b], { transposeA, transposeB, shape, rows: sizeOf(shape) / columns, columns, bias: false, epilogues: [], ...tuning })[0]!;
}

/** A_i B_i for each i: A [D, N, K], B [D, K, M] to [D, N, M]. */
export function batchMatmul(a: Tensor, b: Tensor): Tensor {
  const [batch, rows] = a.shape as [number, number];
  const columns = b.shape.at(-1)!;
  if (a.shape.length !== 3 || b.shape.length !== 3 || b.shape[0] !== batch || b.shape[1] !== a.shape[2]) {
    throw new UsageError(`batchMatmul: expected A [D, N, K] and B [D, K, M], got [${a.shape.join(', ')}] and [${b.shape.join(', ')}].`);
  }
  return apply(matmulOperation, [a, b], { transposeA: false, transposeB: false, shape: [batch, rows, columns], rows, columns, batch, bias: false, epilogues: [] })[0]!;
}

/**
 * y = x W^T + b.
 * @param x [.., K]
 * @param weight [N, K], f32 or f16
 * @param bias [N]
 * @returns [.., N]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, tuning: MatmulTuning = {}): Tensor {
  const [columns] = weight.shape as [number];
  const shape = [...x.shape.slice(0, -1), columns];
  const attributes: MatmulAttributes = {
    transposeA: false, transposeB: true, shape, rows: sizeOf(shape) / columns, columns, bias: bias !== undefined, epilogues: [], ...tuning,
  };
  return apply(matmulOperation, bias ? [x, weight, bias] : [x, weight], attributes, 'linear')[0]!;
}

/**
 * D linear layers of one shape, y_i = x_i W_i^T + b_i.
 * @param x [D, .., K]
 * @param weight [D, at least N K]: each row begins with W_i [N, K]; what follows is not read
 * @param bias [D, at least N], likewise
 * @param outputs N
 * @returns [D, .., N]
 */
export function stackedLinear(x: Tensor, weight: Tensor, bias: Tensor, outputs: number): Tensor {
  const shape = [...x.shape.slice(0, -1), outputs];
  const batch = shape[0]!;
  const attributes: MatmulAttributes = { transposeA: false, transposeB: true, shape, rows: sizeOf(shape) / batch / outputs, columns: outputs, batch, bias: true, epilogues: [] };
  return apply(matmulOperation, [x, weight, bias], attributes, 'linear')[0]!;
}
