/**
 * `inspect --prototypes`: for each image a sheet of pictures (NAME.prototypes.png) and, over all of them, one HTML file,
 * prototypes.html, with what each prototype stands for; other models beside, in the colours of the prototypes that theirs
 * overlap most.
 */
import { join } from 'node:path';
import type { RasterImage } from '../../data/image.ts';
import { resizeAntialiased } from '../../data/resample.ts';
import { withoutAlpha } from '../../data/preprocess.ts';
import type { Engine } from '../../engine.ts';
import { Inspector, type Inspection, type InspectOptions } from '../../inspect/inspector.ts';
import {
  comparePartitions, drawGroup, drawPrototypes, drawSimilarity, partnerColours, prototypeColour, prototypesInUse, prototypeViews, similarityScale, summarizePrototypes,
  type PartitionComparison, type PrototypeView,
} from '../../inspect/prototypes.ts';
import type { Colour } from '../../inspect/heatmap.ts';
import type { Precision } from '../../model/parameters.ts';
import { readFileChecked, writeFileAtomic } from '../files.ts';
import { encodePng } from '../images.ts';
import { renderPrototypeReport, type PrototypeEntry, type PrototypeModel } from '../prototype-report.ts';
import { imageUri } from '../report.ts';
import type { CommandContext } from './context.ts';
import { openEncoderOf } from './encoders.ts';

/** Longer side of one picture. */
const pictureSize = 320;
const gap = 8;
/** The HTML file holds its pictures; more images than these are on their sheets alone. */
const mostInReport = 60;

interface ShownModel {
  readonly name: string;
  readonly inspector: Inspector;
}

export interface PrototypePicturesOptions {
  readonly inspector: Inspector;
  readonly model: string;
  readonly compare?: readonly string[];
  readonly framing: InspectOptions;
  readonly out: string;
  readonly precision: Precision;
  /** The heat map over its image. */
  readonly overlayOf: (image: RasterImage, inspection: Inspection) => RasterImage;
}

/** What programs get of an image's prototypes. */
export interface PrototypeRecord {
  readonly sheet: string;
  readonly models: readonly {
    readonly model: string;
    readonly count: number;
    /** Share of the tokens that belong to each; of a tiled image, mean over the tiles. */
    readonly shares: readonly number[];
    readonly inUse: number;
    /** Mean cosine similarity of the tokens to their prototype. */
    readonly similarity: number;
    /** Adjusted Rand index with the first model's partition; null for the first, and for tiles. */
    readonly agreement: number | null;
  }[];
}

export class PrototypePictures {
  private readonly models: readonly ShownModel[];
  private readonly options: PrototypePicturesOptions;
  private readonly entries: PrototypeEntry[] = [];
  private images = 0;

  private constructor(models: readonly ShownModel[], options: PrototypePicturesOptions) {
    this.models = models;
    this.options = options;
  }

  /** Opens the models to compare with. They are the pictures'; the first inspector stays the caller's. */
  static async open(engine: Engine, options: PrototypePicturesOptions, context: CommandContext): Promise<PrototypePictures> {
    const models: ShownModel[] = [{ name: options.model, inspector: options.inspector }];
    for (const file of options.compare ?? []) {
      const bytes = await readFileChecked(file);
      const encoder = await openEncoderOf(Inspector.readMetadata(bytes, file), undefined, context);
      models.push({ name: file, inspector: await Inspector.open(engine, bytes, encoder, { name: file, precision: options.precision }) });
    }
    return new PrototypePictures(models, options);
  }

  /** @param heatmap the name of the image's heat map, from which that of the sheet comes */
  async add(file: string, heatmap: string, image: RasterImage, first: Inspection): Promise<PrototypeRecord> {
    const { framing, out } = this.options;
    const inspections = [first];
    for (const { inspector } of this.models.slice(1)) inspections.push(await inspector.inspect(image, { ...framing, prototypes: true }));
    const shown = inspections.map((inspection, i) => this.show(image, inspection, first, this.models[i]!));
    const sheet = join(out, heatmap.replace(/\.heatmap\.png$/, '.prototypes.png'));
    const source = scaled(image);
    await writeFileAtomic(sheet, await encodePng(contactSheet(shown.flatMap(({ pictures }) => [
      [source, pictures.heatmap, pictures.prototypes, ...pictures.groups], pictures.similarities,
    ]))));
    if (this.images++ < mostInReport) {
      const uri = (picture: RasterImage) => imageUri(picture);
      this.entries.push({
        name: file, source: await uri(source),
        models: await Promise.all(shown.map(async ({ pictures, model }): Promise<PrototypeModel> => ({
          ...model,
          heatmap: await uri(pictures.heatmap), prototypes: await uri(pictures.prototypes),
          groups: await Promise.all(pictures.groups.map(uri)), similarities: await Promise.all(pictures.similarities.map(uri)),
        }))),
      });
    }
    return {
      sheet,
      models: shown.map(({ model: { name, legend, inUse, similarity, agreement } }) => ({
        model: name, count: legend.length, shares: legend.map(({ share }) => share), inUse, similarity, agreement,
      })),
    };
  }

  private show(image: RasterImage, inspection: Inspection, first: Inspection, { name }: ShownModel) {
    const views = prototypeViews(inspection);
    const [view, firstView] = [views[0]!, prototypeViews(first)[0]!];
    // Tiles have prototypes of their own each: there is no one partition to compare.
    const comparison: PartitionComparison | undefined = inspection === first || inspection.tiles ? undefined : comparePartitions(firstView, view);
    const colour = comparison ? partnerColours(comparison, firstView.count) : prototypeColour;
    const range = similarityScale(views);
    const { scale } = inspection;
    const options = { size: pictureSize, colour };
    return {
      pictures: {
        heatmap: scaled(this.options.overlayOf(image, inspection)),
        prototypes: drawPrototypes(image, views, options),
        groups: view.groups.map((_, g) => drawGroup(image, views, g, { ...options, scale })),
        similarities: Array.from({ length: view.count }, (_, m) => withBar(drawSimilarity(image, views, m, { ...options, scale: range }), colour(m))),
      },
      model: {
        name, score: inspection.score, verdict: inspection.verdict, legend: legendOf(views, colour),
        inUse: mean(views.map(prototypesInUse)), similarity: mean(views.map(nearestSimilarity)), agreement: comparison?.agreement ?? null, range, tiles: inspection.tiles?.length ?? 0,
      },
    };
  }

  /** Writes the HTML file, frees the other models. @returns its path */
  async finish(): Promise<string> {
    for (const { inspector } of this.models.slice(1)) inspector.dispose();
    const file = join(this.options.out, 'prototypes.html');
    await writeFileAtomic(file, renderPrototypeReport(this.entries, this.images));
    return file;
  }
}

function legendOf(views: readonly PrototypeView[], colour: (m: number) => Colour): PrototypeModel['legend'] {
  const all = views.map(summarizePrototypes);
  return Array.from({ length: views[0]!.count }, (_, m) => {
    const similarities = all.map((summaries) => summaries[m]!.similarity).filter((value) => value !== null);
    return { colour: colour(m), share: mean(all.map((summaries) => summaries[m]!.share)), similarity: similarities.length === 0 ? null : mean(similarities) };
  });
}

function nearestSimilarity({ index, similarity }: PrototypeView): number {
  return mean(Array.from(index, (m, token) => similarity[m * index.length + token]!));
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

function scaled(image: RasterImage): RasterImage {
  const factor = Math.min(1, pictureSize / Math.max(image.width, image.height));
  const small = resizeAntialiased(withoutAlpha(image), Math.max(1, Math.round(image.width * factor)), Math.max(1, Math.round(image.height * factor)));
  return small.channels === 3 ? small : { ...small, channels: 3, data: Uint8Array.from({ length: small.data.length * 3 }, (_, i) => small.data[Math.floor(i / 3)]!) };
}

/** The picture with a bar of the colour above it. */
function withBar({ width, height, data }: RasterImage, colour: Colour): RasterImage {
  const bar = Math.max(4, Math.round(height / 24));
  const pixels = new Uint8Array(width * (height + bar) * 3);
  for (let i = 0; i < width * bar; i++) pixels.set(colour, i * 3);
  pixels.set(data, width * bar * 3);
  return { width, height: height + bar, channels: 3, data: pixels };
}

/** Rows of pictures on white. */
function contactSheet(rows: readonly (readonly RasterImage[])[]): RasterImage {
  const heights = rows.map((row) => Math.max(...row.map(({ height }) => height)));
  const width = Math.max(...rows.map((row) => row.reduce((sum, picture) => sum + picture.width + gap, gap)));
  const height = heights.reduce((sum, h) => sum + h + gap, gap);
  const data = new Uint8Array(width * height * 3).fill(255);
  let top = gap;
  for (const [r, row] of rows.entries()) {
    let left = gap;
    for (const picture of row) {
      for (let y = 0; y < picture.height; y++) data.set(picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3), ((top + y) * width + left) * 3);
      left += picture.width + gap;
    }
    top += heights[r]! + gap;
  }
  return { width, height, channels: 3, data };
}
