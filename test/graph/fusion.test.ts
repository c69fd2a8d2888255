// What becomes one kernel and what must not: the report of compiled plans, without a GPU.
import { describe, expect, it } from 'vitest';
import { defaultTarget } from '../../src/gpu/target.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { compile, type CompileOptions } from '../../src/graph/plan.ts';
import { apply, input, parameter, type Tensor } from '../../src/graph/tensor.ts';
import { add, gelu, layerNorm, layerScale, linear, reshape } from '../../src/ops/index.ts';

const [rows, columns, depth] = [5, 12, 8];
const x = () => input('x', [rows, depth]);
const dense = (of: Tensor, name = 'w', width = columns) => linear(of, parameter(`${name}.weight`, [width, of.shape.at(-1)!]), parameter(`${name}.bias`, [width]));
const operationsOf = (outputs: Record<string, Tensor>, options: Partial<CompileOptions> = {}) =>
  compile({ target: defaultTarget, outputs, ...options }).report.nodes.map((n) => n.op);

describe('fusion', () => {
  it('makes linear and gelu one kernel', () => {
    expect(operationsOf({ y: gelu(dense(x())) })).toEqual(['matmul+gelu']);
    expect(compile({ target: defaultTarget, outputs: { y: gelu(dense(x())) } }).report.kernels).toBe(1);
  });

  it('makes linear, layerScale and the residual one kernel, on either side of the sum', () => {
    const residual = () => input('residual', [rows, columns]);
    expect(operationsOf({ y: add(residual(), layerScale(dense(x()), parameter('gamma', [columns]))) })).toEqual(['matmul+layerScale+add']);
    expect(operationsOf({ y: add(layerScale(dense(x()), parameter('gamma', [columns])), residual()) })).toEqual(['matmul+layerScale+add']);
  });

  it('can be turned off', () => {
    expect(operationsOf({ y: gelu(dense(x())) }, { fusion: false })).toEqual(['matmul', 'gelu']);
  });

  it('writes what is read elsewhere as well, where the kernel has a binding for it', () => {
    const h = dense(x());
    expect(operationsOf({ y: add(gelu(h), h) })).toEqual(['matmul+gelu', 'add']);
    // x, weight, bias, and both outputs: five.
    expect(operationsOf({ y: add(gelu(h), h) }, { target: { ...defaultTarget, maxStorageBuffersPerShaderStage: 4 } })).toEqual(['matmul', 'gelu', 'add']);
    const normed = layerNorm(x(), parameter('norm.weight', [depth]), parameter('norm.bias', [depth]), 1e-6);
    expect(operationsOf({ y: add(gelu(normed), normed) })).toEqual(['layerNorm', 'gelu', 'add']);
    const twice = dense(x());
    expect(operationsOf({ y: add(twice, twice) })).toEqual(['matmul', 'add']);
  });

  it('writes what is an output or an effect as well, once', () => {
    const h = dense(x());
    expect(operationsOf({ y: gelu(h), h })).toEqual(['matmul+gelu']);
    const effect = dense(x());
    expect(operationsOf({ y: gelu(effect) }, { effects: [effect] })).toEqual(['matmul+gelu']);
    const first = dense(x());
    const second = gelu(first);
    expect(operationsOf({ first, second, y: gelu(second) })).toEqual(['matmul+gelu', 'gelu']);
  });

  it('takes a sum into the product that is made last, so that what the other one reads is free early', () => {
    const leaf = x();
    const first = dense(leaf, 'first');
    const between = gelu(leaf);
    const last = dense(leaf, 'last');
    expect(operationsOf({ y: add(first, last), between })).toEqual(['matmul', 'gelu', 'matmul+add']);
    expect(operationsOf({ y: add(last, first), between })).toEqual(['matmul', 'gelu', 'matmul+add']);
  });

  it('does not move a producer past a reader of its value', () => {
    const h = dense(x());
    const reader = reshape(h, [columns, rows]);
    const other = gelu(reader);
    expect(operationsOf({ y: gelu(h), other })).toEqual(['matmul', 'gelu', 'gelu']);
  });

  it('does not reach through another shape', () => {
    expect(operationsOf({ y: gelu(reshape(dense(x()), [columns, rows])) })).toEqual(['matmul', 'gelu']);
  });

  it('stops at the number of bindings that a kernel may have', () => {
    const residuals = ['a', 'b', 'c', 'd'].map((name) => input(name, [rows, columns]));
    const chain = () => residuals.reduce((sum, r) => add(sum, r), dense(x()));
    // x, weight, bias, four residuals and the output: eight.
    expect(operationsOf({ y: chain() })).toEqual(['matmul+add+add+add+add']);
    expect(operationsOf({ y: chain() }, { target: { ...defaultTarget, maxStorageBuffersPerShaderStage: 6 } })).toEqual(['matmul+add+add', 'add', 'add']);
  });

  it('leaves a producer alone whose parameter changes before the step that would take it in', () => {
    const p = parameter('p', [columns, depth]);
    const increment: Operation<null> = {
      name: 'increment', mutates: [0],
      outputs: () => [{ shape: [1], dtype: 'f32' }],
      kernels: () => [],
      reference: () => [new Float64Array(1)],
    };
    const before = linear(x(), p);
    const changed = apply(increment, [p], null)[0]!;
    expect(operationsOf({ y: gelu(before) }, { effects: [changed] })).toEqual(['matmul', 'gelu']);
  });

  it('removes what nobody asks for', () => {
    const leaf = x();
    gelu(leaf);
    dense(leaf, 'unused');
    const plan = compile({ target: defaultTarget, outputs: { y: gelu(leaf) } });
    expect(plan.report.nodes.map((n) => n.op)).toEqual(['gelu']);
    expect([...plan.parameters.keys()]).toEqual([]);
  });
});
