/**
 * `inp-former pseudo`: samples of the defects that a segmentation head would be trained on, to see whether they are any like
 * real ones: the image, its mask, and normal image, result and mask side by side.
 */
import { join } from 'node:path';
import type { RasterImage } from '../../data/image.ts';
import type { DefectKind } from '../../data/pseudo-anomaly.ts';
import { UsageError } from '../../errors.ts';
import { pseudoAnomalies } from '../../train/pseudo-samples.ts';
import { openDatasets } from '../dataset.ts';
import { makeFolder, writeFileAtomic } from '../files.ts';
import { encodePng, imageFileSource } from '../images.ts';
import { anomalySources, type AnomalySourceOptions } from './anomaly-sources.ts';
import type { CommandContext } from './context.ts';

export interface PseudoCommandOptions extends AnomalySourceOptions {
  readonly data: string;
  readonly out: string;
  readonly count: number;
  readonly resize: number;
  readonly crop: number;
  readonly seed: number;
}

export async function pseudo(options: PseudoCommandOptions, context: CommandContext): Promise<number> {
  const { data, out, count, resize, crop, seed } = options;
  if (crop > resize) throw new UsageError(`--crop ${crop} does not fit into --resize ${resize}: give a --crop of at most ${resize}.`);
  const sources = await anomalySources(options, context);
  const { categories } = await openDatasets([data], { purpose: 'training' });
  const images = categories.flatMap(({ folder, train }) => train.map((path) => imageFileSource(join(folder, path))));
  const samples: { name: string; source: string; kind: DefectKind; defectiveShare: number }[] = [];
  for await (const { image, mask, kind, source, normal } of pseudoAnomalies({ images, count, resize, crop, seed, ...sources, signal: context.signal })) {
    if (samples.length === 0) await makeFolder(out);
    const name = String(samples.length).padStart(3, '0');
    const picture: RasterImage = { width: crop, height: crop, channels: 1, data: mask.map((value) => 255 * value) };
    await writeFileAtomic(join(out, `${name}_image.png`), await encodePng(image));
    await writeFileAtomic(join(out, `${name}_mask.png`), await encodePng(picture));
    await writeFileAtomic(join(out, `${name}_side_by_side.png`), await encodePng(sideBySide([normal, image, picture])));
    samples.push({ name, source: source.name, kind, defectiveShare: mask.reduce((a, b) => a + b, 0) / mask.length });
  }
  context.field('Samples', `${count} in ${out}: ${kindsInWords(samples.map(({ kind }) => kind))}`);
  context.result({ command: 'pseudo', out, samples });
  return 0;
}

function kindsInWords(kinds: readonly DefectKind[]): string {
  return [...new Set(kinds)].map((kind) => `${kinds.filter((k) => k === kind).length} ${kind}`).join(', ');
}

function sideBySide(images: readonly RasterImage[]): RasterImage {
  const [{ width, height }] = images as [RasterImage];
  const data = new Uint8Array(images.length * width * height * 3);
  images.forEach(({ channels, data: from }, n) => {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = 3 * (y * images.length * width + n * width + x);
        for (let c = 0; c < 3; c++) data[at + c] = from[(y * width + x) * channels + (channels === 1 ? 0 : c)]!;
      }
    }
  });
  return { width: images.length * width, height, channels: 3, data };
}
