// Trainings of images that are not stretched: the model takes its shape from the images, or sees tiles of them, says so in
// its file, and inspections follow.
import { afterAll, describe, expect, it } from 'vitest';
import type { ImageSource } from '../../src/data/image.ts';
import { Engine } from '../../src/engine.ts';
import { UsageError } from '../../src/errors.ts';
import { Inspector } from '../../src/inspect/inspector.ts';
import { trainInspector, type CheckpointStore, type TrainingPreview, type TrainOptions } from '../../src/train/train.ts';
import { cutView } from '../../src/inspect/view.ts';
import { testGpu } from '../support/gpu.ts';
import { drawnImage, smallEncoder, unreadableSource } from '../support/small-encoder.ts';

const engine = await Engine.create({ gpu: await testGpu() });
afterAll(() => engine.dispose());

const sources = (sizes: readonly (readonly [number, number])[]): ImageSource[] =>
  sizes.map(([width, height], i) => ({ name: `image ${i}`, load: async () => drawnImage(`framing ${i}`, { width, height }) }));
const train = async (options: Partial<TrainOptions> & Pick<TrainOptions, 'images'>) => trainInspector(engine, {
  encoder: await smallEncoder(), crop: 56, batchSize: 2, steps: 2, warmupSteps: 0, decoderDepth: 1, decoderGroups: [[0]], encoderGroups: [[0, 1, 2, 3]], numPrototypes: 2, ...options,
});

describe('without distortion', () => {
  it('the median image gives the shape, whole and of about as many pixels', async () => {
    const images = sources([[150, 60], [152, 61], [60, 60], [300, 122], [140, 60]]);
    const seen: TrainingPreview[] = [];
    const { inspector, model } = await train({ images, keepAspect: true, preview: { image: images[2]!, onMap: (preview) => seen.push(preview) } });
    // The square is extended by 40 pixels to the left and to the right.
    expect(seen.at(-1)).toMatchObject({ mapWidth: 391, mapHeight: 168, placement: { x: -40, y: 0, scaleX: 140 / 391, scaleY: 60 / 168 } });
    const { metadata } = inspector;
    expect(metadata).toMatchObject({ framing: 'keep-aspect', resize: { width: 98, height: 42 }, crop: { width: 98, height: 42 }, mapSize: { width: 391, height: 168 } });
    expect(Inspector.readMetadata(model)).toEqual(metadata);
    const inspection = await inspector.inspect(await images[2]!.load());
    expect(inspection.mapHeight).toBe(168);
    // A square in the middle of 98 x 42, to a map pixel.
    expect(Math.abs(inspection.mapWidth - 168)).toBeLessThanOrEqual(1);
    inspector.dispose();
  });

  it('a number for resize says how much more is seen than the crop; two for the crop are the shape', async () => {
    const images = sources([[150, 60], [150, 60]]);
    const { inspector } = await train({ images, keepAspect: true, resize: 64 });
    expect(inspector.metadata).toMatchObject({ resize: { width: 128, height: 48 }, crop: { width: 112, height: 42 } });
    inspector.dispose();
    const { inspector: given } = await train({ images: [unreadableSource('bad'), ...images], skipUnreadable: true, keepAspect: true, crop: { width: 56, height: 28 } });
    expect(given.metadata).toMatchObject({ framing: 'keep-aspect', resize: { width: 56, height: 28 } });
    given.dispose();
  });
});

describe('tiles', () => {
  it('are trained on instead of images, and the model inspects in them', async () => {
    const checkpoints: Uint8Array[] = [];
    const checkpoint: CheckpointStore = { load: async () => checkpoints.at(-1), save: async (bytes) => { checkpoints.push(bytes); } };
    const images = sources([[150, 75], [75, 75]]);
    const { inspector } = await train({ images, tile: { size: 75 }, checkpoint });
    expect(inspector.metadata).toMatchObject({ framing: 'tiles', resize: 56, crop: 56, view: 75, training: { images: 3 } });
    const { tiles, mapWidth, mapHeight } = await inspector.inspect(drawnImage('new', { width: 150, height: 75 }));
    expect([tiles!.length, mapWidth, mapHeight]).toEqual([3, 512, 256]);
    inspector.dispose();
    // Other tiles are another training.
    await expect(train({ images, tile: { size: 74 }, checkpoint, resume: true })).rejects.toThrow(/its images was|its tile was/);
    await expect(train({ images: sources([[75, 75], [75, 75], [75, 75]]), checkpoint, resume: true })).rejects.toThrow(UsageError);
  });

  it('count as their image where there are categories; the middle one is previewed', async () => {
    const images = sources([[150, 75], [75, 75], [75, 75]]).map((source, i) => ({ ...source, category: i < 2 ? 'plate' : 'disc' }));
    const seen: TrainingPreview[] = [];
    const { inspector } = await train({ images, tile: { size: 75 }, preview: { image: images[0]!, onMap: (preview) => seen.push(preview) } });
    expect(inspector.metadata.training.images).toBe(4);
    expect(inspector.metadata.categories!.map(({ name, images: count, calibration }) => [name, count, calibration.count])).toEqual([['plate', 2, 2], ['disc', 1, 1]]);
    const { score, placement } = seen.at(-1)!;
    expect(placement).toEqual({ x: 75, y: 0, scaleX: 75 / 256, scaleY: 75 / 256 });
    expect(score).toBeCloseTo((await inspector.inspect(cutView(await images[0]!.load(), { x: 75, y: 0, width: 75, height: 75 }))).score, 5);
    inspector.dispose();
  });

  it('may be drawn from each image, the same for the same seed', async () => {
    const progress: number[] = [];
    const { inspector } = await train({ images: sources([[224, 112], [112, 112]]), tile: { perImage: 2 }, onProgress: ({ phase, total }) => { if (phase === 'encoding') progress.push(total); } });
    expect(inspector.metadata.training.images).toBe(4);
    expect(inspector.metadata.view).toBe(56);
    expect(progress).toEqual([2, 2]);
    inspector.dispose();
  });
});

it.each([
  [{ keepAspect: true, tile: true }, /keepAspect or tile, not both/], [{ tile: true, resize: 64 }, /leave resize out/], [{ tile: { perImage: 0 } }, /tile\.perImage must/],
  [{ tile: { size: 0 } }, /tile\.size must/], [{ crop: { width: 56, height: 57 } }, /multiples of the encoder's patch size/], [{ resize: { width: 40, height: 80 } }, /does not fit into the resized image of 40 x 80/],
] satisfies [Partial<TrainOptions>, RegExp][])('%o are refused', async (options, message) => {
  const attempt = train({ images: sources([[60, 60]]), ...options });
  await expect(attempt).rejects.toThrow(UsageError);
  await expect(attempt).rejects.toThrow(message);
});
