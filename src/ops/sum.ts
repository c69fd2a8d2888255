/**
 * Reductions in a fixed order: factor * sum(x), with the mean as factor = 1 / size; and sums over an image's tokens.
 * Their gradients are broadcasts, and the broadcasts' gradients are sums again.
 */
import { chunkLength, mapKernel, sumKernel, tokenSumKernel } from '../../shaders/reduction.wgsl.ts';
import { UsageError } from '../errors.ts';
import { f32 } from '../gpu/wgsl.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Shape, type Tensor } from '../graph/tensor.ts';
import { add } from './add.ts';

/** [1] = factor * sum of all elements */
export const sumOperation: Operation<{ factor: number }> = {
  name: 'sum',
  outputs: () => [{ shape: [1], dtype: 'f32' }],
  kernels({ inputs: [x], attributes: { factor }, target, read, write, scratch }) {
    const count = sizeOf(x!.shape);
    const chunks = Math.ceil(count / chunkLength);
    const scaled = (sum: string) => (factor === 1 ? sum : `${f32(factor)} * ${sum}`);
    const last = (n: number) => sumKernel({ label: `sum ${n}`, count: n, chunk: n, target, result: scaled });
    if (chunks === 1) {
      const { source, workgroups } = last(count);
      return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: count, bytes: 4 * (count + 1) }];
    }
    const partial = scratch(4 * chunks);
    const first = sumKernel({ label: `sum ${count} in chunks`, count, chunk: chunkLength, target, result: (sum) => sum });
    const second = last(chunks);
    return [
      { kernel: first.source, workgroups: first.workgroups, bindings: [read(0), partial.write], flops: count, bytes: 4 * (count + chunks) },
      { kernel: second.source, workgroups: second.workgroups, bindings: [partial.read, write(0)], flops: chunks, bytes: 4 * (chunks + 1) },
    ];
  },
  gradient: ({ inputs: [x], outputGradients: [g], attributes: { factor } }) => [broadcast(g!, x!.shape, factor)],
  reference: ([x], { attributes: { factor } }) => [Float64Array.of(factor * x!.reduce((sum, v) => sum + v, 0))],
};

/** y[..] = factor * x[0] */
export const broadcastOperation: Operation<{ shape: Shape; factor: number }> = {
  name: 'broadcast',
  outputs([x], { shape }) {
    if (sizeOf(x!.shape) !== 1) throw new UsageError(`broadcast: expected a tensor of one element, got [${x!.shape.join(', ')}].`);
    return [{ shape, dtype: 'f32' }];
  },
  kernels({ attributes: { shape, factor }, target, read, write }) {
    const count = sizeOf(shape);
    const { source, workgroups } = mapKernel({ label: `broadcast [${shape.join(', ')}]`, count, inputs: ['f32'], target, value: `${f32(factor)} * x0[0]` });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: count, bytes: 4 * (count + 1) }];
  },
  gradient: ({ outputGradients: [g], attributes: { factor } }) => [sum(g!, factor)],
  reference: ([x], { attributes: { shape, factor } }) => [new Float64Array(sizeOf(shape)).fill(factor * x![0]!)],
};

/** [B, K] = sum over the tokens of [B, N, K] */
export const sumTokensOperation: Operation<null> = {
  name: 'sumTokens',
  outputs([x]) {
    if (x!.shape.length !== 3) throw new UsageError(`sumTokens: expected [B, N, K], got [${x!.shape.join(', ')}].`);
    return [{ shape: [x!.shape[0]!, x!.shape[2]!], dtype: 'f32' }];
  },
  kernels({ inputs: [x], target, read, write }) {
    const [batch, tokens, columns] = x!.shape as [number, number, number];
    const { source, workgroups } = tokenSumKernel({ label: `sumTokens [${x!.shape.join(', ')}]`, batch, tokens, columns, target });
    const count = batch * tokens * columns;
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: count, bytes: 4 * (count + batch * columns) }];
  },
  gradient: ({ inputs: [x], outputGradients: [g] }) => [repeatTokens(g!, x!.shape[1]!)],
  reference([x], { inputs: [spec] }) {
    const [batch, tokens, columns] = spec!.shape as [number, number, number];
    return [Float64Array.from({ length: batch * columns }, (_, i) => {
      let sum = 0;
      for (let n = 0; n < tokens; n++) sum += x![(Math.floor(i / columns) * tokens + n) * columns + (i % columns)]!;
      return sum;
    })];
  },
};

/** [B, N, K]: [B, K] for every token */
export const repeatTokensOperation: Operation<{ tokens: number }> = {
  name: 'repeatTokens',
  outputs([x], { tokens }) {
    if (x!.shape.length !== 2) throw new UsageError(`repeatTokens: expected [B, K], got [${x!.shape.join(', ')}].`);
    return [{ shape: [x!.shape[0]!, tokens, x!.shape[1]!], dtype: 'f32' }];
  },
  kernels({ inputs: [x], outputs: [y], attributes: { tokens }, target, read, write }) {
    const columns = x!.shape[1]!;
    const count = sizeOf(y!.shape);
    const { source, workgroups } = mapKernel({
      label: `repeatTokens [${y!.shape.join(', ')}]`, count, inputs: ['f32'], target,
      value: `x0[(i / ${tokens * columns}u) * ${columns}u + i % ${columns}u]`,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 0, bytes: 4 * (count + sizeOf(x!.shape)) }];
  },
  gradient: ({ outputGradients: [g] }) => [sumTokens(g!)],
  reference([x], { inputs: [spec], outputs: [y], attributes: { tokens } }) {
    const columns = spec!.shape[1]!;
    return [Float64Array.from({ length: sizeOf(y!.shape) }, (_, i) => x![Math.floor(i / (tokens * columns)) * columns + (i % columns)]!)];
  },
};

/** factor * (sum of all elements), [1]. */
export function sum(x: Tensor, factor = 1): Tensor {
  return apply(sumOperation, [x], { factor })[0]!;
}

/** Mean of all elements, [1]. */
export function mean(x: Tensor): Tensor {
  return sum(x, 1 / sizeOf(x.shape));
}

/** Mean over all elements of several tensors together, [1]: what a batch cut into slices needs. */
export function meanOverAll(tensors: readonly Tensor[]): Tensor {
  const count = tensors.reduce((total, t) => total + sizeOf(t.shape), 0);
  return tensors.map((t) => sum(t, 1 / count)).reduce(add);
}

/** factor * x, x of one element, as a tensor of the given shape. */
export function broadcast(x: Tensor, shape: Shape, factor = 1): Tensor {
  return apply(broadcastOperation, [x], { shape, factor })[0]!;
}

/** Sum over the tokens of [B, N, K], [B, K]; meant for small K. */
export function sumTokens(x: Tensor): Tensor {
  return apply(sumTokensOperation, [x], null)[0]!;
}

/** [B, K] repeated for each of `tokens` tokens, [B, N, K]. */
export function repeatTokens(x: Tensor, tokens: number): Tensor {
  return apply(repeatTokensOperation, [x], { tokens })[0]!;
}
