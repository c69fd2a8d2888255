/**
 * Persistent GPU memory: named tensors (weights, optimiser state, cached features) packed into a few buffers, so
 * that an optimiser can treat a whole group as one flat array and a device holds few allocations.
 */
import { AllocationError, UsageError } from '../errors.ts';
import { Usage, type GpuContext } from './context.ts';
import { roundUp, type Target } from './target.ts';

/** A range of a buffer that holds one tensor. */
export interface DeviceTensor {
  readonly buffer: GPUBuffer;
  /** Bytes from the buffer's start; a multiple of the binding alignment. */
  readonly offset: number;
  /** Bytes; what the tensor occupies, without padding. */
  readonly bytes: number;
}

/**
 * What is laid out: a tensor's name and bytes, or those of a stack with the tensors that are its rows: they begin at equal
 * distances, bytes / members.
 */
export type MemoryItem = readonly [name: string, bytes: number, members?: readonly (readonly [name: string, bytes: number])[]];

export interface MemoryPlace {
  readonly name: string;
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
  /** A stack, a row of one, or a tensor of its own. */
  readonly kind: 'stack' | 'row' | 'single';
}

export interface MemoryLayout {
  /** A stack's rows follow it. */
  readonly places: readonly MemoryPlace[];
  /** Bytes of each buffer. */
  readonly buffers: readonly number[];
}

/** Lays named tensors out one after another, each aligned so that it can be bound alone, in buffers of at most `maxBytes`. */
export function layoutMemory(items: Iterable<MemoryItem>, options: { alignment: number; maxBytes: number }): MemoryLayout {
  const places: MemoryPlace[] = [];
  const buffers: number[] = [];
  for (const [name, bytes, members] of items) {
    const size = roundUp(roundUp(bytes, 16), options.alignment);
    if (size > options.maxBytes) throw new AllocationError(`${name} needs ${bytes} bytes, one buffer may hold ${options.maxBytes} on this adapter.`);
    if (buffers.length === 0 || buffers.at(-1)! + size > options.maxBytes) buffers.push(0);
    const place = { buffer: buffers.length - 1, offset: buffers.at(-1)! };
    places.push({ ...place, name, bytes, kind: members ? 'stack' : 'single' });
    members?.forEach(([row, rowBytes], i) => places.push({ ...place, name: row, offset: place.offset + (i * bytes) / members.length, bytes: rowBytes, kind: 'row' }));
    buffers[buffers.length - 1]! += size;
  }
  return { places, buffers };
}

/** The layout that {@link DeviceMemory.allocate} uses on an adapter. */
export function layoutFor(target: Target, items: Iterable<MemoryItem>): MemoryLayout {
  return layoutMemory(items, { alignment: target.minStorageBufferOffsetAlignment, maxBytes: Math.min(target.maxStorageBufferBindingSize, target.maxBufferSize) });
}

/** Named tensors in one or more buffers; owns them. */
export class DeviceMemory {
  /** Stacks and their rows, too. */
  readonly tensors: ReadonlyMap<string, DeviceTensor>;
  /** Each tensor once: without the stacks. */
  readonly names: readonly string[];
  readonly buffers: readonly GPUBuffer[];
  private readonly context: GpuContext;

  private constructor(context: GpuContext, tensors: Map<string, DeviceTensor>, names: string[], buffers: GPUBuffer[]) {
    this.context = context;
    this.names = names;
    this.tensors = tensors;
    this.buffers = buffers;
  }

  /** Allocates zeroed memory for the tensors, in order; the group is split where it exceeds what one binding may cover. */
  static async allocate(context: GpuContext, label: string, items: Iterable<MemoryItem>): Promise<DeviceMemory> {
    const { places, buffers: totals } = layoutFor(context.target, items);
    if (new Set(places.map((l) => l.name)).size !== places.length) throw new UsageError(`${label}: two tensors have the same name.`);
    const buffers = await context.createBuffers(label, totals, Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST);
    const tensors = new Map(places.map((l) => [l.name, { buffer: buffers[l.buffer]!, offset: l.offset, bytes: l.bytes }]));
    return new DeviceMemory(context, tensors, places.filter((l) => l.kind !== 'stack').map((l) => l.name), buffers);
  }

  get bytes(): number {
    return this.buffers.reduce((sum, b) => sum + b.size, 0);
  }

  write(name: string, data: ArrayBufferView): void {
    const tensor = this.find(name);
    if (data.byteLength !== tensor.bytes) throw new UsageError(`${name} holds ${tensor.bytes} bytes, got ${data.byteLength}.`);
    // WebGPU writes whole words: an odd number of f16 values is padded, which the layout has room for.
    const whole = data.byteLength % 4 === 0 ? data : new Uint8Array(roundUp(data.byteLength, 4));
    if (whole !== data) (whole as Uint8Array).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.context.device.queue.writeBuffer(tensor.buffer, tensor.offset, whole.buffer as ArrayBuffer, whole.byteOffset, whole.byteLength);
  }

  /** Reads tensors back; with no names, all of them. */
  async read(names: Iterable<string> = this.names): Promise<Map<string, Float32Array>> {
    this.context.check();
    const wanted = [...names].map((name) => ({ name, tensor: this.find(name) }));
    const result = new Map<string, Float32Array>();
    // A bounded staging buffer at a time: reading a large model must not double its memory.
    const limit = 64 * 1024 * 1024;
    for (let start = 0; start < wanted.length;) {
      let end = start;
      let total = 0;
      do total += roundUp(wanted[end++]!.tensor.bytes, 16);
      while (end < wanted.length && total + roundUp(wanted[end]!.tensor.bytes, 16) <= limit);
      const staging = this.context.createBuffer('readback', total, Usage.MAP_READ | Usage.COPY_DST);
      const encoder = this.context.device.createCommandEncoder();
      let offset = 0;
      for (const { tensor } of wanted.slice(start, end)) {
        encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, staging, offset, roundUp(tensor.bytes, 4));
        offset += roundUp(tensor.bytes, 16);
      }
      this.context.device.queue.submit([encoder.finish()]);
      try {
        const bytes = await this.context.readStaging(staging, total);
        offset = 0;
        for (const { name, tensor } of wanted.slice(start, end)) {
          result.set(name, new Float32Array(bytes.slice(offset, offset + tensor.bytes)));
          offset += roundUp(tensor.bytes, 16);
        }
      } finally {
        this.context.destroyBuffer(staging);
      }
      start = end;
    }
    return result;
  }

  private find(name: string): DeviceTensor {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new UsageError(`No tensor called ${name} in this memory; it has ${[...this.tensors.keys()].slice(0, 5).join(', ')} ….`);
    return tensor;
  }

  dispose(): void {
    for (const buffer of this.buffers) this.context.destroyBuffer(buffer);
  }
}
