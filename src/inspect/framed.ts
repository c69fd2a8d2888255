/** Images as the network sees them: their maps, placed where they lie in the image, before anything is judged. */
import type { RasterImage } from '../data/image.ts';
import { toSize } from '../data/preprocess.ts';
import { tokenGrid, type ImageSize } from '../model/config.ts';
import type { Inspection, InspectionDetails, InspectionNetwork } from './inspector.ts';
import type { ModelMetadata } from './model-file.ts';
import { placeMap } from './regions.ts';

/** What was seen of an image, before anything is judged. */
export type FramedInspection = Pick<Inspection, 'score' | 'map' | 'mapWidth' | 'mapHeight' | 'placement' | 'prototypes' | 'groupMaps' | 'tiles'>;

/** What of a model's metadata says how images are framed. */
export type FramedModel = Pick<ModelMetadata, 'resize' | 'crop' | 'mapSize' | 'framing' | 'view'>;

/** Images that are stretched to the model's shape. */
export async function inspectViews(network: InspectionNetwork, images: readonly RasterImage[], { resize, crop, mapSize }: FramedModel, { prototypes = false, groups = false }: InspectionDetails): Promise<FramedInspection[]> {
  const map = toSize(mapSize);
  const views = prototypes ? await import('./prototype-view.ts') : undefined;
  const grouped = groups ? await import('./group-maps.ts') : undefined;
  views?.checkHasPrototypes(network.config);
  return (await network.run(images, prototypes || groups)).map(({ score, map: values, tokens, slot }, i) => {
    const placed = ({ width, height }: ImageSize) => placeMap({ resize, crop, sourceWidth: images[i]!.width, sourceHeight: images[i]!.height, mapWidth: width, mapHeight: height });
    const { rows, columns } = tokenGrid(network.config);
    return {
      score, map: values, mapWidth: map.width, mapHeight: map.height, placement: placed(map),
      ...(grouped && { groupMaps: grouped.groupMapsOf(tokens!, slot, network.config, values.length) }),
      ...(views && { prototypes: views.prototypeView(tokens!, slot, network.config, placed({ width: columns, height: rows })) }),
    };
  });
}
