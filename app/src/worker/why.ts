/** One picture inspected again, with what the model compared it with: drawn here, so that the page only shows it. */
import { decodeImageBlob, type RasterImage } from '../../../src/browser/index.ts';
import { prototypeLayer, prototypeViews, similarityLayer, similarityScale, summarizeGroups } from '../../../src/inspect/prototypes.ts';
import type { Inspection, Inspector } from '../../../src/browser/index.ts';
import type { Explanation, Picture } from '../protocol.ts';
import { aroundPatch, legendOf, natureOf } from '../why.ts';
import { withInspector } from './inspection.ts';
import { bitmapOf } from './pictures.ts';

/** Longer side of a layer; the browser scales it to the picture's. */
const layerSize = 512;
const exemplarSize = 96;

export async function explain({ modelId, image }: { modelId: string; image: Picture }): Promise<Explanation> {
  const raster = await decodeImageBlob(image.image, image.name);
  return withInspector(modelId, async (inspector) => {
    const { hasPrototypes } = natureOf(inspector.metadata);
    const inspection = await inspector.inspect(raster, { prototypes: hasPrototypes, groups: true });
    return { score: inspection.score, groups: groupsOf(inspection, inspector), ...(hasPrototypes && { prototypes: await prototypesOf(inspection, raster) }) };
  });
}

function groupsOf(inspection: Inspection, { metadata }: Inspector): Explanation['groups'] {
  return summarizeGroups(inspection, metadata).map((figures, g) => ({ ...figures, map: inspection.groupMaps![g]! as Float32Array<ArrayBuffer> }));
}

async function prototypesOf(inspection: Inspection, raster: RasterImage): Promise<NonNullable<Explanation['prototypes']>> {
  const views = prototypeViews(inspection);
  const scale = similarityScale(views);
  const options = { size: layerSize, scale };
  const source = await bitmapOf(raster);
  const legend = await Promise.all(legendOf(views).map(async ({ exemplar: patch, ...figures }) => {
    const { x, y, width, height } = aroundPatch(patch, raster);
    return {
      ...figures,
      exemplar: await createImageBitmap(source, x, y, width, height, { resizeWidth: exemplarSize, resizeHeight: exemplarSize, resizeQuality: 'high' }),
      patch: { x: (patch.x - x) / width, y: (patch.y - y) / height, width: patch.width / width, height: patch.height / height },
    };
  }));
  source.close();
  return {
    legend, scale, found: { prototypes: inspection.prototypes, tiles: inspection.tiles },
    layer: await bitmapOf(prototypeLayer(raster, views, options)),
    similarities: await Promise.all(legend.map((_, m) => bitmapOf(similarityLayer(raster, views, m, options)))),
  };
}
