// The device: what is refused before it is tried, and that nothing that goes wrong on it stays silent: loss, failed
// maps, validation errors. Every test that breaks a device has its own.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { AllocationError, DeviceLostError, InpFormerError, KernelError, ReadbackError, UsageError } from '../../src/errors.ts';
import { GpuContext, Usage } from '../../src/gpu/context.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { compile } from '../../src/graph/plan.ts';
import { Executable } from '../../src/graph/executor.ts';
import { constant, input, parameter } from '../../src/graph/tensor.ts';
import { add, gelu } from '../../src/ops/index.ts';
import { Engine } from '../../src/engine.ts';
import { testGpu } from '../support/gpu.ts';

const owned: GpuContext[] = [];
async function freshContext(): Promise<GpuContext> {
  const context = await GpuContext.acquire({ gpu: await testGpu() });
  owned.push(context);
  return context;
}
afterEach(() => {
  for (const context of owned.splice(0)) context.dispose();
});

const prepareGelu = (context: GpuContext) => Executable.prepare(context, compile({ target: context.target, outputs: { y: gelu(input('x', [100])) } }));
const x = Float32Array.from({ length: 100 }, (_, i) => i / 50 - 1);

describe('acquiring', () => {
  it('takes the adapter\'s limits and says what it is', async () => {
    const { target, adapter } = await freshContext();
    expect(target.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 1024 * 1024);
    expect(adapter.limits['maxBufferSize']).toBe(target.maxBufferSize);
    expect(adapter.name.length).toBeGreaterThan(0);
    expect(target.family === 'gpu').toBe(!adapter.isSoftware);
  });

  it('rejects where there is no GPU object, no adapter or no device', async () => {
    await expect(GpuContext.acquire({})).rejects.toMatchObject({ code: 'no-adapter' });
    await expect(GpuContext.acquire({ gpu: { requestAdapter: async () => null } as unknown as GPU })).rejects.toMatchObject({ code: 'no-adapter' });
    const adapter = { limits: {}, features: new Set(), info: { description: 'broken' }, requestDevice: async () => { throw new Error('no device today'); } };
    await expect(GpuContext.acquire({ gpu: { requestAdapter: async () => adapter } as unknown as GPU }))
      .rejects.toMatchObject({ code: 'no-adapter', message: expect.stringContaining('no device today') });
  });

  it('uses an embedder\'s device, takes from it what it made there, and leaves it alive', async () => {
    const adapter = await (await testGpu()).requestAdapter();
    const device = await adapter!.requestDevice();
    const destroy = vi.spyOn(device, 'destroy');
    const engine = await Engine.create({ device });
    expect(engine.context.device).toBe(device);
    const executable = await prepareGelu(engine.context);
    const first = await executable.run({ x });
    expect(engine.context.allocatedBytes).toBeGreaterThan(0);
    engine.dispose();
    expect(engine.context.allocatedBytes).toBe(0);
    expect(destroy).not.toHaveBeenCalled();
    const again = await Engine.create({ device });
    const second = await prepareGelu(again.context);
    expect(await second.run({ x })).toEqual(first);
    second.dispose();
    destroy.mockRestore();
    device.destroy();
  });
});

describe('buffers', () => {
  it('above the limit are refused before they are tried, with the figures', async () => {
    const context = await freshContext();
    const create = vi.spyOn(context.device, 'createBuffer');
    const bytes = context.target.maxBufferSize + 16;
    expect(() => context.createBuffer('huge', bytes, Usage.STORAGE)).toThrow(AllocationError);
    expect(() => context.createBuffer('huge', bytes, Usage.STORAGE)).toThrow(new RegExp(`huge: ${bytes} bytes .*${context.target.maxBufferSize}`));
    expect(create).not.toHaveBeenCalled();
    await expect(context.createBuffers('some', [64, 64, bytes], Usage.STORAGE)).rejects.toThrow(AllocationError);
    expect(context.allocatedBytes).toBe(0);
  });

  it('are counted once, destroyed once or twice', async () => {
    const context = await freshContext();
    const buffer = context.createBuffer('b', 100, Usage.STORAGE);
    expect(context.allocatedBytes).toBe(112);
    context.destroyBuffer(buffer);
    context.destroyBuffer(buffer);
    expect(context.allocatedBytes).toBe(0);
  });

  it('hold what was written, tensor by tensor', async () => {
    const context = await freshContext();
    const memory = await DeviceMemory.allocate(context, 'memory', [['a', 20], ['b', 12]]);
    const a = Float32Array.of(1, 2, 3, 4, 5);
    memory.write('a', a);
    const read = await memory.read();
    expect(read.get('a')).toEqual(a);
    expect(read.get('b')).toEqual(new Float32Array(3));
    expect(() => memory.write('a', new Float32Array(4))).toThrow(UsageError);
    expect(() => memory.write('c', a)).toThrow(/No tensor called c/);
    await expect(DeviceMemory.allocate(context, 'twice', [['a', 4], ['a', 4]])).rejects.toThrow(UsageError);
    memory.dispose();
    expect(context.allocatedBytes).toBe(0);
  });

  it('are all given back when an executable is disposed of, also while it runs', async () => {
    const context = await freshContext();
    const memory = await DeviceMemory.allocate(context, 'parameters', [['p', 400]]);
    const before = context.allocatedBytes;
    const y = add(gelu(add(input('x', [100]), parameter('p', [100]))), constant('c', [100], x));
    const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { y } }), memory.tensors);
    expect(context.allocatedBytes).toBeGreaterThan(before);
    await executable.run({ x });
    const [one, two] = [executable.run({ x }), executable.run({ x })];
    executable.dispose();
    const results = await Promise.allSettled([one, two]);
    for (const result of results) if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(InpFormerError);
    expect(context.allocatedBytes).toBe(before);
    await expect(executable.run({ x })).rejects.toThrow(UsageError);
    executable.dispose();
    expect(context.allocatedBytes).toBe(before);
  });
});

describe('errors of the device', () => {
  it('inside a guarded call reject with its name', async () => {
    const context = await freshContext();
    await expect(context.guarded('my buffers', () => context.device.createBuffer({ size: 16, usage: 0xffff }))).rejects.toThrow(/my buffers: /);
    await expect(context.guarded('fine', () => 7)).resolves.toBe(7);
    await expect(context.guarded('thrown', () => { throw new RangeError('of mine'); })).rejects.toThrow(RangeError);
    expect(() => context.check()).not.toThrow();
  });

  it('of two guarded calls at a time are told apart', async () => {
    const context = await freshContext();
    const [good, bad] = await Promise.allSettled([
      context.guarded('good', () => 1),
      context.guarded('bad', () => context.device.createBuffer({ size: 16, usage: 0xffff })),
    ]);
    expect(good.status).toBe('fulfilled');
    expect(bad).toMatchObject({ status: 'rejected', reason: expect.objectContaining({ kernel: 'bad' }) });
  });

  it('in a run reject it, and are reported once', async () => {
    const context = await freshContext();
    const memory = await DeviceMemory.allocate(context, 'parameters', [['p', 400]]);
    const plan = compile({ target: context.target, outputs: { y: gelu(add(input('x', [100]), parameter('p', [100]))) } });
    const executable = await Executable.prepare(context, plan, memory.tensors);
    memory.dispose(); // the submit now uses a destroyed buffer, which WebGPU refuses
    const error = await executable.run({ x }).then(() => 'nothing', (e: unknown) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(() => context.check()).not.toThrow();
    executable.dispose();
    expect(context.allocatedBytes).toBe(0);
  });

  it('in mapping reject and never read as zeros', async () => {
    const context = await freshContext();
    const notMappable = context.createBuffer('not mappable', 64, Usage.STORAGE);
    await expect(context.readStaging(notMappable, 64)).rejects.toThrow(InpFormerError);
    const staging = context.createBuffer('staging', 64, Usage.MAP_READ | Usage.COPY_DST);
    const reading = context.readStaging(staging, 64);
    context.destroyBuffer(staging);
    await expect(reading).rejects.toThrow(ReadbackError);
  });
});

describe('a lost device', () => {
  it('rejects runs and readbacks in flight, and all later calls, with the reason', async () => {
    const context = await freshContext();
    const memory = await DeviceMemory.allocate(context, 'memory', [['a', 4 * 1024 * 1024]]);
    const executable = await prepareGelu(context);
    const heard = vi.fn();
    context.onLost(heard);
    const silenced = vi.fn();
    context.onLost(silenced)();
    const pending = [executable.run({ x }), executable.run({ x }), memory.read()];
    context.device.destroy();
    for (const result of await Promise.allSettled(pending)) {
      expect(result).toMatchObject({ status: 'rejected', reason: expect.any(DeviceLostError) });
      expect((result as PromiseRejectedResult).reason).toMatchObject({ code: 'device-lost', reason: 'destroyed' });
    }
    const later: (() => Promise<unknown>)[] = [
      () => executable.run({ x }), () => memory.read(), () => prepareGelu(context), () => context.guarded('x', () => 1),
      () => DeviceMemory.allocate(context, 'more', [['b', 16]]),
    ];
    for (const call of later) await expect(call()).rejects.toMatchObject({ code: 'device-lost', reason: 'destroyed' });
    await expect(executable.run({ x })).rejects.toBeInstanceOf(DeviceLostError);
    expect(() => context.check()).toThrow(DeviceLostError);
    expect(heard).toHaveBeenCalledTimes(1);
    expect(heard.mock.calls[0]![0]).toBeInstanceOf(DeviceLostError);
    expect(silenced).not.toHaveBeenCalled();
    const late = await new Promise((resolve) => context.onLost(resolve));
    expect(late).toBeInstanceOf(DeviceLostError);
    executable.dispose();
    memory.dispose();
    expect(context.allocatedBytes).toBe(0);
  });

  it('is what an engine\'s own dispose makes', async () => {
    const engine = await Engine.create({ gpu: await testGpu() });
    const executable = await prepareGelu(engine.context);
    const pending = executable.run({ x });
    engine.dispose();
    await expect(pending).rejects.toMatchObject({ code: 'device-lost', reason: 'destroyed' });
  });
});
