/**
 * Looking at what a model compared an image with: which part of the image belongs to which on-site prototype, how similar
 * each part is to each of them, what the model says at a point, and how the partitions of two models differ. An entry of its
 * own (`inp-former-webgpu/prototypes`), so that pages which show no prototypes don't ship it.
 *
 * Colours: Okabe and Ito's set, which stays distinct with every kind of colour blindness; prototype m has the m-th colour,
 * in every image and every tile.
 */
import type { RasterImage } from '../data/image.ts';
import { toSize, withoutAlpha } from '../data/preprocess.ts';
import { resizeAntialiased } from '../data/resample.ts';
import { UsageError } from '../errors.ts';
import type { ImageSize } from '../model/config.ts';
import { scoredFraction } from '../model/scoring.ts';
import { colorize, type Colour, type HeatScale } from './heatmap.ts';
import type { Inspection } from './inspector.ts';
import type { ModelMetadata } from './model-file.ts';
import type { PrototypeView } from './prototype-view.ts';

export { hasPrototypes, isPlus } from '../model/config.ts';
export type { PrototypeView } from './prototype-view.ts';

/** Okabe and Ito, "Color Universal Design" (2008), grey in place of black, which would vanish on dark parts. */
const OKABE_ITO: readonly Colour[] = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167], [160, 160, 160],
];

/** The colour of prototype `m`. After eight they come again lighter, then darker. */
export function prototypeColour(m: number): Colour {
  const base = OKABE_ITO[m % OKABE_ITO.length]!;
  const round = Math.floor(m / OKABE_ITO.length) % 3;
  return base.map((c) => Math.round(round === 0 ? c : round === 1 ? c + 0.55 * (255 - c) : 0.5 * c)) as unknown as Colour;
}

/** The views of an inspection that was asked for them: one, or one a tile. @throws UsageError */
export function prototypeViews(inspection: Pick<Inspection, 'prototypes' | 'tiles'>): PrototypeView[] {
  const views = inspection.prototypes ? [inspection.prototypes] : (inspection.tiles ?? []).flatMap(({ prototypes }) => prototypes ?? []);
  if (views.length === 0) throw new UsageError('This inspection has no prototypes: ask for them, inspect(image, { prototypes: true }).');
  return views;
}

/** One prototype in an image. */
export interface PrototypeSummary {
  /** Share of the tokens that are most similar to it, 0 to 1. */
  readonly share: number;
  /** Mean cosine similarity of those tokens to it; null where there are none. */
  readonly similarity: number | null;
  /** The token that is most similar to it: what it looks like. */
  readonly exemplar: { readonly row: number; readonly column: number; readonly similarity: number };
}

/** What each prototype stands for in the image. */
export function summarizePrototypes({ rows, columns, count, index, similarity }: PrototypeView): PrototypeSummary[] {
  const tokens = rows * columns;
  return Array.from({ length: count }, (_, m) => {
    const own = similarity.subarray(m * tokens, (m + 1) * tokens);
    const members = own.filter((_, token) => index[token] === m);
    const best = own.reduce((at, value, token) => (value > own[at]! ? token : at), 0);
    return {
      share: members.length / tokens,
      similarity: members.length === 0 ? null : members.reduce((a, b) => a + b, 0) / members.length,
      exemplar: { row: Math.floor(best / columns), column: best % columns, similarity: own[best]! },
    };
  });
}

/** How many prototypes are in use: exp of the entropy of their shares, from 1 (all tokens at one) to M (all equally). */
export function prototypesInUse(view: PrototypeView): number {
  return Math.exp(-summarizePrototypes(view).reduce((sum, { share }) => sum + (share > 0 ? share * Math.log(share) : 0), 0));
}

/** How far one group of encoder blocks differs from what the model expects, in an image. */
export interface GroupSummary {
  /** Over the whole map. */
  readonly mean: number;
  /** Mean of as many of its own highest pixels as a score takes. */
  readonly highest: number;
  /** Mean over the very pixels of `map` whose mean is the score: where the map is the groups' mean, these figures' mean is the score. */
  readonly inScore: number;
}

/** Figures of each group of an inspection that was asked for them. @throws UsageError */
export function summarizeGroups({ map, groupMaps }: Pick<Inspection, 'map' | 'groupMaps'>, { mapSize }: Pick<ModelMetadata, 'mapSize'>): GroupSummary[] {
  if (!groupMaps) throw new UsageError('This inspection has no maps of the groups: ask for them, inspect(image, { groups: true }).');
  const { width, height } = toSize(mapSize);
  const count = Math.max(1, Math.floor(scoredFraction * Math.min(map.length, width * height)));
  const scored = highestPixels(map, count);
  const meanAt = (values: Float32Array, pixels: Int32Array) => pixels.reduce((sum, pixel) => sum + values[pixel]!, 0) / pixels.length;
  return groupMaps.map((values) => ({
    mean: values.reduce((a, b) => a + b, 0) / values.length, highest: meanAt(values, highestPixels(values, count)), inScore: meanAt(values, scored),
  }));
}

/** Positions of the `count` highest values; of equal ones the first. */
function highestPixels(values: Float32Array, count: number): Int32Array {
  const lowest = Float32Array.from(values).sort()[values.length - count]!;
  const pixels = new Int32Array(count);
  let taken = 0;
  for (let i = 0; i < values.length; i++) if (values[i]! > lowest) pixels[taken++] = i;
  for (let i = 0; taken < count; i++) if (values[i] === lowest) pixels[taken++] = i;
  return pixels;
}

/** What the model says at a point of the image. */
export interface PointReport {
  /** The anomaly map's value, interpolated as the heat map shows it; undefined in the border that the centre crop cuts off. */
  readonly value: number | undefined;
  /** With prototypes, and inside of what the encoder saw. */
  readonly token?: {
    readonly row: number;
    readonly column: number;
    /** Left, top, width and height of the token's patch in the source image. */
    readonly box: { readonly x: number; readonly y: number; readonly width: number; readonly height: number };
    /** The prototype that it belongs to, and the cosine similarity to each. */
    readonly prototype: number;
    readonly similarities: readonly number[];
    /** Reconstruction error of each group. */
    readonly groups: readonly number[];
    /** The view that the token is in: a tiled inspection has several. */
    readonly view: PrototypeView;
  };
}

/** @param x, y in the source image's pixels, edge coordinates (0 is the left edge of the first pixel) */
export function inspectPoint(inspection: Pick<Inspection, 'map' | 'mapWidth' | 'mapHeight' | 'placement' | 'prototypes' | 'tiles'>, x: number, y: number): PointReport {
  const { map, mapWidth, mapHeight, placement } = inspection;
  const [u, v] = [(x - placement.x) / placement.scaleX, (y - placement.y) / placement.scaleY];
  const value = u < 0 || v < 0 || u > mapWidth || v > mapHeight ? undefined : interpolate(map, mapWidth, mapHeight, u - 0.5, v - 0.5);
  const views = inspection.prototypes || inspection.tiles?.some(({ prototypes }) => prototypes) ? prototypeViews(inspection) : [];
  const view = nearestView(views, x, y);
  if (!view) return { value };
  const { rows, columns, placement: { x: left, y: top, scaleX, scaleY } } = view;
  const [column, row] = [Math.floor((x - left) / scaleX), Math.floor((y - top) / scaleY)];
  if (row < 0 || column < 0 || row >= rows || column >= columns) return { value };
  const token = row * columns + column;
  return {
    value,
    token: {
      row, column, view, box: { x: left + column * scaleX, y: top + row * scaleY, width: scaleX, height: scaleY },
      prototype: view.index[token]!,
      similarities: Array.from({ length: view.count }, (_, m) => view.similarity[m * rows * columns + token]!),
      groups: view.groups.map((group) => group[token]!),
    },
  };
}

/** Of the views of overlapping tiles the one in which the point lies deepest. */
function nearestView(views: readonly PrototypeView[], x: number, y: number): PrototypeView | undefined {
  const fromCentre = ({ rows, columns, placement: { x: left, y: top, scaleX, scaleY } }: PrototypeView): number =>
    Math.max(Math.abs((x - left) / scaleX / columns - 0.5), Math.abs((y - top) / scaleY / rows - 0.5));
  return views.reduce<PrototypeView | undefined>((best, view) => (best && fromCentre(best) <= fromCentre(view) ? best : view), undefined);
}

function interpolate(values: ArrayLike<number>, width: number, height: number, x: number, y: number, offset = 0): number {
  const [u, v] = [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  const [i, j] = [Math.min(Math.floor(u), Math.max(0, width - 2)), Math.min(Math.floor(v), Math.max(0, height - 2))];
  const [s, t] = [u - i, v - j];
  const at = (column: number, row: number) => values[offset + Math.min(row, height - 1) * width + Math.min(column, width - 1)]!;
  return (at(i, j) * (1 - s) + at(i + 1, j) * s) * (1 - t) + (at(i, j + 1) * (1 - s) + at(i + 1, j + 1) * s) * t;
}

export interface PictureOptions {
  /** Longer side of the picture; the image's own at most. Default 512. */
  readonly size?: number;
  /** The colour of each prototype; {@link prototypeColour} by default. */
  readonly colour?: (m: number) => Colour;
}

/**
 * The image in grey, each part in its prototype's colour. Between tokens the similarities are interpolated, so that borders
 * run as smoothly as the similarities do; what the encoder did not see stays grey.
 * @returns RGB
 */
export function drawPrototypes(image: RasterImage, views: readonly PrototypeView[], options: PictureOptions = {}): RasterImage {
  const { width, height, data } = greyPicture(image, options.size ?? 512);
  const layer = prototypeLayer(image, views, { ...options, size: Math.max(width, height) }).data;
  for (let pixel = 0; pixel < width * height; pixel++) {
    if (layer[pixel * 4 + 3] === 0) continue;
    const isBorder = borderColour.every((c, channel) => layer[pixel * 4 + channel] === c);
    for (let c = 0; c < 3; c++) data[pixel * 3 + c] = isBorder ? borderColour[c]! : 0.62 * layer[pixel * 4 + c]! + 0.38 * data[pixel * 3 + c]!;
  }
  return { width, height, channels: 3, data };
}

/** Between the prototypes' parts. */
const borderColour: Colour = [20, 20, 20];

/**
 * The colours of {@link drawPrototypes} alone, to be laid over the image: opaque, with dark borders, and transparent where the
 * encoder saw nothing. Its longer side is `size`, be the image smaller: the similarities are interpolated either way.
 * @returns RGBA
 */
export function prototypeLayer(image: ImageSize, views: readonly PrototypeView[], { size = 512, colour = prototypeColour }: PictureOptions = {}): RasterImage & { data: Uint8Array<ArrayBuffer> } {
  const { width, height } = scaledTo(image, size);
  const owners = new Int16Array(width * height).fill(-1);
  eachPixel({ width, height }, image, views, (pixel, view, u, v) => {
    const tokens = view.rows * view.columns;
    let best = -Infinity;
    for (let m = 0; m < view.count; m++) {
      const value = interpolate(view.similarity, view.columns, view.rows, u - 0.5, v - 0.5, m * tokens);
      if (value > best) {
        best = value;
        owners[pixel] = m;
      }
    }
  });
  const data = new Uint8Array(width * height * 4);
  owners.forEach((m, pixel) => {
    if (m < 0) return;
    const isBorder = [pixel % width + 1 < width ? owners[pixel + 1] : m, pixel + width < owners.length ? owners[pixel + width] : m].some((other) => other !== m);
    data.set(isBorder ? borderColour : colour(m), pixel * 4);
    data[pixel * 4 + 3] = 255;
  });
  return { width, height, channels: 4, data };
}

export interface SimilarityOptions extends PictureOptions {
  /** Of cosine similarity; {@link similarityScale} by default. */
  readonly scale?: HeatScale;
}

/** How similar each part is to prototype `m`: from black, at the scale's low end, to the prototype's colour at its high end, over the image in grey. */
export function drawSimilarity(image: RasterImage, views: readonly PrototypeView[], m: number, options: SimilarityOptions = {}): RasterImage {
  const picture = greyPicture(image, options.size ?? 512);
  const layer = similarityLayer(image, views, m, { ...options, size: Math.max(picture.width, picture.height) }).data;
  for (let pixel = 0; pixel < picture.width * picture.height; pixel++) {
    if (layer[pixel * 4 + 3] !== 0) picture.data.set(layer.subarray(pixel * 4, pixel * 4 + 3), pixel * 3);
  }
  return picture;
}

/** The colours of {@link drawSimilarity} alone, as {@link prototypeLayer} has its own. @returns RGBA */
export function similarityLayer(
  image: ImageSize, views: readonly PrototypeView[], m: number, { size = 512, colour = prototypeColour, scale = similarityScale(views) }: SimilarityOptions = {},
): RasterImage & { data: Uint8Array<ArrayBuffer> } {
  const { width, height } = scaledTo(image, size);
  const data = new Uint8Array(width * height * 4);
  const ink = colour(m);
  eachPixel({ width, height }, image, views, (pixel, view, u, v) => {
    const value = interpolate(view.similarity, view.columns, view.rows, u - 0.5, v - 0.5, m * view.rows * view.columns);
    const t = Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low)));
    for (let c = 0; c < 3; c++) data[pixel * 4 + c] = t * ink[c]!;
    data[pixel * 4 + 3] = 255;
  });
  return { width, height, channels: 4, data };
}

/** One scale for all prototypes of an image: from its lowest to its highest similarity. */
export function similarityScale(views: readonly PrototypeView[]): HeatScale {
  let [low, high] = [Infinity, -Infinity];
  for (const { similarity } of views) for (const value of similarity) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return { low, high: Math.max(high, low + 1e-6) };
}

/** The reconstruction error of group `g`, in the heat map's colours. @param scale that of the anomaly map, which is the groups' mean */
export function drawGroup(image: RasterImage, views: readonly PrototypeView[], g: number, { size = 512, scale }: PictureOptions & { scale: HeatScale }): RasterImage {
  const picture = greyPicture(image, size);
  const value = new Float32Array(1);
  eachPixel(picture, image, views, (pixel, view, u, v) => {
    value[0] = interpolate(view.groups[g]!, view.columns, view.rows, u - 0.5, v - 0.5);
    picture.data.set(colorize(value, 1, 1, scale).subarray(0, 3), pixel * 3);
  });
  return picture;
}

function scaledTo(image: ImageSize, size: number): ImageSize {
  const factor = size / Math.max(image.width, image.height);
  return { width: Math.max(1, Math.round(image.width * factor)), height: Math.max(1, Math.round(image.height * factor)) };
}

function greyPicture(image: RasterImage, size: number): RasterImage & { data: Uint8Array } {
  const { width, height } = scaledTo(image, Math.min(size, Math.max(image.width, image.height)));
  const { data, channels } = resizeAntialiased(withoutAlpha(image), width, height);
  const luma = (pixel: number) => (channels === 1 ? data[pixel]! : 0.299 * data[pixel * 3]! + 0.587 * data[pixel * 3 + 1]! + 0.114 * data[pixel * 3 + 2]!);
  return { width, height, channels: 3, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => luma(Math.floor(i / 3))) };
}

/** Calls `draw` for each pixel that a view covers, with the position in units of the view's tokens. */
function eachPixel({ width, height }: ImageSize, image: ImageSize, views: readonly PrototypeView[], draw: (pixel: number, view: PrototypeView, u: number, v: number) => void): void {
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const [x, y] = [((column + 0.5) * image.width) / width, ((row + 0.5) * image.height) / height];
      const view = views.length === 1 ? views[0]! : nearestView(views, x, y)!;
      const [u, v] = [(x - view.placement.x) / view.placement.scaleX, (y - view.placement.y) / view.placement.scaleY];
      if (u >= 0 && v >= 0 && u <= view.columns && v <= view.rows) draw(row * width + column, view, u, v);
    }
  }
}

/** How the partition of an image by one model differs from that by another, on the same or another grid of tokens. */
export interface PartitionComparison {
  /** Adjusted Rand index: 1 where both are the same but for names, around 0 where they have nothing to do with each other. */
  readonly agreement: number;
  /** For each prototype of the second, the one of the first that it shares most with, each taken once; -1 where none is left. */
  readonly partners: readonly number[];
}

/** Compares where both see the image, at the tokens of the finer grid. */
export function comparePartitions(first: PrototypeView, second: PrototypeView): PartitionComparison {
  const fine = first.rows * first.columns >= second.rows * second.columns ? first : second;
  const labelAt = ({ rows, columns, index, placement }: PrototypeView, x: number, y: number): number | undefined => {
    const [column, row] = [Math.floor((x - placement.x) / placement.scaleX), Math.floor((y - placement.y) / placement.scaleY)];
    return row < 0 || column < 0 || row >= rows || column >= columns ? undefined : index[row * columns + column]!;
  };
  const table = Array.from({ length: first.count }, () => new Float64Array(second.count));
  for (let row = 0; row < fine.rows; row++) {
    for (let column = 0; column < fine.columns; column++) {
      const [x, y] = [fine.placement.x + (column + 0.5) * fine.placement.scaleX, fine.placement.y + (row + 0.5) * fine.placement.scaleY];
      const [a, b] = [labelAt(first, x, y), labelAt(second, x, y)];
      if (a !== undefined && b !== undefined) table[a]![b]!++;
    }
  }
  return { agreement: adjustedRand(table), partners: matchByOverlap(table, second.count) };
}

/** Hubert and Arabie, "Comparing partitions" (1985). */
function adjustedRand(table: readonly Float64Array[]): number {
  const pairs = (n: number) => (n * (n - 1)) / 2;
  const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);
  const rows = table.map((row) => sum(row));
  const columns = Array.from(table[0]!, (_, b) => sum(table.map((row) => row[b]!)));
  const [inRows, inColumns] = [sum(rows.map(pairs)), sum(columns.map(pairs))];
  const expected = (inRows * inColumns) / Math.max(1, pairs(sum(rows)));
  const most = (inRows + inColumns) / 2;
  return most === expected ? 1 : (sum(table.map((row) => sum([...row].map(pairs)))) - expected) / (most - expected);
}

/** The largest overlap first. */
function matchByOverlap(table: readonly Float64Array[], count: number): number[] {
  const partners = Array.from({ length: count }, () => -1);
  const free = new Set(table.keys());
  const overlaps = table.flatMap((row, a) => Array.from(row, (shared, b) => ({ a, b, shared }))).filter(({ shared }) => shared > 0).sort((p, q) => q.shared - p.shared);
  for (const { a, b } of overlaps) {
    if (partners[b] !== -1 || !free.has(a)) continue;
    partners[b] = a;
    free.delete(a);
  }
  return partners;
}

/** Colours for the second of two compared models: a partner's colour, and for prototypes without one colours that the first does not use. */
export function partnerColours({ partners }: PartitionComparison, firstCount: number): (m: number) => Colour {
  let next = firstCount;
  const colours = partners.map((partner) => prototypeColour(partner === -1 ? next++ : partner));
  return (m) => colours[m]!;
}
