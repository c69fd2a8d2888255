/**
 * What of an anomaly map is a defect: mask = map > pixel threshold, its 8-connected regions without the specks, each
 * boxed in the map's pixels and in those of the image that came from the camera. The way back undoes the preprocessing:
 * source = (cropOffset + map * crop / mapSize) * sourceSize / resize, in edge coordinates.
 */
import { cropOffset, toSize, type Size } from '../data/preprocess.ts';
import { UsageError } from '../errors.ts';
import { labelRegions } from '../evaluate/regions.ts';

/** Left, top, width, height, in whole pixels. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface DefectRegion {
  /** In the map's pixels. */
  readonly map: Box;
  /** In the source image's pixels: the smallest box of whole pixels that covers `map`. */
  readonly source: Box;
  /** Number of map pixels in the region. */
  readonly area: number;
  /** The map's highest value in the region. */
  readonly peak: number;
}

/** Where a map lies in its source image, in edge coordinates: source x = `x` + map x * `scaleX`, source y = `y` + map y * `scaleY`. */
export interface MapPlacement {
  readonly x: number;
  readonly y: number;
  readonly scaleX: number;
  readonly scaleY: number;
}

export interface MapGeometry {
  readonly placement: MapPlacement;
  readonly sourceWidth: number;
  readonly sourceHeight: number;
  readonly mapWidth: number;
  readonly mapHeight: number;
  /** Map pixels of one view, of which {@link SPECK_SHARE} is a speck; the whole map by default. */
  readonly viewArea?: number;
}

/** What decides where a map lies: the sizes that an image passes through. */
export interface MapSizes extends Omit<MapGeometry, 'placement' | 'viewArea'> {
  readonly resize: Size;
  readonly crop: Size;
}

/** Where the map of a resized and centre-cropped image lies. The border that the crop cuts off is outside of it. */
export function placeMap({ resize, crop, sourceWidth, sourceHeight, mapWidth, mapHeight }: MapSizes): MapPlacement {
  const from = toSize(resize);
  const to = toSize(crop);
  const offset = cropOffset(resize, crop);
  return {
    x: (offset.x * sourceWidth) / from.width,
    y: (offset.y * sourceHeight) / from.height,
    scaleX: (to.width / mapWidth) * (sourceWidth / from.width),
    scaleY: (to.height / mapHeight) * (sourceHeight / from.height),
  };
}

/** A box in map pixels as the smallest box of whole source pixels that covers it. */
export function boxToSource(box: Box, geometry: MapGeometry): Box {
  const { x, y, scaleX, scaleY } = geometry.placement;
  // An edge that should be a whole number may be off by rounding; the tolerance keeps it from taking in another pixel.
  const low = (value: number) => Math.max(0, Math.floor(value + 1e-6));
  const high = (value: number, limit: number) => Math.min(limit, Math.ceil(value - 1e-6));
  const left = low(x + box.x * scaleX);
  const top = low(y + box.y * scaleY);
  return {
    x: left,
    y: top,
    width: high(x + (box.x + box.width) * scaleX, geometry.sourceWidth) - left,
    height: high(y + (box.y + box.height) * scaleY, geometry.sourceHeight) - top,
  };
}

/**
 * Regions below this share of the map are dropped as specks: 0.05 %, 33 pixels of 256 x 256, which is a third of what one
 * token covers at 28 x 28 tokens and so less than the model can resolve.
 */
export const SPECK_SHARE = 0.0005;

export interface FoundRegions {
  /** 0 or 1 per map pixel, without the specks. */
  readonly mask: Uint8Array;
  /** The highest peak first. */
  readonly regions: DefectRegion[];
}

/**
 * @param map anomaly map, `mapWidth * mapHeight`, row-major
 * @param level pixels strictly above it are defective: one for all, or one for each
 * @throws UsageError for a map of another size than the geometry says
 */
export function findRegions(map: Float32Array, level: number | Float32Array, geometry: MapGeometry): FoundRegions {
  const { mapWidth, mapHeight } = geometry;
  if (map.length !== mapWidth * mapHeight) {
    throw new UsageError(`findRegions: a ${mapWidth} x ${mapHeight} map has ${mapWidth * mapHeight} values, got ${map.length}.`);
  }
  const above = Uint8Array.from(map, (value, i) => (value > (typeof level === 'number' ? level : level[i]!) ? 1 : 0));
  const { labels, regions: labelled, count } = labelRegions(above, mapWidth, mapHeight);
  const smallest = SPECK_SHARE * (geometry.viewArea ?? map.length);
  const kept = new Uint8Array(count + 1);
  const peaks = new Float64Array(count + 1).fill(-Infinity);
  for (const { label, area } of labelled) if (area >= smallest) kept[label] = 1;
  const mask = Uint8Array.from(labels, (label) => kept[label]!);
  labels.forEach((label, i) => {
    if (map[i]! > peaks[label]!) peaks[label] = map[i]!;
  });
  const regions = labelled
    .filter(({ label }) => kept[label] === 1)
    .map(({ label, area, x, y, width, height }): DefectRegion => {
      const box = { x, y, width, height };
      return { map: box, source: boxToSource(box, geometry), area, peak: peaks[label]! };
    })
    .sort((a, b) => b.peak - a.peak);
  return { mask, regions };
}
