/**
 * Images on their way into the encoder: resized (PIL's antialiased bilinear, byte for byte), cropped and normalised on
 * the GPU, into one [B, 3, H, W] tensor that the model's plans read as the parameter `images`. Sources of similar size
 * share a compiled plan; a few plans are kept. An image's view, if it has one, is made in the same plan.
 */
import type { ImageView, RasterImage } from '../data/image.ts';
import { UsageError } from '../errors.ts';
import type { GpuContext } from '../gpu/context.ts';
import { DeviceMemory, type DeviceTensor } from '../gpu/memory.ts';
import { Executable } from '../graph/executor.ts';
import { compile } from '../graph/plan.ts';
import { input, parameter, type Tensor } from '../graph/tensor.ts';
import { normalizeCrop, resizeAntialiased, resizeCapacity, resizeInputs, resizeInputTensors, type ResizeCapacity } from '../ops/index.ts';
import type { ImageSize } from './config.ts';

const keptPlans = 4;

/** The leaf that plans read the images from. */
export function imagesLeaf(batchSize: number, crop: ImageSize): Tensor {
  return parameter('images', [batchSize, 3, crop.height, crop.width]);
}

export class ImageStage {
  readonly batchSize: number;
  private readonly context: GpuContext;
  private readonly resize: ImageSize;
  private readonly crop: ImageSize;
  private readonly memory: DeviceMemory;
  private readonly plans = new Map<string, { executable: Executable; capacity: ResizeCapacity }>();

  private constructor(context: GpuContext, options: { resize: ImageSize; crop: ImageSize; batchSize: number }, memory: DeviceMemory) {
    this.context = context;
    this.resize = options.resize;
    this.crop = options.crop;
    this.batchSize = options.batchSize;
    this.memory = memory;
  }

  static async create(context: GpuContext, options: { resize: ImageSize; crop: ImageSize; batchSize: number }): Promise<ImageStage> {
    const { crop, resize } = options;
    if (crop.width > resize.width || crop.height > resize.height) {
      throw new UsageError(`The crop of ${crop.width} x ${crop.height} does not fit into the resized image of ${resize.width} x ${resize.height}.`);
    }
    const bytes = options.batchSize * 3 * crop.height * crop.width * 4;
    return new ImageStage(context, options, await DeviceMemory.allocate(context, 'images', [['images', bytes]]));
  }

  get tensors(): ReadonlyMap<string, DeviceTensor> {
    return this.memory.tensors;
  }

  /** Compiles what this image's size needs, if it is not there; then {@link record} can be called for it. */
  async ready(image: RasterImage): Promise<void> {
    const { key, capacity } = this.classify(image);
    const known = this.plans.get(key);
    if (known) {
      // Most recently used last.
      this.plans.delete(key);
      this.plans.set(key, known);
      return;
    }
    const plain = imageGraph(capacity, this.resize, this.crop);
    const warping = image.view && await import('../ops/warp-image.ts');
    const executable = await Executable.prepare(this.context, compile({
      target: this.context.target, outputs: { image: warping ? warping.warpImage(plain, input('view', [1, warping.viewLength])) : plain },
    }));
    this.plans.set(key, { executable, capacity });
    if (this.plans.size > keptPlans) {
      const [oldest, plan] = this.plans.entries().next().value!;
      this.plans.delete(oldest);
      plan.executable.dispose();
    }
  }

  /** Records the image's way into `slot` of the batch. One image a submit: its pixels are written at once. */
  record(encoder: GPUCommandEncoder, image: RasterImage, slot: number): void {
    const { key } = this.classify(image);
    const { executable, capacity } = this.plans.get(key)!;
    executable.record(encoder, { ...resizeInputs(image, capacity, this.resize), ...(image.view && { view: viewValues(image.view, this.crop) }) });
    const { buffer, offset } = this.memory.tensors.get('images')!;
    executable.copyOutput(encoder, 'image', { buffer, offset: offset + slot * 3 * this.crop.height * this.crop.width * 4 });
  }

  /** Brings an image into `slot` with a submit of its own. */
  async load(image: RasterImage, slot: number): Promise<void> {
    await this.ready(image);
    const encoder = this.context.device.createCommandEncoder();
    this.record(encoder, image, slot);
    this.context.device.queue.submit([encoder.finish()]);
  }

  private classify(image: RasterImage): { key: string; capacity: ResizeCapacity } {
    const capacity = resizeCapacity(image, this.resize);
    return { key: `${Object.values(capacity).join()}${image.view ? ', view' : ''}`, capacity };
  }

  dispose(): void {
    for (const { executable } of this.plans.values()) executable.dispose();
    this.plans.clear();
    this.memory.dispose();
  }
}

/** What `warpImage` takes for a view: its matrix, its shift in pixels, 1 where it is grey. */
export function viewValues({ matrix, shift: [x, y] = [0, 0], grey = false }: ImageView, crop: ImageSize): Float32Array {
  return Float32Array.of(...matrix, (x * crop.width) / 2, (y * crop.height) / 2, grey ? 1 : 0);
}

/** [1, 3, crop] from the inputs `image.*` of a source within `capacity`. */
export function imageGraph(capacity: ResizeCapacity, resize: ImageSize, crop: ImageSize): Tensor {
  const resized = resizeAntialiased(resizeInputTensors(capacity, resize), { ...resize, rows: capacity.rows });
  return normalizeCrop(resized, { ...resize, cropWidth: crop.width, cropHeight: crop.height });
}
