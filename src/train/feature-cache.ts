/**
 * The encoder is frozen and the images are not augmented, so each image is encoded once and its features are kept: in
 * memory up to a cap, beyond it in a store of the platform's (a file in Node). What comes back is bit for bit what was
 * put in, so where an image lies changes nothing in training.
 */
import { AllocationError, UsageError } from '../errors.ts';

/** Where features go that memory has no room for. */
export interface SpillStore {
  write(index: number, values: Float32Array): Promise<void>;
  read(index: number, length: number): Promise<Float32Array>;
  dispose(): Promise<void>;
}

export interface FeatureCacheOptions {
  /** Most bytes of features kept in memory; default 2 GiB. */
  readonly maxBytes?: number;
  /** Opened when the first image does not fit. Without it, that is an error. */
  readonly spill?: () => Promise<SpillStore>;
}

export const defaultCacheBytes = 2 * 1024 ** 3;

export class FeatureCache {
  private readonly memory = new Map<number, Float32Array>();
  private readonly spilled = new Set<number>();
  private readonly options: FeatureCacheOptions;
  private readonly valuesPerImage: number;
  private store: SpillStore | undefined;

  constructor(valuesPerImage: number, options: FeatureCacheOptions = {}) {
    this.valuesPerImage = valuesPerImage;
    this.options = options;
  }

  /** Images whose features lie in the spill store. */
  get spilledCount(): number {
    return this.spilled.size;
  }

  async set(index: number, values: Float32Array): Promise<void> {
    if (values.length !== this.valuesPerImage) throw new UsageError(`An image has ${this.valuesPerImage} feature values, got ${values.length}.`);
    const { maxBytes = defaultCacheBytes, spill } = this.options;
    const bytes = values.length * 4;
    if ((this.memory.size + 1) * bytes <= maxBytes) {
      this.memory.set(index, values);
      return;
    }
    if (!spill) {
      throw new AllocationError(
        `The features of image ${index + 1} (${bytes} bytes each) exceed the feature cache of ${maxBytes} bytes, and there is nowhere to spill them: raise featureCache.maxBytes, or use fewer images or a smaller crop.`,
      );
    }
    this.store ??= await spill();
    await this.store.write(index, values);
    this.spilled.add(index);
  }

  async get(index: number): Promise<Float32Array> {
    const kept = this.memory.get(index);
    if (kept) return kept;
    if (!this.spilled.has(index)) throw new UsageError(`The feature cache does not hold image ${index}.`);
    return this.store!.read(index, this.valuesPerImage);
  }

  async dispose(): Promise<void> {
    this.memory.clear();
    await this.store?.dispose();
  }
}
