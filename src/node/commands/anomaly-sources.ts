/** The folders that made-up defects come from: textures, and real defects with their masks. */
import { join } from 'node:path';
import { allImages } from '../../data/layout.ts';
import { defectImages } from '../../data/layout-defects.ts';
import { UsageError } from '../../errors.ts';
import type { PlusOptions } from '../../train/train.ts';
import { listFolder } from '../folders.ts';
import { imageFileSource } from '../images.ts';
import type { CommandContext } from './context.ts';

export interface AnomalySourceOptions {
  readonly textures?: string;
  readonly defects?: string;
  readonly defectLimit?: number;
}

export async function anomalySources({ textures, defects, defectLimit }: AnomalySourceOptions, context: CommandContext): Promise<Pick<PlusOptions, 'textures' | 'defects'>> {
  if (defectLimit !== undefined && defects === undefined) throw new UsageError('--defect-limit says how many of the --defects are used: give both.');
  const texturePaths = textures === undefined ? undefined : allImages(await listFolder(textures), textures);
  if (texturePaths) context.field('Textures', `${texturePaths.length} images`);
  const pairs = defects === undefined ? undefined : defectImages(await listFolder(defects), defects).slice(0, defectLimit);
  if (pairs) context.field('Defects', `${pairs.length} images (${[...new Set(pairs.map(({ defect }) => defect || 'of one kind'))].join(', ')})`);
  return {
    ...(texturePaths && { textures: texturePaths.map((path) => imageFileSource(join(textures!, path))) }),
    ...(pairs && { defects: pairs.map(({ path, maskPath }) => ({ image: imageFileSource(join(defects!, path)), mask: imageFileSource(join(defects!, maskPath)) })) }),
  };
}
