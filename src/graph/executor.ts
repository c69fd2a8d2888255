/**
 * Replays a plan: slabs allocated once, bind groups made once, pipelines compiled in parallel; a run writes the
 * inputs, encodes one command buffer and submits once. Outputs are copied to staging memory in the same submit and
 * mapped later, so the next run can be queued before this one's results are read.
 */
import { UsageError } from '../errors.ts';
import { Usage, type GpuContext } from '../gpu/context.ts';
import { DeviceMemory, type DeviceTensor } from '../gpu/memory.ts';
import type { CompiledKernel } from '../gpu/pipelines.ts';
import { roundUp } from '../gpu/target.ts';
import type { Location, Plan } from './plan.ts';
import type { DispatchTiming } from './profile.ts';
import { bytesOf, dataBytesOf, sizeOf, type TensorData, type TensorSpec } from './tensor.ts';

const arrayTypes = { f32: Float32Array, u32: Uint32Array, i32: Int32Array, f16: Uint16Array } as const;

interface EncodedDispatch {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly workgroups: readonly [number, number, number];
}

export class Executable {
  readonly plan: Plan;
  /** Submits made by runs so far. */
  submits = 0;
  private readonly context: GpuContext;
  private readonly dispatches: readonly EncodedDispatch[];
  private readonly slabs: readonly GPUBuffer[];
  private readonly constants: DeviceMemory | undefined;
  private readonly locate: (location: Location) => { buffer: GPUBuffer; offset: number };
  private readonly stagingPool: GPUBuffer[] = [];
  private disposed = false;

  private constructor(
    context: GpuContext, plan: Plan, dispatches: readonly EncodedDispatch[], slabs: readonly GPUBuffer[],
    constants: DeviceMemory | undefined, locate: (location: Location) => { buffer: GPUBuffer; offset: number },
  ) {
    this.context = context;
    this.plan = plan;
    this.dispatches = dispatches;
    this.slabs = slabs;
    this.constants = constants;
    this.locate = locate;
  }

  /**
   * Compiles the plan's pipelines and lays out its memory.
   * @param parameters memory for every parameter of the plan, by name; it stays the caller's.
   * @throws KernelError, AllocationError, DeviceLostError
   */
  static async prepare(context: GpuContext, plan: Plan, parameters: ReadonlyMap<string, DeviceTensor> = new Map()): Promise<Executable> {
    context.check();
    for (const [name, spec] of plan.parameters) {
      const bound = parameters.get(name);
      if (!bound) throw new UsageError(`The plan needs the parameter ${name} of shape [${spec.shape.join(', ')}]; none was given.`);
      if (bound.bytes < dataBytesOf(spec)) {
        throw new UsageError(`Parameter ${name} of shape [${spec.shape.join(', ')}] needs ${dataBytesOf(spec)} bytes, ${bound.bytes} are bound.`);
      }
    }
    const compiling = Executable.startCompiling(context, plan);
    const slabs = await context.createBuffers('slab', plan.slabs, Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST);
    let constants: DeviceMemory | undefined;
    try {
      if (plan.constants.length > 0) {
        constants = await DeviceMemory.allocate(context, 'constants', plan.constants.map((t, i) => [String(i), dataBytesOf(t)] as const));
        for (const [i, t] of plan.constants.entries()) constants.write(String(i), t.node.data!);
      }
      return await Executable.bind(context, plan, await compiling, slabs, constants, parameters);
    } catch (error) {
      for (const slab of slabs) context.destroyBuffer(slab);
      constants?.dispose();
      throw error;
    }
  }

  /** Has the plan's pipelines compiled, for a later {@link prepare}, which also tells what does not compile. */
  static startCompiling(context: GpuContext, plan: Plan): Promise<CompiledKernel[]> {
    const compiling = Promise.all(plan.dispatches.map((d) => context.pipelines.get(d.kernel, d.bindings.map((b) => b.access))));
    compiling.catch(() => undefined);
    return compiling;
  }

  private static async bind(
    context: GpuContext, plan: Plan, kernels: readonly CompiledKernel[], slabs: readonly GPUBuffer[],
    constants: DeviceMemory | undefined, parameters: ReadonlyMap<string, DeviceTensor>,
  ): Promise<Executable> {
    const locate = (location: Location): { buffer: GPUBuffer; offset: number } => {
      if (location.kind === 'slab') return { buffer: slabs[location.slab]!, offset: location.offset };
      const bound = location.kind === 'parameter' ? parameters.get(location.name)! : constants!.tensors.get(String(location.index))!;
      return { buffer: bound.buffer, offset: bound.offset + location.offset };
    };
    const dispatches = await context.guarded('bind groups', () => plan.dispatches.map((d, i): EncodedDispatch => ({
      pipeline: kernels[i]!.pipeline,
      workgroups: d.workgroups,
      bindGroup: context.device.createBindGroup({
        label: d.kernel.label,
        layout: kernels[i]!.layout,
        entries: d.bindings.map((b, binding) => ({ binding, resource: { ...locate(b.location), size: b.bytes } })),
      }),
    })));
    return new Executable(context, plan, dispatches, slabs, constants, locate);
  }

  /**
   * One run: writes the inputs, submits once, and resolves with the outputs.
   * @param inputs a value for every input of the plan.
   * @param options.read names of the outputs wanted; default all.
   * @param options.before other plans' work, recorded first and sent in the same submit.
   * @throws UsageError for missing or misshaped inputs; KernelError for what the device refused; ReadbackError; DeviceLostError
   */
  async run(inputs: Readonly<Record<string, TensorData>> = {}, options: { read?: readonly string[]; before?: (encoder: GPUCommandEncoder) => void } = {}): Promise<Record<string, TensorData>> {
    this.context.check();
    const encoder = this.context.device.createCommandEncoder();
    options.before?.(encoder);
    this.record(encoder, inputs);
    return this.finish(encoder, options.read ?? [...this.plan.outputs.keys()]);
  }

  /**
   * Writes the inputs and records the plan's dispatches, for a submit of the caller's. The inputs are written at once,
   * so one executable can be recorded only once in a submit.
   */
  record(encoder: GPUCommandEncoder, inputs: Readonly<Record<string, TensorData>>): void {
    if (this.disposed) throw new UsageError('This plan was disposed of; prepare it again to run it.');
    this.writeInputs(inputs);
    const pass = encoder.beginComputePass();
    for (const d of this.dispatches) encodeDispatch(pass, d);
    pass.end();
  }

  /** Records a copy of an output into memory of the caller's. */
  copyOutput(encoder: GPUCommandEncoder, name: string, to: { buffer: GPUBuffer; offset: number }): void {
    const output = this.plan.outputs.get(name);
    if (!output) throw new UsageError(`The plan has no output ${name}; it has ${[...this.plan.outputs.keys()].join(', ')}.`);
    const { buffer, offset } = this.locate(output.location);
    encoder.copyBufferToBuffer(buffer, offset, to.buffer, to.offset, dataBytesOf(output.spec));
  }

  /** As {@link run}, with every dispatch timed by the GPU (needs `timestamp-query`). For benchmarks: timing costs time. */
  async profile(inputs: Readonly<Record<string, TensorData>> = {}): Promise<DispatchTiming[]> {
    const { timeDispatches } = await import('./profile.ts');
    this.context.check();
    this.writeInputs(inputs);
    return timeDispatches(this.context, this.plan, (pass, i) => encodeDispatch(pass, this.dispatches[i]!));
  }

  private writeInputs(inputs: Readonly<Record<string, TensorData>>): void {
    for (const name of Object.keys(inputs)) {
      if (!this.plan.inputs.has(name)) throw new UsageError(`The plan has no input ${name}; it has ${[...this.plan.inputs.keys()].join(', ') || 'none'}.`);
    }
    for (const [name, { spec, location }] of this.plan.inputs) {
      const data = inputs[name];
      if (!data) throw new UsageError(`Input ${name} of shape [${spec.shape.join(', ')}] was not given.`);
      if (data.length !== sizeOf(spec.shape)) throw new UsageError(`Input ${name} of shape [${spec.shape.join(', ')}] needs ${sizeOf(spec.shape)} elements, got ${data.length}.`);
      if (!(data instanceof arrayTypes[spec.dtype])) throw new UsageError(`Input ${name} is ${spec.dtype} and needs a ${arrayTypes[spec.dtype].name}, got a ${(data as object).constructor.name}.`);
      const { buffer, offset } = this.locate(location);
      this.context.device.queue.writeBuffer(buffer, offset, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    }
  }

  private async finish(encoder: GPUCommandEncoder, read: readonly string[]): Promise<Record<string, TensorData>> {
    const wanted = read.map((name) => {
      const output = this.plan.outputs.get(name);
      if (!output) throw new UsageError(`The plan has no output ${name}; it has ${[...this.plan.outputs.keys()].join(', ')}.`);
      return { name, ...output };
    });
    const total = wanted.reduce((sum, o) => sum + bytesOf(o.spec), 0);
    const staging = total > 0 ? this.takeStaging(total) : undefined;
    let at = 0;
    for (const { spec, location } of wanted) {
      const { buffer, offset } = this.locate(location);
      encoder.copyBufferToBuffer(buffer, offset, staging!, at, roundUp(dataBytesOf(spec), 4));
      at += bytesOf(spec);
    }
    this.context.device.queue.submit([encoder.finish()]);
    this.submits++;
    if (!staging) return {};
    let bytes: ArrayBuffer;
    try {
      bytes = await this.context.readStaging(staging, total);
    } catch (error) {
      this.context.destroyBuffer(staging);
      throw error;
    }
    if (this.disposed) this.context.destroyBuffer(staging);
    else this.stagingPool.push(staging);
    at = 0;
    const results: Record<string, TensorData> = {};
    for (const { name, spec } of wanted) {
      results[name] = view(bytes, at, spec);
      at += bytesOf(spec);
    }
    return results;
  }

  private takeStaging(bytes: number): GPUBuffer {
    const i = this.stagingPool.findIndex((b) => b.size >= bytes);
    if (i >= 0) return this.stagingPool.splice(i, 1)[0]!;
    return this.context.createBuffer('staging', roundUp(bytes, 16), Usage.MAP_READ | Usage.COPY_DST);
  }

  /** Frees the plan's memory. Runs that were submitted before still end; later ones are refused. */
  dispose(): void {
    this.disposed = true;
    for (const buffer of [...this.slabs, ...this.stagingPool]) this.context.destroyBuffer(buffer);
    this.stagingPool.length = 0;
    this.constants?.dispose();
  }
}

function encodeDispatch(pass: GPUComputePassEncoder, d: EncodedDispatch): void {
  pass.setPipeline(d.pipeline);
  pass.setBindGroup(0, d.bindGroup);
  const [x, y, z] = d.workgroups;
  pass.dispatchWorkgroups(x, y, z);
}

function view(bytes: ArrayBuffer, offset: number, spec: TensorSpec): TensorData {
  return new arrayTypes[spec.dtype](bytes, offset, sizeOf(spec.shape));
}
