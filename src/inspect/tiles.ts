/**
 * A large image through a model that sees a small one: overlapping tiles of the size that the model saw in training, each
 * inspected by itself, and their maps blended into one over the whole image:
 *
 *   map(p) = sum_t w_t(p) map_t(p) / sum_t w_t(p)
 *
 * where w_t falls smoothly to nothing at the edge of tile t, over the whole of its overlap, so that no seam shows. Tiles form
 * rows and columns, so everything is separable: tables for each axis, made once, hold the way between a tile's map pixels and
 * the whole map's, and the weights, normalised. Only the tiles of one batch are in memory besides the map.
 */
import type { RasterImage } from '../data/image.ts';
import { cropOffset, toSize } from '../data/preprocess.ts';
import { AbortedError, UsageError } from '../errors.ts';
import type { ImageSize } from '../model/config.ts';
import { scoredFraction } from '../model/scoring.ts';
import { inspectViews, type FramedInspection, type FramedModel } from './framed.ts';
import type { InspectionDetails, InspectionNetwork } from './inspector.ts';
import type { ModelMetadata } from './model-file.ts';
import type { Box, MapPlacement } from './regions.ts';
import { cutView, meanOfLargest } from './view.ts';

export interface TileOptions {
  /** Share of a tile's side that neighbours have in common at least, from 0 (no blending: seams may show) to 0.75; default 0.25. */
  readonly overlap?: number;
  readonly signal?: AbortSignal;
  readonly onTile?: (done: number, total: number) => void;
}

export const defaultOverlap = 0.25;
const highestOverlap = 0.75;

/** One axis of what a tile is, from a model's metadata. */
export interface TileAxis {
  /** Source pixels that are cut out for a tile, and how many of them the centre crop leaves away before the tile and keeps. */
  readonly cut: number;
  readonly inset: number;
  readonly view: number;
  /** Pixels of its map. */
  readonly mapSize: number;
}

/** One axis of a tiling. */
export interface AxisTiling {
  /** First source pixel that is cut out for each tile; may be negative. */
  readonly cuts: readonly number[];
  /** Where each tile itself begins. */
  readonly origins: readonly number[];
  /** Pixels of the whole map. */
  readonly mapSize: number;
  readonly spans: readonly TileSpan[];
}

/** What of the whole map one tile writes: each pixel is interpolated between two of the tile's and counts by its weight. */
interface TileSpan {
  readonly first: number;
  /** The tile's map pixel `lower[i]` with 1 - share[i], the next one with share[i]. */
  readonly lower: Int32Array;
  readonly share: Float32Array;
  readonly weight: Float32Array;
}

/** Where tiles begin that cover an axis evenly, neighbours overlapping by at least this share; before 0 where one tile is larger than the axis. */
export function tileOrigins(size: number, view: number, overlap: number): number[] {
  if (size <= view) return [(size - view) / 2];
  const count = Math.max(2, Math.ceil((size - overlap * view) / ((1 - overlap) * view) - 1e-9));
  return Array.from({ length: count }, (_, i) => (i * (size - view)) / (count - 1));
}

/** @param size of the image along this axis */
export function tileAxis(size: number, { cut, inset, view, mapSize: tileMap }: TileAxis, overlap: number): AxisTiling {
  if (!(cut >= view && view > 0)) throw new UsageError(`A tile of ${view} pixels can't be cut out of ${cut}.`);
  const cuts = tileOrigins(size, view, overlap).map((origin) => Math.round(origin - inset));
  const origins = cuts.map((first) => first + inset);
  const mapSize = Math.max(1, Math.round((size * tileMap) / view));
  const shared = origins.slice(1).reduce((least, origin, i) => Math.min(least, origins[i]! + view - origin), view);
  const totals = new Float64Array(mapSize);
  const spans = origins.map((origin) => {
    // Where the whole map's pixel centres lie in the tile, in units of its map.
    const position = (pixel: number): number => ((((pixel + 0.5) * size) / mapSize - origin) * tileMap) / view;
    const covered = Array.from({ length: mapSize }, (_, pixel) => pixel).filter((pixel) => position(pixel) >= 0 && position(pixel) <= tileMap);
    const at = covered.map((pixel) => Math.min(tileMap - 1, Math.max(0, position(pixel) - 0.5)));
    const weight = Float64Array.from(covered, (pixel) => {
      const toEdge = (Math.min(position(pixel), tileMap - position(pixel)) * view) / tileMap;
      return shared > 0 ? smoothStep(toEdge / shared) : 1;
    });
    covered.forEach((pixel, i) => { totals[pixel]! += weight[i]!; });
    const lower = Int32Array.from(at, (u) => Math.min(Math.max(0, tileMap - 2), Math.floor(u)));
    return { first: covered[0]!, lower, share: Float32Array.from(at, (u, i) => u - lower[i]!), weight };
  });
  return {
    cuts, origins, mapSize,
    spans: spans.map((span) => ({ ...span, weight: Float32Array.from(span.weight, (w, i) => w / totals[span.first + i]!) })),
  };
}

/** From just above 0 to 1. */
function smoothStep(x: number): number {
  const t = Math.min(1, Math.max(1e-3, x));
  return t * t * (3 - 2 * t);
}

/** What of a model's metadata says how large a tile is. */
export type TiledModel = Pick<ModelMetadata, 'resize' | 'crop' | 'mapSize' | 'view'>;

/** A tile shows what the crop shows of an image of the view's size. */
export function tileOf({ resize, crop, mapSize, view }: TiledModel): { vertical: TileAxis; horizontal: TileAxis } {
  const [from, to, cut, map] = [resize, crop, view, mapSize].map((size) => toSize(size)) as [ImageSize, ImageSize, ImageSize, ImageSize];
  const offset = cropOffset(from, to);
  return {
    vertical: { cut: cut.height, inset: (offset.y * cut.height) / from.height, view: (to.height * cut.height) / from.height, mapSize: map.height },
    horizontal: { cut: cut.width, inset: (offset.x * cut.width) / from.width, view: (to.width * cut.width) / from.width, mapSize: map.width },
  };
}

/** A map over the whole of an image, put together of its tiles' maps. */
export class TiledMap {
  readonly vertical: AxisTiling;
  readonly horizontal: AxisTiling;
  readonly map: Float32Array;
  private readonly tileWidth: number;

  constructor(image: { width: number; height: number }, model: TiledModel, overlap: number = defaultOverlap) {
    if (!(overlap >= 0 && overlap <= highestOverlap)) throw new UsageError(`Tiles overlap by a share of their side from 0 to ${highestOverlap}, got ${overlap}.`);
    const { vertical, horizontal } = tileOf(model);
    this.vertical = tileAxis(image.height, vertical, overlap);
    this.horizontal = tileAxis(image.width, horizontal, overlap);
    this.map = new Float32Array(this.vertical.mapSize * this.horizontal.mapSize);
    this.tileWidth = horizontal.mapSize;
  }

  /** Adds the map of the tile in this row and column of tiles. */
  add(row: number, column: number, tile: Float32Array): void {
    const [v, h] = [this.vertical.spans[row]!, this.horizontal.spans[column]!];
    const rows = Array.from({ length: tile.length / this.tileWidth }, (_, row) => Float32Array.from(h.lower, (lower, i) => {
      const [left, right] = [lower, Math.min(lower + 1, this.tileWidth - 1)].map((x) => tile[row * this.tileWidth + x]!) as [number, number];
      return h.weight[i]! * (left + h.share[i]! * (right - left));
    }));
    v.lower.forEach((lower, i) => {
      const [upper, below] = [rows[lower]!, rows[Math.min(lower + 1, rows.length - 1)]!];
      const [weight, share] = [v.weight[i]!, v.share[i]!];
      const target = (v.first + i) * this.horizontal.mapSize + h.first;
      for (let x = 0; x < upper.length; x++) this.map[target + x]! += weight * (upper[x]! + share * (below[x]! - upper[x]!));
    });
  }
}

export interface TileResult<T> {
  /** In the image's pixels, to the nearest one; reaches beyond where the image is smaller than a tile. */
  readonly source: Box;
  /** What was cut out for it: with the border that the centre crop leaves away. */
  readonly cut: Box;
  readonly result: T;
}

export interface TiledInspection<T> {
  /** Mean of the map's highest values, as many as the score of one tile takes. */
  readonly score: number;
  readonly map: Float32Array;
  readonly mapWidth: number;
  readonly mapHeight: number;
  readonly placement: MapPlacement;
  /** Blended like the map, where the tiles have them. */
  readonly groupMaps?: readonly Float32Array[];
  /** Row by row. */
  readonly tiles: readonly TileResult<T>[];
}

/**
 * Inspects an image tile by tile.
 *
 * The score is the mean of as many of the whole map's highest pixels as 1 % of a TILE has: a defect weighs as much as it would
 * in an image of one tile, however large the rest is. An image of one tile has the very score of a plain inspection.
 * @param run inspects some tiles at once; keeps no reference to their maps
 * @param batchSize tiles that are cut and run at a time
 */
export async function inspectTiles<T extends { readonly map: Float32Array; readonly groupMaps?: readonly Float32Array[] }>(
  image: RasterImage, model: TiledModel, run: (tiles: readonly RasterImage[]) => Promise<readonly T[]>,
  { overlap, signal, onTile, batchSize }: TileOptions & { readonly batchSize: number },
): Promise<TiledInspection<Omit<T, 'map' | 'groupMaps'>>> {
  const whole = new TiledMap(image, model, overlap);
  const groups: TiledMap[] = [];
  const { vertical, horizontal, map } = whole;
  const tile = tileOf(model);
  const places = vertical.cuts.flatMap((y, row) => horizontal.cuts.map((x, column) => ({
    row, column,
    cut: { x, y, width: tile.horizontal.cut, height: tile.vertical.cut },
    source: { x: Math.round(horizontal.origins[column]!), y: Math.round(vertical.origins[row]!), width: Math.round(tile.horizontal.view), height: Math.round(tile.vertical.view) },
  })));
  const tiles: TileResult<Omit<T, 'map' | 'groupMaps'>>[] = [];
  for (let start = 0; start < places.length; start += batchSize) {
    if (signal?.aborted) throw new AbortedError(`The inspection was stopped after ${start} of ${places.length} tiles.`);
    const batch = places.slice(start, start + batchSize);
    const results = await run(batch.map(({ cut }) => cutView(image, cut)));
    batch.forEach(({ row, column, source, cut }, i) => {
      const { map: tileMap, groupMaps, ...result } = results[i]!;
      whole.add(row, column, tileMap);
      groupMaps?.forEach((of, g) => (groups[g] ??= new TiledMap(image, model, overlap)).add(row, column, of));
      tiles.push({ source, cut, result });
    });
    onTile?.(tiles.length, places.length);
  }
  const area = Math.min(map.length, tile.horizontal.mapSize * tile.vertical.mapSize);
  return {
    score: meanOfLargest(map, Math.max(1, Math.floor(scoredFraction * area))),
    map, mapWidth: horizontal.mapSize, mapHeight: vertical.mapSize, tiles, ...(groups.length > 0 && { groupMaps: groups.map((of) => of.map) }),
    placement: { x: 0, y: 0, scaleX: image.width / horizontal.mapSize, scaleY: image.height / vertical.mapSize },
  };
}

/** Images through a network, tile by tile and one after another. */
export async function inspectInTiles(network: InspectionNetwork, images: readonly RasterImage[], model: FramedModel, options: TileOptions, details: InspectionDetails): Promise<FramedInspection[]> {
  const inspections: FramedInspection[] = [];
  for (const image of images) {
    const { tiles, ...whole } = await inspectTiles(image, model, (views) => inspectViews(network, views, model, details), { ...options, batchSize: network.batchSize });
    inspections.push({
      ...whole,
      tiles: tiles.map(({ source, cut, result: { score, prototypes: view } }) => ({
        source, score,
        ...(view && { prototypes: { ...view, placement: { ...view.placement, x: view.placement.x + cut.x, y: view.placement.y + cut.y } } }),
      })),
    });
  }
  return inspections;
}

/** The tiles that training cuts an image into: side by side, or evenly overlapping where they don't fit. */
export function trainingTiles(image: { width: number; height: number }, view: ModelMetadata['view']): Box[] {
  const size = toSize(view);
  const columns = tileOrigins(image.width, size.width, 0);
  return tileOrigins(image.height, size.height, 0).flatMap((y) => columns.map((x) => ({ x: Math.round(x), y: Math.round(y), ...size })));
}
