/**
 * StableAdamW over flat groups of tensors, as INP-Former's reference has it: gradients clipped to a joint norm, then
 * p *= 1 - lr wd; m, v, max v as in AMSGrad; d = sqrt(max v) / sqrt(1 - beta2^t) + eps; and
 * p -= lr / (1 - beta1^t) / max(1, rms(g / d)) * m / d with the rms over each tensor. Three dispatches serve all tensors.
 */
import { blockLength, momentsKernel, segmentScaleKernel, squaresKernel, updateKernel, type AdamConstants } from '../../shaders/optimizer.wgsl.ts';
import { sumKernel } from '../../shaders/reduction.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, constant, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import type { Segment } from './pack.ts';

/** Inputs: for each group its flat gradients and its block table. Output [1]: the joint L2 norm. */
export const gradientNormOperation: Operation<{ groups: readonly (readonly Segment[])[] }> = {
  name: 'gradientNorm',
  outputs(inputs, { groups }) {
    groups.forEach((segments, g) => checkSegments('gradientNorm', segments, inputs[2 * g]!));
    return [{ shape: [1], dtype: 'f32' }];
  },
  kernels({ inputs, attributes: { groups }, target, read, write, scratch }) {
    const counts = groups.map((_, g) => inputs[2 * g + 1]!.shape[0]!);
    const blocks = counts.reduce((a, b) => a + b, 0);
    const partial = scratch(4 * blocks);
    let base = 0;
    const squares = groups.map((segments, g) => {
      const elements = elementsOf(segments);
      const { source, workgroups } = squaresKernel({ label: `gradientNorm ${elements}`, blocks: counts[g]!, base, target });
      base += counts[g]!;
      return {
        kernel: source, workgroups, bindings: [read(2 * g), read(2 * g + 1), partial.write],
        flops: 2 * elements, bytes: 4 * (elements + 4 * counts[g]!),
      };
    });
    const { source, workgroups } = sumKernel({ label: `gradientNorm of ${blocks}`, count: blocks, chunk: blocks, target, result: (sum) => `sqrt(${sum})` });
    return [...squares, { kernel: source, workgroups, bindings: [partial.read, write(0)], flops: blocks, bytes: 4 * (blocks + 1) }];
  },
  reference(inputs, { attributes: { groups } }) {
    let squares = 0;
    groups.forEach((segments, g) => {
      for (const { offset, length } of segments) for (let i = offset; i < offset + length; i++) squares += inputs[2 * g]![i]! ** 2;
    });
    return [Float64Array.of(Math.sqrt(squares))];
  },
};

export interface StableAdamWOptions extends Partial<AdamConstants> {
  /** Where the tensors lie in the flat group. */
  readonly segments: readonly Segment[];
}

/** The reference implementation's settings. */
export const stableAdamWDefaults: AdamConstants = { beta1: 0.9, beta2: 0.999, epsilon: 1e-10, weightDecay: 1e-4, clipNorm: 0.1, clipThreshold: 1 };

/** Inputs: values, m, v, max v (changed in place), gradients, norm, schedule, block table, segment table. Output [segments]: max(1, rms / clipThreshold). */
export const stableAdamWOperation: Operation<AdamConstants & { segments: readonly Segment[] }> = {
  name: 'stableAdamW',
  mutates: [0, 1, 2, 3],
  outputs(inputs, { segments }) {
    inputs.slice(0, 5).forEach((t) => checkSegments('stableAdamW', segments, t));
    if (sizeOf(inputs[5]!.shape) !== 1 || sizeOf(inputs[6]!.shape) !== 4) {
      throw new UsageError(`stableAdamW: expected norm [1] and schedule [4], got [${inputs[5]!.shape.join(', ')}] and [${inputs[6]!.shape.join(', ')}].`);
    }
    return [{ shape: [segments.length], dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, readBack, write, update, scratch }) {
    const { segments } = attributes;
    const blocks = inputs[7]!.shape[0]!;
    const elements = elementsOf(segments);
    const partial = scratch(4 * blocks);
    const label = `stableAdamW ${elements}`;
    const moments = momentsKernel({ label: `${label} moments`, blocks, constants: attributes, target });
    const scales = segmentScaleKernel({ label: `${label} rms`, segments: segments.length, constants: attributes, target });
    const step = updateKernel({ label: `${label} update`, blocks, constants: attributes, target });
    return [
      {
        kernel: moments.source, workgroups: moments.workgroups,
        bindings: [read(4), read(5), read(6), read(7), update(1), update(2), update(3), partial.write],
        flops: 16 * elements, bytes: 4 * (7 * elements + 4 * blocks),
      },
      {
        kernel: scales.source, workgroups: scales.workgroups, bindings: [partial.read, read(8), write(0)],
        flops: blocks, bytes: 4 * (blocks + 4 * segments.length),
      },
      {
        kernel: step.source, workgroups: step.workgroups, bindings: [read(6), read(7), readBack(0), update(0), update(1), update(3)],
        flops: 8 * elements, bytes: 4 * (4 * elements + 3 * blocks),
      },
    ];
  },
  reference([, , second, maxSecond, gradients, norm, schedule], { attributes: { segments, beta2, epsilon, clipNorm, clipThreshold } }) {
    const clip = Math.min(1, clipNorm / (norm![0]! + 1e-6));
    return [Float64Array.from(segments, ({ offset, length }) => {
      let squares = 0;
      for (let i = offset; i < offset + length; i++) {
        const g = gradients![i]! * clip;
        const v = Math.max(maxSecond![i]!, beta2 * second![i]! + (1 - beta2) * g * g);
        squares += (g / (Math.sqrt(v) / schedule![2]! + epsilon)) ** 2;
      }
      return Math.max(1, Math.sqrt(squares / length) / clipThreshold);
    })];
  },
};

/** Joint L2 norm of the gradients of several flat groups, [1]. Only the segments count, not the padding between them. */
export function gradientNorm(groups: readonly { gradients: Tensor; segments: readonly Segment[] }[]): Tensor {
  const inputs = groups.flatMap(({ gradients, segments }) => [gradients, blockTable(segments)]);
  return apply(gradientNormOperation, inputs, { groups: groups.map((g) => g.segments) })[0]!;
}

/**
 * One optimiser step on a flat group of tensors; changes values and moments in place, so it must be built after
 * everything that reads the values (nodes run in the order in which they are made).
 * @param group values, firstMoment, secondMoment, maxSecondMoment: parameters [total]; gradients [total], unclipped;
 *   norm [1], the joint norm of all groups' gradients; schedule [4], an input written with {@link stableAdamWSchedule}
 * @returns each tensor's step limit max(1, rms(g / d) / clipThreshold), [segments]: name it among the plan's effects or outputs
 */
export function stableAdamW(
  group: { values: Tensor; firstMoment: Tensor; secondMoment: Tensor; maxSecondMoment: Tensor; gradients: Tensor; norm: Tensor; schedule: Tensor },
  { segments, ...options }: StableAdamWOptions,
): Tensor {
  const inputs = [
    group.values, group.firstMoment, group.secondMoment, group.maxSecondMoment, group.gradients, group.norm, group.schedule,
    blockTable(segments), segmentTable(segments),
  ];
  return apply(stableAdamWOperation, inputs, { ...stableAdamWDefaults, ...options, segments })[0]!;
}

/**
 * The scalars that change from step to step, for the input `schedule`: learning rate, 1 - beta1^t, sqrt(1 - beta2^t), 0.
 * @param t the optimiser's step, from 1
 */
export function stableAdamWSchedule(t: number, learningRate: number, { beta1, beta2 }: Pick<AdamConstants, 'beta1' | 'beta2'> = stableAdamWDefaults): Float32Array {
  return Float32Array.of(learningRate, 1 - beta1 ** t, Math.sqrt(1 - beta2 ** t), 0);
}

/** [blocks, 3] u32: start, length and segment of each block of at most 4096 elements. */
function blockTable(segments: readonly Segment[]): Tensor {
  const rows = segments.flatMap(({ offset, length }, segment) =>
    Array.from({ length: Math.ceil(length / blockLength) }, (_, b) => [offset + b * blockLength, Math.min(blockLength, length - b * blockLength), segment]));
  return constant('blocks', [rows.length, 3], Uint32Array.from(rows.flat()));
}

/** [segments, 3] u32: first block, number of blocks and length of each segment. */
function segmentTable(segments: readonly Segment[]): Tensor {
  let first = 0;
  const rows = segments.map(({ length }) => {
    const count = Math.ceil(length / blockLength);
    first += count;
    return [first - count, count, length];
  });
  return constant('segments', [rows.length, 3], Uint32Array.from(rows.flat()));
}

function elementsOf(segments: readonly Segment[]): number {
  return segments.reduce((sum, s) => sum + s.length, 0);
}

function checkSegments(name: string, segments: readonly Segment[], { shape }: TensorSpec): void {
  if (segments.length === 0) throw new UsageError(`${name}: a flat group needs at least one segment.`);
  for (const { offset, length } of segments) {
    if (length < 1 || offset < 0 || offset + length > sizeOf(shape)) {
      throw new UsageError(`${name}: segment ${offset}..${offset + length} does not lie in [${shape.join(', ')}].`);
    }
  }
}
