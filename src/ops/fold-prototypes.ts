/**
 * The decoder's output projection folded into the prototypes: z = b + sum over heads and prototypes of A[n, h, m] U[h M + m, :]
 * with U[h M + m, :] = V[m, head h] W[:, head h]^T, which over 6 prototypes costs a fraction of projecting all tokens. The same
 * small work for every decoder block, so it is done for all of them at once; {@link foldedAttention} is the tokens' side.
 */
import {
  foldProductKernel, foldRowsGradientKernel, foldRowsKernel, foldValueGradientKernel, foldWeightGradientKernel, keyRows, keyValueRows, weightRows, type FoldShape,
} from '../../shaders/fold-prototypes.wgsl.ts';
import { normalizeEpsilon } from '../../shaders/prototype-attention.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Dispatch, Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { addTo, bind, boundRows, dot, type Bound } from './attention-layout.ts';

export interface FoldPrototypesAttributes {
  readonly numHeads: number;
}

interface GradientAttributes extends FoldPrototypesAttributes {
  /** For keyValue, learnScale, weight and bias, whether the gradient is wanted: those are the outputs, in this order. */
  readonly needs: readonly boolean[];
}

function shapeOf([keyValue, learnScale, weight, bias]: readonly TensorSpec[], { numHeads: heads }: FoldPrototypesAttributes): FoldShape {
  const text = (t: TensorSpec): string => `[${t.shape.join(', ')}]`;
  const [depth, batch, prototypes, doubled] = keyValue!.shape;
  if (keyValue!.shape.length !== 4 || doubled! % (2 * heads) !== 0) {
    throw new UsageError(`foldPrototypes: keyValue has shape ${text(keyValue!)}, expected [D, B, M, 2 C] with C a multiple of ${heads} heads.`);
  }
  const channels = doubled! / 2;
  const least = { learnScale: heads, weight: channels * channels, bias: channels };
  const strides = [learnScale!, weight!, bias!].map((t, i) => {
    const [name, length] = Object.entries(least)[i]!;
    if (t.shape.length !== 2 || t.shape[0] !== depth || t.shape[1]! < length) {
      throw new UsageError(`foldPrototypes: ${name} has shape ${text(t)}, expected [${depth}, at least ${length}].`);
    }
    return t.shape[1]!;
  });
  return { depth: depth!, batch: batch!, prototypes: prototypes!, heads, channels, scaleStride: strides[0]!, weightStride: strides[1]!, biasStride: strides[2]! };
}

const headSizeOf = ({ channels, heads }: FoldShape): number => channels / heads;

/** Floating-point operations of one of the products, and elements of the keys (or values), of U and of the weights. */
function sizesOf({ depth, batch, prototypes, heads, channels }: FoldShape): { product: number; keys: number; projected: number; weights: number } {
  const keys = depth * batch * prototypes * channels;
  return { product: 2 * keys * channels, keys, projected: depth * batch * (prototypes * heads + 1) * channels, weights: depth * channels * channels };
}

/** Inputs keyValue, learnScale, weight, bias. Outputs keys [D, B, M, C], projected [D, B, M heads + 1, C]. */
export const foldPrototypesOperation: Operation<FoldPrototypesAttributes> = {
  name: 'foldPrototypes',
  outputs(inputs, attributes) {
    const { depth, batch, prototypes, heads, channels } = shapeOf(inputs, attributes);
    return [
      { shape: [depth, batch, prototypes, channels], dtype: 'f32' },
      { shape: [depth, batch, prototypes * heads + 1, channels], dtype: 'f32' },
    ];
  },
  kernels({ inputs, attributes, target, read, write }) {
    const shape = shapeOf(inputs, attributes);
    const size = sizesOf(shape);
    const [key, values, weight, output] = [keyValueRows('keyValue', shape, 0), keyValueRows('keyValue', shape, 1), weightRows('weight', shape), keyRows('keys', shape)];
    const projected: Bound = { name: 'projected', type: 'f32', binding: write(1) };
    const forProduct = bind([boundRows(values, read(0)), boundRows(weight, read(2)), projected]);
    const product = foldProductKernel(shape, forProduct.declarations, { values, weight }, target);
    const forRows = bind([
      boundRows(key, read(0)), { name: 'learnScale', type: 'f32', binding: read(1) }, { name: 'bias', type: 'f32', binding: read(3) },
      boundRows(output, write(0)), projected,
    ]);
    const rows = foldRowsKernel(shape, forRows.declarations, { key, output }, target);
    return [
      { kernel: product.source, workgroups: product.workgroups, bindings: forProduct.bindings, flops: size.product, bytes: 4 * (size.keys + size.weights + size.projected) },
      { kernel: rows.source, workgroups: rows.workgroups, bindings: forRows.bindings, flops: 3 * size.keys, bytes: 8 * size.keys },
    ];
  },
  gradient({ inputs, attributes, outputGradients: [keys, projected], needs }) {
    if (!keys || !projected) throw new UsageError(`foldPrototypes: nothing flows back to its ${keys ? 'projected prototypes' : 'keys'}; both outputs must be used.`);
    const gradients = apply(foldPrototypesGradientOperation, [...inputs, keys, projected], { ...attributes, needs });
    let next = 0;
    return needs.map((needed) => (needed ? gradients[next++] : undefined));
  },
  reference(inputs, { inputs: specs, attributes }) {
    const shape = shapeOf(specs, attributes);
    const { depth, batch, prototypes, heads, channels } = shape;
    const keys = new Float64Array(depth * batch * prototypes * channels);
    const projected = new Float64Array(depth * batch * (prototypes * heads + 1) * channels);
    forEachHeadRow(shape, inputs, ({ key, value, scale, weightRow, keysAt, projectedAt }) => {
      addTo(keys.subarray(keysAt, keysAt + key.length), scale / clampedNorm(key), key);
      for (let c = 0; c < channels; c++) projected[projectedAt + c] = dot(value, weightRow(inputs[2]!, c));
    });
    forEachBiasRow(shape, (biasAt, projectedAt) => projected.set(inputs[3]!.subarray(biasAt, biasAt + channels), projectedAt));
    return [keys, projected];
  },
};

const clampedNorm = (x: Float64Array): number => Math.max(Math.sqrt(dot(x, x)), normalizeEpsilon);

interface HeadRow {
  readonly key: Float64Array;
  readonly value: Float64Array;
  readonly scale: number;
  /** Where the key, the value, their head's scale, the row of keys and the row of projected begin. */
  readonly keyAt: number;
  readonly valueAt: number;
  readonly scaleAt: number;
  readonly keysAt: number;
  readonly projectedAt: number;
  /** The head's part of row c of the block's weight, in `data` (the weight or its gradient). */
  weightRow(data: ReferenceArray, c: number): Float64Array;
}

/** For references: each head of each prototype of each image and block. */
function forEachHeadRow(shape: FoldShape, [keyValue, learnScale]: readonly ReferenceArray[], body: (row: HeadRow) => void): void {
  const { depth, batch, prototypes, heads, channels, scaleStride, weightStride } = shape;
  const d = headSizeOf(shape);
  for (let i = 0; i < depth; i++) {
    for (let b = 0; b < batch; b++) {
      for (let m = 0; m < prototypes; m++) {
        for (let h = 0; h < heads; h++) {
          const row = (i * batch + b) * prototypes + m;
          const keyAt = row * 2 * channels + h * d;
          const valueAt = keyAt + channels;
          const scaleAt = i * scaleStride + h;
          body({
            key: keyValue!.subarray(keyAt, keyAt + d), value: keyValue!.subarray(valueAt, valueAt + d), scale: learnScale![scaleAt]!,
            keyAt, valueAt, scaleAt, keysAt: row * channels + h * d,
            projectedAt: ((i * batch + b) * (prototypes * heads + 1) + h * prototypes + m) * channels,
            weightRow: (data, c) => data.subarray(i * weightStride + c * channels + h * d, i * weightStride + c * channels + (h + 1) * d),
          });
        }
      }
    }
  }
}

/** For references: where each image's bias row begins, in bias and in projected. */
function forEachBiasRow({ depth, batch, prototypes, heads, channels, biasStride }: FoldShape, body: (biasAt: number, projectedAt: number) => void): void {
  for (let k = 0; k < depth * batch; k++) body(Math.floor(k / batch) * biasStride, ((k + 1) * (prototypes * heads + 1) - 1) * channels);
}

/** Inputs keyValue, learnScale, weight, bias, the gradients of keys and of projected. Outputs: the gradients of the first four that are wanted. */
export const foldPrototypesGradientOperation: Operation<GradientAttributes> = {
  name: 'foldPrototypesGradient',
  outputs: (inputs, { needs }) => inputs.slice(0, 4).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: 'f32' as const })),
  kernels({ inputs, attributes, target, read, write }) {
    const shape = shapeOf(inputs, attributes);
    const size = sizesOf(shape);
    const [wantsKeyValue, wantsScale, wantsWeight, wantsBias] = attributes.needs as [boolean, boolean, boolean, boolean];
    const outputs = [0, 1, 2, 3].filter((i) => attributes.needs[i]);
    const outputOf = (i: number) => write(outputs.indexOf(i));
    const [key, values, weight] = [keyValueRows('keyValue', shape, 0), keyValueRows('keyValue', shape, 1), weightRows('weight', shape)];
    const outputGradient = keyRows('dkeys', shape);
    const projectedGradient: Bound = { name: 'dprojected', type: 'f32', binding: read(5) };
    const dispatches: Dispatch[] = [];

    if (wantsKeyValue) {
      const valueGradient = keyValueRows('dkeyValue', shape, 1);
      const { declarations, bindings } = bind([boundRows(weight, read(2)), projectedGradient, boundRows(valueGradient, outputOf(0))]);
      const { source, workgroups } = foldValueGradientKernel(shape, declarations, { weight, valueGradient }, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: size.product, bytes: 4 * (size.keys + size.weights + size.projected) });
    }
    if (wantsWeight) {
      const weightGradient = weightRows('dweight', shape);
      const { declarations, bindings } = bind([boundRows(values, read(0)), projectedGradient, boundRows(weightGradient, outputOf(2))]);
      const { source, workgroups } = foldWeightGradientKernel(shape, declarations, { values, weightGradient }, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: size.product, bytes: 4 * (size.keys + size.weights + size.projected) });
    }
    if (wantsKeyValue || wantsScale || wantsBias) {
      const keyGradient = wantsKeyValue ? keyValueRows('dkeyValue', shape, 0) : undefined;
      const { declarations, bindings } = bind([
        ...(wantsKeyValue || wantsScale ? [boundRows(key, read(0)), boundRows(outputGradient, read(4))] : []),
        ...(keyGradient ? [{ name: 'learnScale', type: 'f32', binding: read(1) }, boundRows(keyGradient, outputOf(0))] : []),
        ...(wantsScale ? [{ name: 'dscale', type: 'f32', binding: outputOf(1) }] : []),
        ...(wantsBias ? [projectedGradient, { name: 'dbias', type: 'f32', binding: outputOf(3) }] : []),
      ]);
      const { source, workgroups } = foldRowsGradientKernel(shape, declarations, { key, outputGradient, keyGradient, wantsScale, wantsBias }, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: 8 * size.keys, bytes: 12 * size.keys });
    }
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const shape = shapeOf(specs, attributes);
    const { channels } = shape;
    const [keysGradient, projectedGradient] = [inputs[4]!, inputs[5]!];
    const [keyValue, scales, weight, bias] = inputs.slice(0, 4).map((x) => new Float64Array(x.length)) as [Float64Array, Float64Array, Float64Array, Float64Array];
    forEachHeadRow(shape, inputs, ({ key, value, scale, keyAt, valueAt, scaleAt, keysAt, projectedAt, weightRow }) => {
      for (let c = 0; c < channels; c++) {
        const g = projectedGradient[projectedAt + c]!;
        addTo(keyValue.subarray(valueAt, valueAt + value.length), g, weightRow(inputs[2]!, c));
        addTo(weightRow(weight, c), g, value);
      }
      const g = keysGradient.subarray(keysAt, keysAt + key.length);
      const norm = clampedNorm(key);
      const along = dot(key, g) / norm;
      scales[scaleAt]! += along;
      const back = Math.sqrt(dot(key, key)) >= normalizeEpsilon ? along / norm : 0;
      addTo(keyValue.subarray(keyAt, keyAt + key.length), scale / norm, g.map((value, i) => value - back * key[i]!));
    });
    forEachBiasRow(shape, (biasAt, projectedAt) => addTo(bias.subarray(biasAt, biasAt + channels), 1, projectedGradient.subarray(projectedAt, projectedAt + channels)));
    return [keyValue, scales, weight, bias].filter((_, i) => attributes.needs[i]);
  },
};

export interface FoldPrototypesInputs {
  /** [D, B, M, 2 C] of D decoder blocks: keys in channels 0 .. C - 1, values in C .. 2 C - 1; head h owns channels h d .. h d + d - 1 of each, d = C / numHeads. */
  readonly keyValue: Tensor;
  /** [D, at least numHeads]. What follows a block's values, here and below, is never read, and its gradient is 0. */
  readonly learnScale: Tensor;
  /** [D, at least C C]: the projection's weight [C, C] of each block, row-major. */
  readonly weight: Tensor;
  /** [D, at least C]: its bias. */
  readonly bias: Tensor;
  readonly numHeads: number;
}

/**
 * What {@link foldedAttention} reads of the prototypes.
 * @returns keys [D, B, M, C]: over their norms, times learnScale. projected [D, B, M numHeads + 1, C]: row h M + m is the
 * projected value of head h and prototype m, the last row the bias.
 * @throws UsageError where the tensors don't fit together
 */
export function foldPrototypes({ keyValue, learnScale, weight, bias, numHeads }: FoldPrototypesInputs): { keys: Tensor; projected: Tensor } {
  const [keys, projected] = apply(foldPrototypesOperation, [keyValue, learnScale, weight, bias], { numHeads });
  return { keys: keys!, projected: projected! };
}
