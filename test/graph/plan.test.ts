// Plans without a GPU: the report against figures worked out by hand, what is refused, and where concatenated tensors lie.
import { describe, expect, it } from 'vitest';
import { AllocationError, UsageError } from '../../src/errors.ts';
import { defaultTarget } from '../../src/gpu/target.ts';
import { compile } from '../../src/graph/plan.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { apply, constant, input, parameter } from '../../src/graph/tensor.ts';
import { add, gelu, linear, pack, reshape } from '../../src/ops/index.ts';

const target = defaultTarget;

describe('the report', () => {
  // [6, 8] -> [6, 32] -> [6, 8] with a residual.
  const build = () => {
    const x = input('x', [6, 8]);
    const hidden = gelu(linear(x, parameter('fc1.weight', [32, 8]), parameter('fc1.bias', [32])));
    return add(linear(hidden, parameter('fc2.weight', [8, 32]), parameter('fc2.bias', [8])), x);
  };

  it('of a small MLP is what the hand works out', () => {
    const { report } = compile({ target, outputs: { y: build() } });
    expect(report.kernels).toBe(2);
    expect(report.submits).toBe(1);
    const product = 2 * 6 * 8 * 32;
    const first = product + 6 * 32 * (1 + 24); // bias, and gelu at 24 an element
    const second = product + 6 * 8 * (1 + 1); // bias and residual
    expect(report.nodes).toEqual([
      { name: 'linear', op: 'matmul+gelu', shape: [6, 32], kernels: 1, flops: first, bytes: 4 * (48 + 256 + 32 + 192) },
      { name: 'linear', op: 'matmul+add', shape: [6, 8], kernels: 1, flops: second, bytes: 4 * (192 + 256 + 8 + 48 + 48) },
    ]);
    expect(report.flops).toBe(first + second);
    expect(report.bytes).toBe(4 * (528 + 552));
    expect(report.parameterBytes).toBe(4 * (256 + 32 + 256 + 8));
    expect(report.constantBytes).toBe(0);
    // x lives throughout, with the hidden layer and then with y; written and read memory lie apart.
    expect(report.slabBytes).toBe(256 + 768 + 256);
    expect(report.peakBytes).toBe(report.slabBytes + report.parameterBytes);
    expect(report.largestBinding).toBe(4 * 256);
  });

  it('without fusion has a kernel a node, and as much arithmetic', () => {
    const { report } = compile({ target, outputs: { y: build() }, fusion: false });
    expect(report.nodes.map((n) => n.op)).toEqual(['matmul', 'gelu', 'matmul', 'add']);
    expect(report.kernels).toBe(4);
    expect(report.flops).toBe(compile({ target, outputs: { y: build() } }).report.flops);
  });

  it('is the same every time', () => {
    expect(compile({ target, outputs: { y: build() } }).report).toEqual(compile({ target, outputs: { y: build() } }).report);
  });
});

describe('compile refuses', () => {
  it('nothing to do', () => expect(() => compile({ target, outputs: {} })).toThrow(UsageError));

  it('two leaves of one name, but not one leaf used twice', () => {
    expect(() => compile({ target, outputs: { y: add(input('x', [4]), input('x', [4])) } })).toThrow(/Two leaves of the graph are called x/);
    expect(() => compile({ target, outputs: { y: add(input('x', [4]), parameter('x', [4])) } })).toThrow(UsageError);
    const x = input('x', [4]);
    expect(() => compile({ target, outputs: { y: add(x, x) } })).not.toThrow();
  });

  it('a tensor above the binding limit or the buffer limit, with the figures', () => {
    const y = () => gelu(input('x', [1024]));
    expect(() => compile({ target: { ...target, maxStorageBufferBindingSize: 4095 }, outputs: { y: y() } })).toThrow(AllocationError);
    expect(() => compile({ target: { ...target, maxStorageBufferBindingSize: 4095 }, outputs: { y: y() } })).toThrow(/gelu: a tensor of 4096 bytes.*4095/);
    expect(() => compile({ target: { ...target, maxBufferSize: 2048 }, outputs: { y: y() } })).toThrow(AllocationError);
    expect(() => compile({ target: { ...target, maxStorageBufferBindingSize: 4096 }, outputs: { y: y() } })).not.toThrow();
  });

  it('more workgroups or bindings than the adapter has', () => {
    expect(() => compile({ target: { ...target, maxComputeWorkgroupsPerDimension: 2 }, outputs: { y: gelu(input('x', [64 * 4 * 5])) } })).toThrow(/dispatches .* workgroups, the adapter allows 2/);
    expect(() => compile({ target: { ...target, maxStorageBuffersPerShaderStage: 2 }, outputs: { y: add(input('a', [4]), input('b', [4])) } })).toThrow(/binds 3 buffers, the adapter allows 2/);
  });

  it('an operation that changes what it did not say it would, or reads what it writes', () => {
    const misbehaving = (kernels: Operation<null>['kernels']): Operation<null> => ({
      name: 'misbehaving', outputs: () => [{ shape: [4], dtype: 'f32' }], kernels, reference: () => [new Float64Array(4)],
    });
    const kernel = { file: '', label: 'k', code: '', lines: [] };
    const dispatch = { kernel, workgroups: [1, 1, 1] as const, flops: 0, bytes: 0 };
    const changing = apply(misbehaving(({ update }) => [{ ...dispatch, bindings: [update(0)] }]), [parameter('p', [4])], null)[0]!;
    expect(() => compile({ target, outputs: { changing } })).toThrow(/misbehaving changes input 0 without saying so/);
    const both = apply(misbehaving(({ readBack, write }) => [{ ...dispatch, bindings: [readBack(0), write(0)] }]), [parameter('p', [4])], null)[0]!;
    expect(() => compile({ target, outputs: { both } })).toThrow(/reads and writes misbehaving in one dispatch/);
  });
});

describe('a concatenation', () => {
  const node = (op: string, outputs: Parameters<typeof compile>[0]['outputs']) => compile({ target, outputs }).report.nodes.find((n) => n.op === op);

  it('is written in place by what is computed, and copies the rest', () => {
    const x = input('x', [64]);
    expect(node('pack', { y: pack([gelu(x), reshape(gelu(gelu(x)), [8, 8])], [0, 64], 128) })).toBeUndefined();
    expect(node('pack', { y: pack([gelu(x), x, constant('c', [3], Float32Array.of(1, 2, 3))], [0, 64, 128], 192) })).toMatchObject({ kernels: 2 });
  });

  it('copies what lies in another one, or in this one already', () => {
    const [a, b] = [gelu(input('x', [64])), gelu(input('y', [64]))];
    const plan = compile({ target, outputs: { first: pack([a, b], [0, 64], 128), second: pack([b, a], [0, 64], 128), twice: pack([gelu(a), b, b], [0, 64, 128], 192) } });
    expect(plan.report.nodes.filter((n) => n.op === 'pack').map((n) => n.kernels)).toEqual([2, 2]);
  });

  it('shares its place with the parts that are outputs themselves', () => {
    const part = gelu(input('x', [64]));
    const { outputs } = compile({ target, outputs: { part, whole: pack([gelu(input('y', [64])), part], [0, 64], 128) } });
    const [at, whole] = [outputs.get('part')!.location, outputs.get('whole')!.location];
    expect(at).toEqual({ ...whole, offset: whole.offset + 256 });
  });

  it('copies a part that another part is computed from', () => {
    const a = gelu(input('x', [64]));
    const b = gelu(a);
    expect(node('pack', { y: pack([a, b], [0, 64], 128) })).toMatchObject({ kernels: 1 });
    expect(node('pack', { y: pack([b, a], [0, 64], 128) })).toMatchObject({ kernels: 1 });
  });
});
