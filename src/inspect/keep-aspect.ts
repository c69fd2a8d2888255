/**
 * Inspection without distortion. The model's shape is that of the median training image, on whole patches. An image is scaled
 * by one factor for both axes until it fits into it. What then lacks is at most half a patch for images of that shape, and
 * they are stretched by it; an image of another shape is extended by its mirror image, and what the map says of the extension
 * is left out again.
 */
import type { RasterImage } from '../data/image.ts';
import { toSize } from '../data/preprocess.ts';
import { scoredFraction } from '../model/scoring.ts';
import type { ImageSize } from '../model/config.ts';
import { inspectViews, type FramedInspection, type FramedModel } from './framed.ts';
import type { InspectionDetails, InspectionNetwork } from './inspector.ts';
import type { Box, MapPlacement } from './regions.ts';
import { boxAround, cutMap, cutView, meanOfLargest } from './view.ts';

/**
 * A model's shape for images of this one: as many pixels as a square of `side`, the short side rounded to a multiple of the
 * patch first, so that the long one is off by at most half a patch.
 */
export function shapeFor({ width, height }: ImageSize, side: number, patchSize: number): ImageSize {
  const aspect = Math.max(width, height) / Math.min(width, height);
  const patches = (pixels: number) => Math.max(1, Math.round(pixels / patchSize)) * patchSize;
  const short = patches(side / Math.sqrt(aspect));
  const long = patches(short * aspect);
  return width >= height ? { width: long, height: short } : { width: short, height: long };
}

/** The median of images' shapes: of their widths and heights, by aspect ratio. */
export function medianShape(sizes: readonly ImageSize[]): ImageSize {
  const sorted = [...sizes].sort((a, b) => a.width / a.height - b.width / b.height || a.width - b.width);
  return sorted[sorted.length >> 1]!;
}

/** The image in the proportions of `resize`, and where that box lies in it; no box where it is stretched by at most half a patch. */
export function extended(image: RasterImage, resize: ImageSize, patchSize: number): { image: RasterImage; box: Box | undefined } {
  const scale = Math.min(resize.width / image.width, resize.height / image.height);
  if (Math.max(resize.width - scale * image.width, resize.height - scale * image.height) <= patchSize / 2) return { image, box: undefined };
  const box = boxAround(image, resize);
  return { image: cutView(image, box), box };
}

/** Images through a network without distortion. */
export async function inspectUndistorted(network: InspectionNetwork, images: readonly RasterImage[], model: FramedModel, details: InspectionDetails): Promise<FramedInspection[]> {
  const views = images.map((image) => extended(image, toSize(model.resize), network.config.architecture.patchSize));
  const inspections = await inspectViews(network, views.map(({ image }) => image), model, details);
  return inspections.map((inspection, i) => (views[i]!.box ? withoutExtension(inspection, views[i]!.box, images[i]!) : inspection));
}

/** The inspection of an extended image as one of the image alone: its map's part within the image, and that part's score. */
function withoutExtension(inspection: FramedInspection, box: Box, image: ImageSize): FramedInspection {
  const { map, mapWidth, mapHeight, prototypes, groupMaps } = inspection;
  const moved = (placement: MapPlacement): MapPlacement => ({ ...placement, x: placement.x + box.x, y: placement.y + box.y });
  const placement = moved(inspection.placement);
  const window = windowOf(placement, { width: mapWidth, height: mapHeight }, image);
  const part = cutMap(map, mapWidth, window);
  return {
    score: meanOfLargest(part, Math.max(1, Math.floor(scoredFraction * part.length))),
    map: part, mapWidth: window.width, mapHeight: window.height,
    placement: { ...placement, x: placement.x + window.x * placement.scaleX, y: placement.y + window.y * placement.scaleY },
    ...(groupMaps && { groupMaps: groupMaps.map((of) => cutMap(of, mapWidth, window)) }),
    ...(prototypes && { prototypes: { ...prototypes, placement: moved(prototypes.placement) } }),
  };
}

/** The map pixels whose centres lie in the image; at least one a side. */
export function windowOf({ x, y, scaleX, scaleY }: MapPlacement, map: ImageSize, image: ImageSize): Box {
  const within = (start: number, scale: number, count: number, limit: number): [first: number, length: number] => {
    const first = Math.min(count - 1, Math.max(0, Math.ceil(-start / scale - 0.5)));
    return [first, Math.max(1, Math.min(count, Math.ceil((limit - start) / scale - 0.5)) - first)];
  };
  const [left, width] = within(x, scaleX, map.width, image.width);
  const [top, height] = within(y, scaleY, map.height, image.height);
  return { x: left, y: top, width, height };
}
