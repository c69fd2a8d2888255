/**
 * y = (x - mean) / sqrt(var + eps) * weight + bias over the last dimension (biased variance). The backward keeps the
 * row's mean and scale; weight and bias gradients are column sums. A stack of norms, each with its own weight and bias,
 * of one x shares mean and scale.
 */
import { layerNormInputGradientKernel, layerNormKernel, layerNormWeightGradientKernel } from '../../shaders/layer-norm.wgsl.ts';
import { sumRowsKernel } from '../../shaders/sum-rows.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Epilogue, Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Shape, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { sumRowsChunk } from './sum-rows.ts';

interface StackAttributes {
  /** Norms of one x; undefined where there is no stack but one norm. */
  readonly stack?: number;
}
interface Attributes extends StackAttributes {
  readonly epsilon: number;
}

interface Layout {
  readonly stack: number;
  readonly rows: number;
  readonly columns: number;
  /** Elements from one norm's weight to the next one's. */
  readonly stride: number;
}

function layoutOf(x: TensorSpec, weight: Pick<TensorSpec, 'shape'>, { stack = 1 }: StackAttributes): Layout {
  const columns = x.shape.at(-1)!;
  return { rows: sizeOf(x.shape) / columns, columns, stack, stride: sizeOf(weight.shape) / stack };
}

function statisticsOf(x: ReferenceArray, columns: number, epsilon: number): { mean: number; scale: number }[] {
  return Array.from({ length: x.length / columns }, (_, r) => {
    const row = x.subarray(r * columns, (r + 1) * columns);
    const mean = row.reduce((a, b) => a + b, 0) / columns;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / columns;
    return { mean, scale: 1 / Math.sqrt(variance + epsilon) };
  });
}

/** Outputs y, with a stack [stack, ..x], and the statistics [rows, 2] that the backward reads. */
export const layerNormOperation: Operation<Attributes> = {
  name: 'layerNorm',
  isCheap: true,
  outputs([x, weight, bias], attributes) {
    const { rows, columns, stack, stride } = layoutOf(x!, weight!, attributes);
    for (const [name, t] of [['weight', weight], ['bias', bias]] as const) {
      const fits = attributes.stack === undefined ? sizeOf(t!.shape) === columns : t!.shape[0] === stack && sizeOf(t!.shape) === stack * stride && stride >= columns;
      if (!fits) throw new UsageError(`layerNorm: the ${name} has shape [${t!.shape.join(', ')}], expected ${attributes.stack === undefined ? `[${columns}]` : `[${stack}, at least ${columns}]`}.`);
    }
    return [{ shape: attributes.stack === undefined ? x!.shape : [stack, ...x!.shape], dtype: 'f32' }, { shape: [rows, 2], dtype: 'f32' }];
  },
  kernels({ inputs: [x, weight], attributes, target, read, write }) {
    const layout = layoutOf(x!, weight!, attributes);
    const { rows, columns, stack } = layout;
    const { source, workgroups } = layerNormKernel({ ...layout, label: `layerNorm ${labelOf(layout)}`, epsilon: attributes.epsilon, target });
    return [{
      kernel: source, workgroups, bindings: [read(0), read(1), read(2), write(0), write(1)],
      flops: (5 + 3 * stack) * rows * columns, bytes: 4 * ((1 + stack) * rows * columns + 2 * stack * columns + 2 * rows),
    }];
  },
  gradient({ inputs: [x, weight], outputs: [, statistics], attributes: { stack }, outputGradients: [g], needs }) {
    const stacked = stack === undefined ? {} : { stack };
    const [ofWeight, ofBias] = needs[1] || needs[2] ? apply(layerNormWeightGradientOperation, [g!, x!, statistics!], { ...stacked, shape: weight!.shape }) : [];
    const ofInput = needs[0] ? apply(layerNormInputGradientOperation, [g!, x!, weight!, statistics!], { ...stacked, epilogues: [] })[0] : undefined;
    return [ofInput, ofWeight, ofBias];
  },
  reference([x, weight, bias], { inputs: [spec, weightSpec], attributes }) {
    const { columns, stack, stride } = layoutOf(spec!, weightSpec!, attributes);
    const rows = statisticsOf(x!, columns, attributes.epsilon);
    const y = new Float64Array(stack * x!.length);
    y.forEach((_, at) => {
      const [d, i] = [Math.floor(at / x!.length), at % x!.length];
      const { mean, scale } = rows[Math.floor(i / columns)]!;
      y[at] = (x![i]! - mean) * scale * weight![d * stride + (i % columns)]! + bias![d * stride + (i % columns)]!;
    });
    return [y, Float64Array.from(rows.flatMap(({ mean, scale }) => [mean, scale]))];
  },
};

const labelOf = ({ rows, columns, stack }: Layout): string => `${stack > 1 ? `${stack} x ` : ''}${rows}x${columns}`;

/** Inputs: the gradient of y, x, weight, statistics, and the operands of the epilogues. */
export const layerNormInputGradientOperation: Operation<StackAttributes & { epilogues: readonly Epilogue[] }> = {
  name: 'layerNormInputGradient',
  outputs: ([, x]) => [{ shape: x!.shape, dtype: 'f32' }],
  kernels({ inputs: [, x, weight, , ...operands], attributes, target, read, write }) {
    const layout = layoutOf(x!, weight!, attributes);
    const size = layout.rows * layout.columns;
    const { epilogues } = attributes;
    const { stack } = layout;
    const { source, workgroups } = layerNormInputGradientKernel({ ...layout, label: `layerNorm dx ${labelOf(layout)}${epilogues.map((e) => ` ${e.name}`).join('')}`, epilogues, target });
    return [{
      kernel: source, workgroups, bindings: [read(0), read(1), read(2), read(3), ...operands.map((_, i) => read(4 + i)), write(0)],
      flops: (11 + 3 * stack + epilogues.reduce((sum, e) => sum + e.flops, 0)) * size,
      bytes: 4 * ((2 + stack) * size + stack * layout.columns + 2 * layout.rows + operands.reduce((sum, t) => sum + sizeOf(t.shape), 0)),
    }];
  },
  reference([g, x, weight, statistics], { inputs: [, spec, weightSpec], attributes }) {
    const { rows, columns, stack, stride } = layoutOf(spec!, weightSpec!, attributes);
    const dx = new Float64Array(x!.length);
    for (let r = 0; r < rows; r++) {
      const [mean, scale] = [statistics![2 * r]!, statistics![2 * r + 1]!];
      const slopes = Array.from({ length: columns }, (_, c) =>
        Array.from({ length: stack }, (_, d) => g![(d * rows + r) * columns + c]! * weight![d * stride + c]!).reduce((a, b) => a + b));
      const n = (c: number) => (x![r * columns + c]! - mean) * scale;
      const meanH = slopes.reduce((sum, h) => sum + h / columns, 0);
      const meanHN = slopes.reduce((sum, h, c) => sum + (h * n(c)) / columns, 0);
      slopes.forEach((h, c) => { dx[r * columns + c] = scale * (h - meanH - n(c) * meanHN); });
    }
    return [dx];
  },
  withEpilogue({ attributes }, epilogue, _operand, keep) {
    return keep ? undefined : { ...attributes, epilogues: [...attributes.epilogues, epilogue] };
  },
};

/** Outputs: the gradients of weight and bias, of their shape; 0 in the gaps of a stack. */
export const layerNormWeightGradientOperation: Operation<StackAttributes & { shape: Shape }> = {
  name: 'layerNormWeightGradient',
  outputs: (_, { shape }) => [{ shape, dtype: 'f32' }, { shape, dtype: 'f32' }],
  kernels({ inputs: [, x], attributes, target, read, write, scratch }) {
    const layout = layoutOf(x!, attributes, attributes);
    const { rows, columns, stack, stride } = layout;
    const chunk = sumRowsChunk(rows);
    const chunks = Math.ceil(rows / chunk);
    const width = stack * stride;
    const { source, workgroups } = layerNormWeightGradientKernel({ ...layout, chunk, label: `layerNorm dw, db ${labelOf(layout)}`, target });
    const inputs = [read(0), read(1), read(2)];
    const cost = { flops: 5 * stack * rows * columns, bytes: 4 * ((1 + stack) * rows * columns + 2 * rows + 2 * chunks * width) };
    if (chunks === 1) return [{ kernel: source, workgroups, bindings: [...inputs, write(0), write(1)], ...cost }];
    const parts = [scratch(4 * chunks * width), scratch(4 * chunks * width)];
    const sum = sumRowsKernel({ label: `layerNorm dw, db, sum of ${chunks}x${width}`, rows: chunks, columns: width, chunk: chunks, matrices: 2, target });
    return [
      { kernel: source, workgroups, bindings: [...inputs, ...parts.map((p) => p.write)], ...cost },
      { kernel: sum.source, workgroups: sum.workgroups, bindings: [...parts.map((p) => p.read), write(0), write(1)], flops: 2 * chunks * width, bytes: 8 * (chunks + 1) * width },
    ];
  },
  reference([g, x, statistics], { inputs: [, spec], attributes }) {
    const { rows, columns, stack, stride } = layoutOf(spec!, attributes, attributes);
    const [dw, db] = [new Float64Array(stack * stride), new Float64Array(stack * stride)];
    g!.forEach((slope, i) => {
      const r = Math.floor(i / columns) % rows;
      const to = Math.floor(i / (rows * columns)) * stride + (i % columns);
      dw[to]! += slope * (x![r * columns + (i % columns)]! - statistics![2 * r]!) * statistics![2 * r + 1]!;
      db[to]! += slope;
    });
    return [dw, db];
  },
};

/**
 * @param x [.., C]
 * @param weight [C]
 * @param bias [C]
 * @param epsilon 1e-6 in DINOv2's encoder, 1e-8 in INP-Former's own blocks
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  return apply(layerNormOperation, [x, weight, bias], { epsilon })[0]!;
}

/**
 * D norms of one x.
 * @param x [.., C]
 * @param weight, bias [D, at least C]: each row begins with a norm's C values; what follows is not read
 * @returns [D, .., C]
 */
export function stackedLayerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  return apply(layerNormOperation, [x, weight, bias], { epsilon, stack: weight.shape[0]! })[0]!;
}
