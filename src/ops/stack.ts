/**
 * Tensors of one shape in one memory, a row each, and back: so that small work which is the same for several layers
 * (the prototypes' side of all decoder blocks) is done for all of them in one dispatch. Neither copies anything where
 * the rows can be bound alone.
 */
import { clearGapsKernel, copyKernel } from '../../shaders/optimizer.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Dispatch, Operation } from '../graph/operation.ts';
import { apply, constant, sizeOf, type Shape, type Tensor } from '../graph/tensor.ts';

/** Output [D, stride]; gaps between the rows are 0. */
export const stackOperation: Operation<{ shape: Shape }> = {
  name: 'stack',
  concatenation: (inputs, { shape }) => inputs.map((_, i) => (i * sizeOf(shape)) / inputs.length),
  outputs(inputs, { shape }) {
    const fits = inputs.length > 0 && shape[0] === inputs.length && inputs.every((t) => t.shape.join() === inputs[0]!.shape.join() && sizeOf(t.shape) * inputs.length <= sizeOf(shape));
    if (!fits) throw new UsageError(`stack: ${inputs.map((t) => `[${t.shape.join(', ')}]`).join(', ')} are no rows of [${shape.join(', ')}].`);
    return [{ shape, dtype: 'f32' }];
  },
  kernels({ inputs, placed, attributes: { shape }, target, read, write }) {
    const count = sizeOf(inputs[0]!.shape);
    const stride = sizeOf(shape) / inputs.length;
    const dispatches: Dispatch[] = inputs.flatMap((_, i) => {
      if (placed[i]) return [];
      const { source, workgroups } = copyKernel({ label: `stack ${count} at ${i * stride}`, count, offset: i * stride, target });
      return [{ kernel: source, workgroups, bindings: [read(i), write(0)], flops: 0, bytes: 8 * count }];
    });
    if (stride > count) {
      const { source, workgroups } = clearGapsKernel({ label: `stack, gaps of ${inputs.length} x ${stride - count}`, rows: inputs.length, length: count, stride, target });
      dispatches.push({ kernel: source, workgroups, bindings: [write(0)], flops: 0, bytes: 4 * inputs.length * (stride - count) });
    }
    return dispatches;
  },
  gradient: ({ inputs, outputGradients: [g] }) => unstack(g!, inputs[0]!.shape),
  reference(inputs, { attributes: { shape } }) {
    const y = new Float64Array(sizeOf(shape));
    inputs.forEach((x, i) => y.set(x, (i * y.length) / inputs.length));
    return [y];
  },
};

/** Outputs: the beginnings of the input's rows, one of `shape` each. */
export const unstackOperation: Operation<{ shape: Shape }> = {
  name: 'unstack',
  alias: ([x]) => Array.from({ length: x!.shape[0]! }, (_, i) => (i * sizeOf(x!.shape)) / x!.shape[0]!),
  outputs([x], { shape }) {
    const [rows] = x!.shape as [number];
    if (sizeOf(shape) * rows > sizeOf(x!.shape)) throw new UsageError(`unstack: the rows of [${x!.shape.join(', ')}] are too short for [${shape.join(', ')}].`);
    return Array.from({ length: rows }, () => ({ shape, dtype: x!.dtype }));
  },
  kernels({ inputs: [x], outputs, attributes: { shape }, target, read, write }) {
    const count = sizeOf(shape);
    return outputs.map((_, i) => {
      const offset = (i * sizeOf(x!.shape)) / outputs.length;
      const { source, workgroups } = copyKernel({ label: `unstack ${count} at ${offset}`, count, from: offset, target });
      return { kernel: source, workgroups, bindings: [read(0), write(i)], flops: 0, bytes: 8 * count };
    });
  },
  gradient({ inputs: [x], outputs, outputGradients }) {
    const rows = outputGradients.map((g, i) => g ?? constant('zeros', outputs[i]!.shape, new Float32Array(sizeOf(outputs[i]!.shape))));
    return [stack(rows, x!.shape)];
  },
  reference: ([x], { outputs }) => outputs.map(({ shape }, i) => x!.slice((i * x!.length) / outputs.length, (i * x!.length) / outputs.length + sizeOf(shape))),
};

/**
 * @param tensors D tensors of one shape
 * @param shape [D, ..], default [D, ..tensor]: its rows may be longer than the tensors, with zeros after them
 */
export function stack(tensors: readonly Tensor[], shape: Shape = [tensors.length, ...tensors[0]!.shape]): Tensor {
  return apply(stackOperation, tensors, { shape })[0]!;
}

/**
 * @param x [D, ..]
 * @param shape of a row's beginning, default the whole row
 * @returns D tensors
 */
export function unstack(x: Tensor, shape: Shape = x.shape.slice(1)): Tensor[] {
  return [...apply(unstackOperation, [x], { shape })];
}
