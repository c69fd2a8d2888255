/**
 * The transposed convolution on token maps [B, H W, C], as one matrix product and one gather. A product with the weight
 * [C, K K O] gives every token a K x K patch of outputs; `fold` adds up the patches where they overlap. Its gradients are
 * `unfold`, the opposite, and two more products. So the work is done by the GEMM, however many channels there are, and a
 * convolution of stride 1 is the same with its kernel turned half around.
 *
 *   y[o] = bias + sum over k, i with o = i stride - padding + k of x[i] W[:, k, :]
 */
import { foldKernel, unfoldKernel, type FoldSize } from '../../shaders/fold.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Target } from '../gpu/target.ts';
import type { Epilogue, Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';
import { matmul } from './matmul.ts';
import { reshape } from './reshape.ts';
import { sumRows } from './sum-rows.ts';

export interface Grid {
  readonly rows: number;
  readonly columns: number;
}

export interface ConvolutionGeometry {
  /** Side of the kernel. */
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number;
}

interface FoldAttributes extends ConvolutionGeometry {
  /** The grid that patches lie on: the transposed convolution's input. */
  readonly grid: Grid;
  readonly epilogues: readonly Epilogue[];
}

/** Rows and columns of a transposed convolution's output. */
export function transposedGrid({ rows, columns }: Grid, { kernel, stride, padding }: ConvolutionGeometry): Grid {
  const side = (n: number) => (n - 1) * stride - 2 * padding + kernel;
  return { rows: side(rows), columns: side(columns) };
}

const addBias: Epilogue = { name: 'bias', operand: 'column', flops: 1, expression: (value, operand) => `${value} + ${operand}` };

function sizesOf(name: string, batch: number, channels: number, { grid, kernel, stride, padding }: FoldAttributes, target: Target): FoldSize {
  const pixels = transposedGrid(grid, { kernel, stride, padding });
  return {
    label: `${name} ${batch} x ${grid.rows}x${grid.columns} k${kernel} s${stride} p${padding}, ${channels} channels`,
    batch, channels, kernel, stride, padding, target, ...grid, pixelRows: pixels.rows, pixelColumns: pixels.columns,
  };
}

/** Every (patch, element of it, pixel under it) within the border, as offsets of rows of channels. */
function forEachOverlap(batch: number, { grid, kernel, stride, padding }: FoldAttributes, body: (patchRow: number, pixelRow: number) => void): void {
  const pixels = transposedGrid(grid, { kernel, stride, padding });
  for (let b = 0; b < batch; b++) {
    for (let patch = 0; patch < grid.rows * grid.columns; patch++) {
      for (let k = 0; k < kernel ** 2; k++) {
        const row = Math.floor(patch / grid.columns) * stride - padding + Math.floor(k / kernel);
        const column = (patch % grid.columns) * stride - padding + (k % kernel);
        if (row < 0 || column < 0 || row >= pixels.rows || column >= pixels.columns) continue;
        body((b * grid.rows * grid.columns + patch) * kernel ** 2 + k, (b * pixels.rows + row) * pixels.columns + column);
      }
    }
  }
}

/** (patches [B, H W, K K O], bias [O]) -> pixels [B, H' W', O] */
export const foldOperation: Operation<FoldAttributes> = {
  name: 'fold',
  outputs([patches, bias], { grid, kernel, stride, padding }) {
    const [batch, tokens, elements] = patches!.shape;
    const channels = sizeOf(bias!.shape);
    const pixels = transposedGrid(grid, { kernel, stride, padding });
    if (patches!.shape.length !== 3 || tokens !== grid.rows * grid.columns || elements !== kernel ** 2 * channels || pixels.rows < 1 || pixels.columns < 1) {
      throw new UsageError(`fold: expected patches [B, ${grid.rows * grid.columns}, ${kernel ** 2 * channels}] (a grid of ${grid.rows} x ${grid.columns}, kernel ${kernel}, ${channels} channels), got [${patches!.shape.join(', ')}].`);
    }
    return [{ shape: [batch!, pixels.rows * pixels.columns, channels], dtype: 'f32' }];
  },
  kernels({ inputs, outputs: [y], attributes, target, read, write }) {
    const [batch, , channels] = y!.shape as [number, number, number];
    const size = sizesOf('fold', batch, channels, attributes, target);
    const epilogues = [addBias, ...attributes.epilogues];
    const { source, workgroups } = foldKernel({ ...size, label: `${size.label}${epilogues.map((e) => ` ${e.name}`).join('')}`, epilogues });
    const count = sizeOf(y!.shape);
    return [{
      kernel: source, workgroups, bindings: [...inputs.map((_, i) => read(i)), write(0)],
      flops: sizeOf(inputs[0]!.shape) + count * epilogues.reduce((sum, e) => sum + e.flops, 0),
      bytes: 4 * [...inputs, y!].reduce((sum, t) => sum + sizeOf(t.shape), 0),
    }];
  },
  gradient: ({ attributes, outputGradients: [g], needs }) => [
    needs[0] ? apply(unfoldOperation, [g!], attributes)[0]! : undefined,
    needs[1] ? sumRows(g!) : undefined,
  ],
  reference([patches, bias], { outputs: [y], attributes }) {
    const [batch, , channels] = y!.shape as [number, number, number];
    const pixels = Float64Array.from({ length: sizeOf(y!.shape) }, (_, i) => bias![i % channels]!);
    forEachOverlap(batch, attributes, (patch, pixel) => addRow(pixels, pixel, patches!, patch, channels));
    return [pixels];
  },
  withEpilogue: ({ attributes }, epilogue, _operand, keep) => (keep ? undefined : { ...attributes, epilogues: [...attributes.epilogues, epilogue] }),
};

/** pixels [B, H' W', O] -> patches [B, H W, K K O]: what lies under each patch, 0 beyond the border */
export const unfoldOperation: Operation<FoldAttributes> = {
  name: 'unfold',
  outputs([x], { grid, kernel, stride, padding }) {
    const [batch, count, channels] = x!.shape;
    const pixels = transposedGrid(grid, { kernel, stride, padding });
    if (x!.shape.length !== 3 || count !== pixels.rows * pixels.columns) {
      throw new UsageError(`unfold: expected [B, ${pixels.rows * pixels.columns}, C] (${pixels.rows} x ${pixels.columns} pixels), got [${x!.shape.join(', ')}].`);
    }
    return [{ shape: [batch!, grid.rows * grid.columns, kernel ** 2 * channels!], dtype: 'f32' }];
  },
  kernels({ inputs: [x], outputs: [y], attributes, target, read, write }) {
    const [batch, , channels] = x!.shape as [number, number, number];
    const { source, workgroups } = unfoldKernel(sizesOf('unfold', batch, channels, attributes, target));
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 0, bytes: 4 * (sizeOf(x!.shape) + sizeOf(y!.shape)) }];
  },
  reference([x], { inputs: [spec], outputs: [y], attributes }) {
    const [batch, , channels] = spec!.shape as [number, number, number];
    const patches = new Float64Array(sizeOf(y!.shape));
    forEachOverlap(batch, attributes, (patch, pixel) => addRow(patches, patch, x!, pixel, channels));
    return [patches];
  },
};

function addRow(to: ReferenceArray, toRow: number, from: ReferenceArray, fromRow: number, channels: number): void {
  for (let c = 0; c < channels; c++) to[toRow * channels + c]! += from[fromRow * channels + c]!;
}

/**
 * @param x [B, H W, C], row by row over `grid`
 * @param weight [C, K, K, O]
 * @param bias [O]
 * @returns [B, H' W', O] over {@link transposedGrid}
 */
export function transposedConvolution(x: Tensor, weight: Tensor, bias: Tensor, { grid, ...geometry }: ConvolutionGeometry & { readonly grid: Grid }): Tensor {
  const [inputs, kernelRows, kernelColumns, outputs] = weight.shape as [number, number, number, number];
  if (weight.shape.length !== 4 || kernelRows !== geometry.kernel || kernelColumns !== geometry.kernel) {
    throw new UsageError(`transposedConvolution: expected a weight [C, ${geometry.kernel}, ${geometry.kernel}, O], got [${weight.shape.join(', ')}].`);
  }
  const elements = geometry.kernel ** 2 * outputs;
  const patches = matmul(x, reshape(weight, [inputs, elements]), { shape: [...x.shape.slice(0, -1), elements] });
  return apply(foldOperation, [patches, bias], { ...geometry, grid, epilogues: [] })[0]!;
}
