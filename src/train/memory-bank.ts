/**
 * The memory of the training-free method: the features of all tokens of the normal images, one list for each feature group,
 * every token over its norm. A token is then judged by its distance to the nearest of them.
 */
import { Random } from '../data/random.ts';
import { AllocationError, UsageError } from '../errors.ts';
import { tokenGrid, type DetectorConfig } from '../model/config.ts';
import { memorySlices } from '../model/parameters.ts';
import type { FeatureCache } from './feature-cache.ts';

/** Rows of a memory of `images`: all their tokens, or as many as are asked for. */
export function memoryRowsOf(config: DetectorConfig, images: number, limit: number | undefined): number {
  if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) throw new UsageError(`memoryRows must be a positive integer, got ${limit}.`);
  return Math.min(images * tokenGrid(config).count, limit ?? Infinity);
}

/** Most bytes of a memory: it is in the GPU's memory as a whole, and in the model file. */
const mostBytes = 2 * 1024 ** 3;

/** @throws AllocationError, with the figures, before anything is encoded */
export function checkMemorySize(config: DetectorConfig, images: number, limit: number | undefined): void {
  const rows = memoryRowsOf(config, images, limit);
  const bytesPerRow = 4 * config.architecture.width * config.encoderGroups.length;
  if (rows * bytesPerRow <= mostBytes) return;
  const tokens = tokenGrid(config).count;
  throw new AllocationError(
    `The memory of ${images} images with ${tokens} tokens each is ${rows} rows of ${bytesPerRow} bytes, ${(rows * bytesPerRow / 1024 ** 3).toFixed(1)} GiB; at most ${(mostBytes / 1024 ** 3).toFixed(1)} GiB are kept. `
    + `Use fewer shots, a smaller crop, or keep a random part of the rows: memoryRows (--memory-rows) of at most ${Math.floor(mostBytes / bytesPerRow)}.`,
  );
}

/**
 * Reads the features of the images at `indices` into a memory. Where it holds fewer rows than they have tokens, as many of each
 * image are drawn by the seed.
 * @returns the config with the number of rows, and the tensors by name
 */
export async function buildMemory(
  cache: FeatureCache, indices: readonly number[], config: DetectorConfig, { memoryRows, seed }: { memoryRows?: number | undefined; seed: number },
): Promise<{ config: DetectorConfig; values: Map<string, Float32Array> }> {
  const rows = memoryRowsOf(config, indices.length, memoryRows);
  const filled: DetectorConfig = { ...config, memoryRows: rows };
  const { width } = config.architecture;
  const { count } = tokenGrid(config);
  const slices = memorySlices(filled);
  const groups = config.encoderGroups.map(() => slices.map((length) => new Float32Array(length * width)));
  let next = 0;
  for (const [i, index] of indices.entries()) {
    const features = await cache.get(index);
    // So many that all images together fill the memory.
    const share = Math.floor(((i + 1) * rows) / indices.length) - Math.floor((i * rows) / indices.length);
    const tokens = Array.from({ length: count }, (_, n) => n);
    const kept = share === count ? tokens : new Random(`${seed}/memory ${i}`).shuffle(tokens).slice(0, share);
    for (const token of kept) {
      const [slice, row] = [Math.floor(next / slices[0]!), next % slices[0]!];
      groups.forEach((memory, g) => {
        const from = features.subarray((g * count + token) * width, (g * count + token + 1) * width);
        let squares = 0;
        for (const value of from) squares += value * value;
        const norm = Math.max(1e-8, Math.sqrt(squares));
        const to = memory[slice]!.subarray(row * width, (row + 1) * width);
        for (let c = 0; c < width; c++) to[c] = from[c]! / norm;
      });
      next++;
    }
  }
  return { config: filled, values: new Map(groups.flatMap((memory, g) => memory.map((data, s) => [`memory.${g}.${s}`, data] as const))) };
}
