/** A drawn data set as files: PNG in MVTec AD's layout, masks included. */
import { join } from 'node:path';
import { proceduralSet, type ProceduralSetOptions } from '../data/procedural.ts';
import { writePng } from './images.ts';

/** @param onProgress told after each image how many are drawn, and of how many */
export async function writeProceduralSet(folder: string, options: ProceduralSetOptions, onProgress?: (done: number, total: number) => void): Promise<void> {
  const samples = proceduralSet(options);
  for (const [i, { path, maskPath, render }] of samples.entries()) {
    const { image, mask } = render();
    await writePng(join(folder, path), image);
    if (maskPath !== undefined) await writePng(join(folder, maskPath), { width: image.width, height: image.height, channels: 1, data: mask });
    onProgress?.(i + 1, samples.length);
  }
}
