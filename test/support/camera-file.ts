/** A camera as a file: pictures as YUV4MPEG2, which Chrome's fake camera plays in a loop. */
import { openSync, writeSync, closeSync } from 'node:fs';
import type { RasterImage } from '../../src/data/image.ts';

/** @param frames pictures of one even size, each shown for `repeat` frames */
export function writeCameraFile(path: string, frames: readonly RasterImage[], { framesPerSecond, repeat }: { framesPerSecond: number; repeat: number }): void {
  const { width, height } = frames[0]!;
  const file = openSync(path, 'w');
  writeSync(file, `YUV4MPEG2 W${width} H${height} F${framesPerSecond}:1 Ip A1:1 C420jpeg\n`);
  for (const frame of frames) {
    const picture = planes(frame);
    for (let i = 0; i < repeat; i++) {
      writeSync(file, 'FRAME\n');
      writeSync(file, picture);
    }
  }
  closeSync(file);
}

/** BT.601: luma in 16..235, chroma of each 2 x 2 pixels in 16..240. */
function planes({ width, height, channels, data }: RasterImage): Uint8Array {
  const quarter = (width / 2) * (height / 2);
  const out = new Uint8Array(width * height + 2 * quarter);
  const at = (x: number, y: number, c: number): number => data[(y * width + x) * channels + (channels === 1 ? 0 : c)]!;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [r, g, b] = [at(x, y, 0), at(x, y, 1), at(x, y, 2)];
      out[y * width + x] = Math.round(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255);
      if (x % 2 === 1 || y % 2 === 1) continue;
      const chroma = (y / 2) * (width / 2) + x / 2;
      out[width * height + chroma] = Math.round(128 + (-37.797 * r - 74.203 * g + 112 * b) / 255);
      out[width * height + quarter + chroma] = Math.round(128 + (112 * r - 93.786 * g - 18.214 * b) / 255);
    }
  }
  return out;
}
