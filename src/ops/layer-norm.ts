/**
 * y = (x - mean) / sqrt(var + eps) * weight + bias over the last dimension (biased variance). The backward keeps the
 * row's mean and scale; weight and bias gradients are column sums.
 */
import { layerNormInputGradientKernel, layerNormKernel, layerNormWeightGradientKernel } from '../../shaders/layer-norm.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { sumRows, sumRowsChunk, sumRowsDispatches } from './sum-rows.ts';

interface Attributes {
  readonly epsilon: number;
}

function rowsOf(x: TensorSpec): { rows: number; columns: number } {
  const columns = x.shape.at(-1)!;
  return { rows: sizeOf(x.shape) / columns, columns };
}

function statisticsOf(x: ReferenceArray, columns: number, epsilon: number): { mean: number; scale: number }[] {
  return Array.from({ length: x.length / columns }, (_, r) => {
    const row = x.subarray(r * columns, (r + 1) * columns);
    const mean = row.reduce((a, b) => a + b, 0) / columns;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / columns;
    return { mean, scale: 1 / Math.sqrt(variance + epsilon) };
  });
}

/** Outputs y and the statistics [rows, 2] that the backward reads. */
export const layerNormOperation: Operation<Attributes> = {
  name: 'layerNorm',
  outputs([x, weight, bias]) {
    const { rows, columns } = rowsOf(x!);
    if (sizeOf(weight!.shape) !== columns || sizeOf(bias!.shape) !== columns) {
      throw new UsageError(`layerNorm: weight [${weight!.shape.join(', ')}] and bias [${bias!.shape.join(', ')}] must have ${columns} elements.`);
    }
    return [{ shape: x!.shape, dtype: 'f32' }, { shape: [rows, 2], dtype: 'f32' }];
  },
  kernels({ inputs: [x], attributes: { epsilon }, target, read, write }) {
    const shape = rowsOf(x!);
    const size = shape.rows * shape.columns;
    const { source, workgroups } = layerNormKernel({ ...shape, label: `layerNorm ${shape.rows}x${shape.columns}`, epsilon, keepStatistics: true, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), write(0), write(1)], flops: 8 * size, bytes: 4 * (2 * size + 2 * shape.columns + 2 * shape.rows) }];
  },
  gradient({ inputs: [x, weight], outputs: [, statistics], outputGradients: [g], needs }) {
    return [
      needs[0] ? apply(layerNormInputGradientOperation, [g!, x!, weight!, statistics!], null)[0] : undefined,
      needs[1] ? apply(layerNormWeightGradientOperation, [g!, x!, statistics!], null)[0] : undefined,
      needs[2] ? sumRows(g!) : undefined,
    ];
  },
  reference([x, weight, bias], { inputs: [spec], attributes: { epsilon } }) {
    const { columns } = rowsOf(spec!);
    const rows = statisticsOf(x!, columns, epsilon);
    const y = x!.map((v, i) => { const { mean, scale } = rows[Math.floor(i / columns)]!; return (v - mean) * scale * weight![i % columns]! + bias![i % columns]!; });
    return [y, Float64Array.from(rows.flatMap(({ mean, scale }) => [mean, scale]))];
  },
};

export const layerNormInputGradientOperation: Operation<null> = {
  name: 'layerNormInputGradient',
  outputs: ([g]) => [{ shape: g!.shape, dtype: 'f32' }],
  kernels({ inputs: [g], target, read, write }) {
    const shape = rowsOf(g!);
    const size = shape.rows * shape.columns;
    const { source, workgroups } = layerNormInputGradientKernel({ ...shape, label: `layerNorm dx ${shape.rows}x${shape.columns}`, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), read(3), write(0)], flops: 14 * size, bytes: 4 * (3 * size + shape.columns + 2 * shape.rows) }];
  },
  reference([g, x, weight, statistics], { inputs: [spec] }) {
    const { rows, columns } = rowsOf(spec!);
    const dx = new Float64Array(g!.length);
    for (let r = 0; r < rows; r++) {
      const [mean, scale] = [statistics![2 * r]!, statistics![2 * r + 1]!];
      const h = (c: number) => g![r * columns + c]! * weight![c]!;
      const n = (c: number) => (x![r * columns + c]! - mean) * scale;
      let meanH = 0;
      let meanHN = 0;
      for (let c = 0; c < columns; c++) { meanH += h(c) / columns; meanHN += (h(c) * n(c)) / columns; }
      for (let c = 0; c < columns; c++) dx[r * columns + c] = scale * (h(c) - meanH - n(c) * meanHN);
    }
    return [dx];
  },
};

export const layerNormWeightGradientOperation: Operation<null> = {
  name: 'layerNormWeightGradient',
  outputs: ([g]) => [{ shape: [g!.shape.at(-1)!], dtype: 'f32' }],
  kernels({ inputs: [g], target, read, write, scratch }) {
    const shape = rowsOf(g!);
    const size = shape.rows * shape.columns;
    const chunks = Math.ceil(shape.rows / sumRowsChunk);
    const { source, workgroups } = layerNormWeightGradientKernel({ ...shape, chunk: sumRowsChunk, label: `layerNorm dw ${shape.rows}x${shape.columns}`, target });
    const bindings = [read(0), read(1), read(2)];
    const cost = { flops: 4 * size, bytes: 4 * (2 * size + 2 * shape.rows + chunks * shape.columns) };
    if (chunks === 1) return [{ kernel: source, workgroups, bindings: [...bindings, write(0)], ...cost }];
    const parts = scratch(4 * chunks * shape.columns);
    return [
      { kernel: source, workgroups, bindings: [...bindings, parts.write], ...cost },
      ...sumRowsDispatches({ source: parts.read, rows: chunks, columns: shape.columns, result: write(0), target, scratch }),
    ];
  },
  reference([g, x, statistics], { outputs: [out] }) {
    const columns = out!.shape[0]!;
    const dw = new Float64Array(columns);
    g!.forEach((v, i) => { const r = Math.floor(i / columns); dw[i % columns]! += v * (x![i]! - statistics![2 * r]!) * statistics![2 * r + 1]!; });
    return [dw];
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
