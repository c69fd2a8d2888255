// Differentiation as a graph transformation, checked on the CPU: gradients by the reference interpreter against
// central differences of the same interpreter.
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { differentiate } from '../../src/graph/autograd.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { apply, constant, input, reachableNodes, sizeOf, type Tensor } from '../../src/graph/tensor.ts';
import { add, gelu, linear, reshape, scale, sum } from '../../src/ops/index.ts';

const one = () => constant('one', [1], Float32Array.of(1));
const gradientsOf = (loss: Tensor, wanted: readonly Tensor[]) => differentiate([{ tensor: loss, gradient: one() }], wanted, add);

/** Gradients of a scalar against central differences, at random values. */
function expectGradients(loss: Tensor, wanted: readonly Tensor[]): void {
  const random = new Random('autograd');
  const leaves = reachableNodes([loss]).filter((n) => n.kind === 'input').map((n) => n.outputs[0]!);
  const values = new Map(leaves.map((t) => [t.node.name, Float64Array.from({ length: sizeOf(t.shape) }, () => random.normal())]));
  const found = interpret(gradientsOf(loss, wanted), values);
  wanted.forEach((tensor, n) => {
    const point = values.get(tensor.node.name)!;
    const expected = point.map((middle, i) => {
      const [above, below] = [1e-6, -1e-6].map((step) => {
        point[i] = middle + step;
        return interpret([loss], values)[0]![0]!;
      });
      point[i] = middle;
      return (above! - below!) / 2e-6;
    });
    expect(found[n]!.length).toBe(point.length);
    found[n]!.forEach((g, i) => expect(g).toBeCloseTo(expected[i]!, 6));
  });
}

describe('differentiate', () => {
  it('sums what meets in a diamond', () => {
    const x = input('x', [3, 4]);
    const h = gelu(x);
    expectGradients(sum(add(scale(h, 3), gelu(h))), [x]);
  });

  it('counts every use of a tensor', () => {
    const x = input('x', [4, 4]);
    expectGradients(sum(linear(add(x, add(x, x)), x)), [x]);
  });

  it('goes on past a wanted tensor to those before it', () => {
    const x = input('x', [2, 3]);
    const h = gelu(x);
    const loss = sum(gelu(h));
    const [byH, byX] = gradientsOf(loss, [h, x]);
    const values = new Map([['x', Float64Array.of(0.3, -1, 2, 0.1, -0.4, 1)]]);
    const [g, found] = interpret([byH!, byX!], values);
    const [expected] = interpret(gradientsOf(sum(gelu(x)), [x]), values);
    interpret([h], values)[0]!.forEach((_, i) => expect(g![i]).toBeDefined());
    // The chain rule by hand: dx = gelu'(x) dh.
    found!.forEach((v, i) => expect(v).toBeCloseTo(expected![i]! * g![i]!, 12));
  });

  it('works through several wanted, shared and repeated tensors', () => {
    const [x, w, b] = [input('x', [3, 4]), input('w', [5, 4]), input('b', [5])];
    const loss = sum(gelu(linear(gelu(x), w, b)));
    expectGradients(loss, [x, w, b]);
    const [first, second] = gradientsOf(loss, [w, w]);
    expect(first).toBe(second);
  });

  it('takes several seeds, each with its own gradient', () => {
    const x = input('x', [2, 2]);
    const [a, b] = [scale(x, 2), reshape(gelu(x), [4])];
    const gradients = differentiate([
      { tensor: a, gradient: constant('ga', [2, 2], Float32Array.of(1, 2, 3, 4)) },
      { tensor: b, gradient: constant('gb', [4], Float32Array.of(0, 0, 0, 0)) },
    ], [x], add);
    expect([...interpret(gradients, new Map([['x', [1, 2, 3, 4]]]))[0]!]).toEqual([2, 4, 6, 8]);
  });

  it('passes on only the outputs that something flows from, and says what is needed', () => {
    const asked: { flows: boolean[]; needs: readonly boolean[] }[] = [];
    const split: Operation<null> = {
      name: 'split',
      outputs: () => [{ shape: [2], dtype: 'f32' }, { shape: [2], dtype: 'f32' }],
      kernels: () => [],
      gradient: ({ outputGradients, needs }) => {
        asked.push({ flows: outputGradients.map((g) => g !== undefined), needs });
        return [outputGradients[0], undefined];
      },
      reference: ([x, y]) => [x!, y!],
    };
    const [x, y] = [input('x', [2]), input('y', [2])];
    const [first] = apply(split, [x, y], null);
    gradientsOf(sum(first!), [x]);
    expect(asked).toEqual([{ flows: [true, false], needs: [true, false] }]);
  });

  it('does not walk where nothing is wanted', () => {
    const opaque: Operation<null> = { name: 'opaque', outputs: ([x]) => [x!], kernels: () => [], reference: ([x]) => [x!] };
    const [x, frozen] = [input('x', [2]), input('frozen', [2])];
    const loss = sum(add(gelu(x), apply(opaque, [frozen], null)[0]!));
    expect(() => gradientsOf(loss, [x])).not.toThrow();
    expect(() => gradientsOf(loss, [frozen])).toThrow(/opaque.*has no gradient/);
  });

  it('refuses a tensor that the loss does not depend on, and a gradient of the wrong shape', () => {
    const [x, other] = [input('x', [2]), input('other', [2])];
    expect(() => gradientsOf(sum(x), [other])).toThrow(UsageError);
    expect(() => gradientsOf(sum(x), [other])).toThrow(/does not depend on other/);
    expect(() => differentiate([{ tensor: x, gradient: one() }], [x], add)).toThrow(/shape \[1\], expected \[2\]/);
  });
});
