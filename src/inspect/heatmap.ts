/**
 * An anomaly map as a picture. Colour is a function of the map's value alone, heat = (value - low) / (high - low) on the
 * calibration's fixed scale, never of the image's own minimum and maximum: so a good image stays clean, and two images
 * can be compared. Over a picture the heat's opacity grows with it, from nothing at the level of a normal pixel.
 */
import { checkRasterImage, type RasterImage } from '../data/image.ts';
import { UsageError } from '../errors.ts';
import type { MapPlacement } from './regions.ts';

/** The map values at heat 0 and 1; a calibration's `scaleLow` and `scaleHigh`. */
export interface HeatScale {
  readonly low: number;
  readonly high: number;
}

export type Colour = readonly [red: number, green: number, blue: number];

/**
 * Matplotlib's "inferno" (perceptually uniform, dark to bright, CC0), as the polynomial of degree 6 that Matt Zucker
 * fitted to it (shadertoy.com/view/WlfXRN, CC0): within 4 of 255 of the table, in blue within 9. One row a power of heat; red, green, blue.
 */
const INFERNO: readonly Colour[] = [
  [0.0002189403691192265, 0.001651004631001012, -0.01948089843709184],
  [0.1065134194856116, 0.5639564367884091, 3.932712388889277],
  [11.60249308247187, -3.972853965665698, -15.9423941062914],
  [-41.70399613139459, 17.43639888205313, 44.35414519872813],
  [77.162935699427, -33.40235894210092, -81.80730925738993],
  [-71.31942824499214, 32.62606426397723, 73.20951985803202],
  [25.13112622477341, -12.24266895238567, -23.07032500287172],
];

/** RGB bytes of 256 heats. */
const TABLE = Uint8ClampedArray.from({ length: 256 * 3 }, (_, i) => {
  const heat = Math.floor(i / 3) / 255;
  return 255 * INFERNO.reduceRight((sum, coefficients) => sum * heat + coefficients[i % 3]!, 0);
});

/** Heat of a map value: 0 at the scale's low end, 1 at its high end, clamped. */
export function heatOf(value: number, { low, high }: HeatScale): number {
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/** The colour of a heat in [0, 1]. */
export function heatColour(heat: number): Colour {
  const i = 3 * Math.round(255 * heat);
  return [TABLE[i]!, TABLE[i + 1]!, TABLE[i + 2]!];
}

/**
 * Share of the full opacity at a heat: nothing below 0.1, where normal pixels are, full from 0.4, smooth between.
 * The pixel threshold, at heat 0.2, gets 26 %.
 */
export function heatOpacity(heat: number): number {
  const t = Math.min(1, Math.max(0, (heat - 0.1) / 0.3));
  return t * t * (3 - 2 * t);
}

/**
 * The map as opaque colours, or, with `fade`, with alpha by {@link heatOpacity} to be drawn over a picture.
 * @param map `width * height`, row-major
 * @returns RGBA, `width * height * 4`
 */
export function colorize(map: Float32Array, width: number, height: number, scale: HeatScale, { fade = false }: { fade?: boolean } = {}): Uint8ClampedArray {
  checkMap(map, width, height, 'colorize');
  checkScale(scale);
  const pixels = new Uint8ClampedArray(map.length * 4);
  map.forEach((value, i) => {
    const heat = heatOf(value, scale);
    pixels.set(heatColour(heat), i * 4);
    pixels[i * 4 + 3] = fade ? 255 * heatOpacity(heat) : 255;
  });
  return pixels;
}

/** An inspection is one, too. */
export interface OverlayOptions {
  readonly mapWidth: number;
  readonly mapHeight: number;
  /** Where the map lies in the image: an inspection's `placement`. */
  readonly placement: MapPlacement;
  readonly scale: HeatScale;
  /** Opacity of the hottest pixels, in [0, 1]; 0.75 by default. 0 leaves only the outlines. */
  readonly opacity?: number;
  /** Masks at the map's size whose borders are drawn. */
  readonly outlines?: readonly { readonly mask: Uint8Array; readonly colour: Colour }[];
}

/** Of found regions and of ground truth; both stand out from inferno's colours, and from each other. */
export const FOUND_OUTLINE: Colour = [0, 229, 255];
export const TRUTH_OUTLINE: Colour = [57, 255, 20];

/**
 * Heat and outlines over the picture, at the picture's size. The border that the centre crop cuts off has no map and
 * stays as it is.
 * @returns RGB
 */
export function overlay(image: RasterImage, map: Float32Array, options: OverlayOptions): RasterImage {
  checkRasterImage(image);
  const { mapWidth, mapHeight, scale, opacity = 0.75, outlines = [] } = options;
  checkMap(map, mapWidth, mapHeight, 'overlay');
  checkScale(scale);
  if (!(opacity >= 0 && opacity <= 1)) throw new UsageError(`overlay: the opacity lies in [0, 1], got ${opacity}.`);
  const { width, height } = image;
  const data = toRgb(image);
  const area = cropArea(image, options);
  if (opacity > 0) {
    const sample = bilinearSampler(map, mapWidth, mapHeight, area);
    for (let y = area.top; y < area.bottom; y++) {
      for (let x = area.left; x < area.right; x++) {
        const heat = heatOf(sample(x, y), scale);
        const alpha = opacity * heatOpacity(heat);
        if (alpha === 0) continue;
        const colour = 3 * Math.round(255 * heat);
        const pixel = (y * width + x) * 3;
        for (let c = 0; c < 3; c++) data[pixel + c] = Math.round(data[pixel + c]! * (1 - alpha) + TABLE[colour + c]! * alpha);
      }
    }
  }
  for (const { mask, colour } of outlines) {
    checkMap(mask, mapWidth, mapHeight, 'overlay');
    drawOutline(data, image, area, mask, options, colour);
  }
  return { width, height, channels: 3, data };
}

/** The part of the source image that the map covers: whole pixels, and the map's position for sampling. */
interface CropArea {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
  readonly toMapX: (x: number) => number;
  readonly toMapY: (y: number) => number;
}

function cropArea({ width, height }: RasterImage, { placement: { x, y, scaleX, scaleY }, mapWidth, mapHeight }: OverlayOptions): CropArea {
  return {
    left: Math.max(0, Math.round(x)),
    top: Math.max(0, Math.round(y)),
    right: Math.min(width, Math.round(x + mapWidth * scaleX)),
    bottom: Math.min(height, Math.round(y + mapHeight * scaleY)),
    // Pixel centres to pixel centres.
    toMapX: (column) => (column + 0.5 - x) / scaleX - 0.5,
    toMapY: (row) => (row + 0.5 - y) / scaleY - 0.5,
  };
}

/** Reads `values` between its pixels, at a position given in the source image's pixels; clamped at the border. */
function bilinearSampler(values: ArrayLike<number>, width: number, height: number, area: CropArea): (x: number, y: number) => number {
  const columns = Array.from({ length: area.right - area.left }, (_, i) => position(area.toMapX(area.left + i), width));
  const rows = Array.from({ length: area.bottom - area.top }, (_, i) => position(area.toMapY(area.top + i), height));
  return (x, y) => {
    const column = columns[x - area.left]!;
    const row = rows[y - area.top]!;
    const top = row.below * width;
    const bottom = row.above * width;
    const upper = values[top + column.below]! * (1 - column.share) + values[top + column.above]! * column.share;
    const lower = values[bottom + column.below]! * (1 - column.share) + values[bottom + column.above]! * column.share;
    return upper * (1 - row.share) + lower * row.share;
  };
}

function position(value: number, size: number): { below: number; above: number; share: number } {
  const clamped = Math.min(size - 1, Math.max(0, value));
  const below = Math.floor(clamped);
  return { below, above: Math.min(size - 1, below + 1), share: clamped - below };
}

/** Colours the pixels inside the smoothly enlarged mask that lie within a line's width of its border. */
function drawOutline(data: Uint8Array, { width, height }: RasterImage, area: CropArea, mask: Uint8Array, { mapWidth, mapHeight }: OverlayOptions, colour: Colour): void {
  const sample = bilinearSampler(mask, mapWidth, mapHeight, area);
  const inside = new Uint8Array(width * height);
  for (let y = area.top; y < area.bottom; y++) {
    for (let x = area.left; x < area.right; x++) inside[y * width + x] = sample(x, y) > 0.5 ? 1 : 0;
  }
  const line = Math.max(1, Math.round(Math.min(width, height) / 250));
  const isInside = (x: number, y: number) => x >= area.left && x < area.right && y >= area.top && y < area.bottom && inside[y * width + x] === 1;
  for (let y = area.top; y < area.bottom; y++) {
    for (let x = area.left; x < area.right; x++) {
      if (inside[y * width + x] === 0) continue;
      if (isInside(x - line, y) && isInside(x + line, y) && isInside(x, y - line) && isInside(x, y + line)) continue;
      data.set(colour, (y * width + x) * 3);
    }
  }
}

function toRgb({ width, height, channels, data }: RasterImage): Uint8Array {
  if (channels === 3) return Uint8Array.from(data);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = data[i * channels + (channels === 1 ? 0 : c)]!;
  }
  return rgb;
}

function checkMap(map: ArrayLike<number>, width: number, height: number, caller: string): void {
  if (map.length !== width * height) throw new UsageError(`${caller}: a ${width} x ${height} map has ${width * height} values, got ${map.length}.`);
}

function checkScale({ low, high }: HeatScale): void {
  if (!(Number.isFinite(low) && Number.isFinite(high) && high > low)) {
    throw new UsageError(`The heat scale needs finite ends, low < high; got ${low} to ${high}.`);
  }
}
