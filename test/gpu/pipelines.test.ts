// Pipelines on the adapter at hand: a kernel that does not compile is told by kernel, file, template line and text;
// plans with the same kernels share their pipelines.
import { expect, it } from 'vitest';
import { KernelError } from '../../src/errors.ts';
import { kernel, wgsl } from '../../src/gpu/wgsl.ts';
import { compile } from '../../src/graph/plan.ts';
import { Executable } from '../../src/graph/executor.ts';
import { apply, input } from '../../src/graph/tensor.ts';
import type { Operation } from '../../src/graph/operation.ts';
import { add, gelu } from '../../src/ops/index.ts';
import { testContext } from '../support/gpu.ts';

const faulty = (mistake: boolean) => kernel('faulty.wgsl.ts', 'faulty kernel', wgsl`
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
#if ${false}
const dropped = 1;
const alsoDropped = 2;
#endif
@compute @workgroup_size(1)
fn main() {
  #if ${mistake}
  y[0] = noSuchFunction(1.0f);
  #else
  y[0] = 1.0f;
  #endif
}
`);

it('names kernel, file, template line and text of what does not compile', async () => {
  const context = await testContext();
  const before = context.pipelines.size;
  const error = await context.pipelines.get(faulty(true), ['read_write']).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(KernelError);
  expect((error as KernelError).kernel).toBe('faulty kernel');
  expect((error as KernelError).message).toContain('Kernel faulty kernel, shaders/faulty.wgsl.ts, template line 10:');
  expect((error as KernelError).message).toContain('noSuchFunction');
  expect((error as KernelError).message).toContain('    y[0] = noSuchFunction(1.0f);');
  await context.device.queue.onSubmittedWorkDone();
  // Reported once, by the rejection; and not kept, so that a second try compiles again.
  expect(() => context.check()).not.toThrow();
  expect(context.pipelines.size).toBe(before);
});

it('names the kernel where its bindings do not fit what it declares', async () => {
  const context = await testContext();
  await expect(context.pipelines.get(faulty(false), ['read'])).rejects.toThrow(KernelError);
  await expect(context.pipelines.get(faulty(false), ['read'])).rejects.toThrow(/faulty kernel/);
  await expect(context.pipelines.get(faulty(false), ['read_write'])).resolves.toBeDefined();
});

it('rejects the preparation of a plan with such a kernel, and frees its memory', async () => {
  const context = await testContext();
  const operation: Operation<null> = {
    name: 'faulty',
    outputs: () => [{ shape: [4], dtype: 'f32' }],
    kernels: ({ write }) => [{ kernel: faulty(true), bindings: [write(0)], workgroups: [1, 1, 1], flops: 0, bytes: 16 }],
    reference: () => [new Float64Array(4)],
  };
  const before = context.allocatedBytes;
  const y = apply(operation, [input('x', [4])], null)[0]!;
  await expect(Executable.prepare(context, compile({ target: context.target, outputs: { y } }))).rejects.toThrow(/faulty kernel.*template line 10/s);
  expect(context.allocatedBytes).toBe(before);
});

it('shares pipelines between plans', async () => {
  const context = await testContext();
  const prepare = (x = input('x', [3, 7]), y = input('y', [3, 7])) =>
    Executable.prepare(context, compile({ target: context.target, outputs: { sum: add(gelu(x), y), once: gelu(y) } }));
  const first = await prepare();
  const { size } = context.pipelines;
  const second = await prepare();
  expect(context.pipelines.size).toBe(size);
  const inputs = { x: Float32Array.from({ length: 21 }, (_, i) => i / 7 - 1), y: Float32Array.from({ length: 21 }, (_, i) => 1 - i / 9) };
  expect(await second.run(inputs)).toEqual(await first.run(inputs));
  first.dispose();
  second.dispose();
});
