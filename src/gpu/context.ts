/**
 * The device and what the engine keeps per device: limits as a {@link Target}, the pipeline cache, buffers that are
 * refused before they fail, readbacks that reject, and device loss as a typed error. It knows no maths. The device
 * may come from `navigator.gpu`, from Dawn in Node, or from the program that embeds the engine.
 */
import { AdapterError, AllocationError, DeviceLostError, type InpFormerError, KernelError, ReadbackError } from '../errors.ts';
import { PipelineCache } from './pipelines.ts';
import { defaultTarget, roundUp, subgroupMatrixFeature, type SubgroupMatrix, type Target } from './target.ts';

export interface AdapterReport {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** One line for people. */
  readonly name: string;
  /** True for SwiftShader, llvmpipe and the like: correct, but 100 times slower than a GPU. */
  readonly isSoftware: boolean;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
}

export interface AcquireOptions {
  /** Where adapters come from; `navigator.gpu` or what Dawn's `create()` returns. */
  readonly gpu?: GPU;
  /** A device of the embedding program's own: used as it is and never destroyed by the engine. */
  readonly device?: GPUDevice;
  readonly powerPreference?: GPUPowerPreference;
}

const requestedLimits = [
  'maxStorageBufferBindingSize', 'maxBufferSize', 'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY', 'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupStorageSize', 'maxComputeWorkgroupsPerDimension',
] as const;
const requestedFeatures = ['shader-f16', 'subgroups', 'timestamp-query', subgroupMatrixFeature] as const;

export class GpuContext {
  readonly device: GPUDevice;
  readonly adapter: AdapterReport;
  readonly target: Target;
  readonly pipelines: PipelineCache;
  /** Bytes in buffers made through this context and not yet destroyed. */
  allocatedBytes = 0;
  private readonly live = new Set<GPUBuffer>();
  private readonly ownsDevice: boolean;
  private failure: InpFormerError | undefined;
  private readonly lossListeners = new Set<(error: DeviceLostError) => void>();

  private constructor(device: GPUDevice, adapter: AdapterReport, subgroupMatrix: SubgroupMatrix | undefined, ownsDevice: boolean) {
    this.device = device;
    this.adapter = adapter;
    this.ownsDevice = ownsDevice;
    this.target = targetOf(device, adapter, subgroupMatrix);
    this.pipelines = new PipelineCache(this);
    void device.lost.then((info) => {
      this.failure = new DeviceLostError(info.reason, `The GPU device was lost (${info.reason}): ${info.message || 'no details'}. ${lossAdvice(info.reason)}`);
      for (const listener of this.lossListeners) listener(this.failure as DeviceLostError);
    });
    device.addEventListener('uncapturederror', this.onUncapturedError);
  }

  private readonly onUncapturedError = (event: Event): void => {
    const { error } = event as GPUUncapturedErrorEvent;
    // Node has no global error classes of WebGPU: tell them apart by the constructor's name.
    this.failure ??= error.constructor.name === 'GPUOutOfMemoryError'
      ? new AllocationError(`The GPU is out of memory: ${error.message}`)
      : new KernelError('(unknown)', `WebGPU reported an error: ${error.message}`);
  };

  /** @throws AdapterError where there is no adapter, or none that gives a device. */
  static async acquire(options: AcquireOptions): Promise<GpuContext> {
    if (options.device) {
      const { device } = options;
      return new GpuContext(device, reportOf(device.adapterInfo, device.features, device.limits), await subgroupMatrixOf(device, device.adapterInfo), false);
    }
    const gpu = options.gpu;
    if (!gpu) throw new AdapterError('no-adapter', 'WebGPU is not available here: neither a GPU object nor a device was given.');
    const adapter = await gpu.requestAdapter({ powerPreference: options.powerPreference ?? 'high-performance' });
    if (!adapter) throw new AdapterError('no-adapter', 'WebGPU is available, but no adapter was found on this machine.');
    const requiredLimits = Object.fromEntries(requestedLimits.map((name) => [name, adapter.limits[name]]));
    const requiredFeatures = requestedFeatures.filter((f) => adapter.features.has(f));
    try {
      const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
      return new GpuContext(device, reportOf(adapter.info, device.features, device.limits), await subgroupMatrixOf(device, adapter.info), true);
    } catch (cause) {
      throw new AdapterError('no-adapter', `The adapter ${adapter.info.description} gave no device: ${String(cause)}`, { cause });
    }
  }

  /** Called once if the device is lost, or was; returns a function that stops listening. */
  onLost(listener: (error: DeviceLostError) => void): () => void {
    this.lossListeners.add(listener);
    const { failure } = this;
    if (failure instanceof DeviceLostError) queueMicrotask(() => { if (this.lossListeners.has(listener)) listener(failure); });
    return () => this.lossListeners.delete(listener);
  }

  /** Throws what went wrong with the device since the last check, if anything did. */
  check(): void {
    if (!this.failure) return;
    const failure = this.failure;
    // A lost device stays lost; any other error is reported once.
    if (!(failure instanceof DeviceLostError)) this.failure = undefined;
    throw failure;
  }

  /** Runs `body` inside error scopes; validation and memory errors reject as typed errors that name `what`. */
  async guarded<T>(what: string, body: () => T): Promise<T> {
    this.check();
    const { device } = this;
    device.pushErrorScope('out-of-memory');
    device.pushErrorScope('validation');
    let result: T | undefined;
    let thrown: unknown;
    try {
      result = body();
    } catch (error) {
      thrown = error ?? new Error('unknown');
    }
    // Popped before anything is awaited: the scopes are the device's, and those of two calls must not interleave.
    const [validation, memory] = await Promise.all([device.popErrorScope(), device.popErrorScope()]).catch(() => [null, null]);
    this.check();
    if (memory) throw new AllocationError(`${what}: the GPU is out of memory (${memory.message}).`);
    if (validation) throw new KernelError(what, `${what}: ${validation.message}`);
    if (thrown) throw thrown;
    return result as T;
  }

  /** @throws AllocationError before trying where the adapter can't hold it. */
  createBuffer(label: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    if (bytes > this.target.maxBufferSize) {
      throw new AllocationError(`${label}: ${bytes} bytes are asked for in one buffer, the adapter allows ${this.target.maxBufferSize}.`);
    }
    const buffer = this.device.createBuffer({ label, size: Math.max(16, roundUp(bytes, 16)), usage });
    this.live.add(buffer);
    this.allocatedBytes += buffer.size;
    return buffer;
  }

  /** As {@link createBuffer}, several at once: all of them or, where one can't be had, none. */
  async createBuffers(label: string, sizes: readonly number[], usage: GPUBufferUsageFlags): Promise<GPUBuffer[]> {
    const buffers: GPUBuffer[] = [];
    try {
      await this.guarded(label, () => sizes.forEach((bytes, i) => buffers.push(this.createBuffer(`${label} ${i}`, bytes, usage))));
    } catch (error) {
      for (const buffer of buffers) this.destroyBuffer(buffer);
      throw error;
    }
    return buffers;
  }

  destroyBuffer(buffer: GPUBuffer): void {
    if (!this.live.delete(buffer)) return;
    this.allocatedBytes -= buffer.size;
    buffer.destroy();
  }

  /** What fails may fail because the device is going; browsers tell the loss itself up to a moment later. */
  async lossOrNothing(): Promise<void> {
    await Promise.race([this.device.lost, new Promise((resolve) => { setTimeout(resolve, 1000); })]);
  }

  /** Maps a staging buffer and copies it out; a failed map rejects and never reads as zeros. */
  async readStaging(buffer: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    try {
      await buffer.mapAsync(MapMode.READ, 0, bytes);
    } catch (cause) {
      await this.lossOrNothing();
      this.check();
      throw new ReadbackError(`Reading ${bytes} bytes back from the GPU failed: ${String(cause)}`, { cause });
    }
    const copy = buffer.getMappedRange(0, bytes).slice(0);
    buffer.unmap();
    this.check();
    return copy;
  }

  /** Destroys the device, or, where that is the program's own, all that was made on it. */
  dispose(): void {
    if (this.ownsDevice) return this.device.destroy();
    this.device.removeEventListener('uncapturederror', this.onUncapturedError);
    for (const buffer of this.live) this.destroyBuffer(buffer);
  }
}

/** Buffer usage and map mode flags: WebGPU's constants, which Node does not have as globals. */
export const Usage = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, STORAGE: 128, QUERY_RESOLVE: 512 } as const;
export const MapMode = { READ: 1 } as const;

function lossAdvice(reason: string): string {
  return reason === 'destroyed' ? 'It was destroyed by the program.' : 'Request a new adapter and go on from the last checkpoint.';
}

function reportOf(info: GPUAdapterInfo, features: GPUSupportedFeatures, limits: GPUSupportedLimits): AdapterReport {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  return {
    vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description,
    name: info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(' ') || 'unnamed adapter',
    isSoftware: /swiftshader|llvmpipe|lavapipe|basic render|warp/.test(text),
    features: [...features].sort(),
    limits: Object.fromEntries(requestedLimits.map((name) => [name, limits[name]])),
  };
}

/** The probe is loaded where there is something to probe. */
async function subgroupMatrixOf(device: GPUDevice, info: GPUAdapterInfo): Promise<SubgroupMatrix | undefined> {
  if (!device.features.has(subgroupMatrixFeature)) return undefined;
  return (await import('./subgroup-matrix.ts')).findSubgroupMatrix(device, info);
}

function targetOf(device: GPUDevice, adapter: AdapterReport, subgroupMatrix: SubgroupMatrix | undefined): Target {
  const { limits } = device;
  const text = `${adapter.architecture} ${adapter.device} ${adapter.description}`.toLowerCase();
  return {
    ...defaultTarget,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxBufferSize: limits.maxBufferSize,
    maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    minStorageBufferOffsetAlignment: Math.max(256, limits.minStorageBufferOffsetAlignment),
    features: new Set(device.features),
    subgroupSize: device.adapterInfo?.subgroupMinSize,
    tuning: new Map(),
    ...(subgroupMatrix && { subgroupMatrix }),
    family: /swiftshader/.test(text) ? 'swiftshader' : /llvmpipe|lavapipe/.test(text) ? 'lavapipe' : 'gpu',
  };
}
