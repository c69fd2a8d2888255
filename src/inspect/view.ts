/**
 * Pieces of images: a tile of a large one, or one extended to another shape without distorting it. What lies outside of the
 * image is its mirror image at the edge (the edge pixel counts once), because that has the surface's own texture: a constant
 * border would be an anomaly of its own, and would be among the tokens that the prototypes are made from.
 */
import type { RasterImage } from '../data/image.ts';
import { UsageError } from '../errors.ts';
import type { ImageSize } from '../model/config.ts';
import type { Box } from './regions.ts';

/** The box of the image, mirrored where it reaches beyond; the channels stay. */
export function cutView(image: RasterImage, { x, y, width, height }: Box): RasterImage {
  const { channels } = image;
  const data = new Uint8Array(width * height * channels);
  const isInside = x >= 0 && x + width <= image.width;
  const columns = Int32Array.from({ length: width }, (_, i) => mirrored(x + i, image.width) * channels);
  for (let row = 0, target = 0; row < height; row++) {
    const source = mirrored(y + row, image.height) * image.width * channels;
    if (isInside) {
      data.set(image.data.subarray(source + x * channels, source + (x + width) * channels), target);
      target += width * channels;
      continue;
    }
    for (const column of columns) for (let c = 0; c < channels; c++) data[target++] = image.data[source + column + c]!;
  }
  return { width, height, channels, data, ...(image.view && { view: image.view }) };
}

/** The position in [0, size) that i stands for when the image is followed by its mirror image, again and again. */
function mirrored(i: number, size: number): number {
  if (size === 1) return 0;
  const period = 2 * size - 2;
  const at = ((i % period) + period) % period;
  return at < size ? at : period - at;
}

/** The smallest box of `shape`'s proportions around the whole image, centred. */
export function boxAround({ width, height }: ImageSize, shape: ImageSize): Box {
  const scale = Math.max(width / shape.width, height / shape.height);
  const box = { width: Math.max(width, Math.round(shape.width * scale)), height: Math.max(height, Math.round(shape.height * scale)) };
  return { x: 0 - Math.floor((box.width - width) / 2), y: 0 - Math.floor((box.height - height) / 2), ...box };
}

/** The part of a map whose pixels' centres lie in `window`. */
export function cutMap(map: Float32Array, mapWidth: number, { x, y, width, height }: Box): Float32Array {
  const part = new Float32Array(width * height);
  for (let row = 0; row < height; row++) part.set(map.subarray((y + row) * mapWidth + x, (y + row) * mapWidth + x + width), row * width);
  return part;
}

/**
 * The mean of the `count` largest values, as the GPU's `topMean` has it, for maps that are put together on the CPU. Values are
 * counted by their upper 16 bits first, so that only a few are sorted.
 */
export function meanOfLargest(values: Float32Array, count: number): number {
  if (!(count >= 1 && count <= values.length)) throw new UsageError(`meanOfLargest: of ${values.length} values 1 to ${values.length} can be taken, got ${count}.`);
  const counts = new Uint32Array(65536);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  // Order of the bits: that of the values for positive ones, the reverse for negative ones.
  const bin = (i: number): number => {
    const high = bits[i]! >>> 16;
    return high & 0x8000 ? 0xffff - high : high | 0x8000;
  };
  for (let i = 0; i < values.length; i++) counts[bin(i)]!++;
  let lowest = 65535;
  for (let above = counts[lowest]!; above < count; above += counts[lowest]!) lowest--;
  const candidates = new Float32Array(counts.subarray(lowest).reduce((a, b) => a + b, 0));
  for (let i = 0, at = 0; i < values.length; i++) if (bin(i) >= lowest) candidates[at++] = values[i]!;
  return candidates.sort().subarray(candidates.length - count).reduce((a, b) => a + b, 0) / count;
}
