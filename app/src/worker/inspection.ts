/** The model that inspects: opened when it is first asked for, and again when the device has changed. */
import { decodeImageBlob, InputError, Inspector, type Engine, type RasterImage } from '../../../src/browser/index.ts';
import { placeOf } from '../judge.ts';
import type { Measured, Picture } from '../protocol.ts';
import { storage } from '../storage.ts';
import { deviceGeneration, withDevice } from './device.ts';
import { encoderOf } from './encoders.ts';
import { rasterOfFrame, thumbnailOf } from './pictures.ts';

let open: { modelId: string; generation: number; inspector: Promise<Inspector> } | undefined;

function inspectorOf(modelId: string, engine: Engine): Promise<Inspector> {
  const generation = deviceGeneration();
  if (open?.modelId !== modelId || open.generation !== generation) {
    closeInspector();
    const opening = { modelId, generation, inspector: openInspector(modelId, engine) };
    open = opening;
    opening.inspector.catch(() => { if (open === opening) open = undefined; });
  }
  return open!.inspector;
}

/** Gives its memory back. */
export function closeInspector(): void {
  void open?.inspector.then((inspector) => inspector.dispose(), () => undefined);
  open = undefined;
}

async function openInspector(modelId: string, engine: Engine): Promise<Inspector> {
  const model = await storage.model(modelId);
  if (!model) throw new InputError('This model is no longer on this device: choose another one under Models.');
  return Inspector.open(engine, new Uint8Array(await model.file.arrayBuffer()), encoderOf(model.metadata), { name: model.name });
}

/** Does the work, again on a new device if the one it runs on is lost. */
export function withInspector<T>(modelId: string, work: (inspector: Inspector) => Promise<T>): Promise<T> {
  return withDevice(async (engine) => work(await inspectorOf(modelId, engine)));
}

function measure(modelId: string, raster: RasterImage): Promise<Measured> {
  return withInspector(modelId, async (inspector) => {
    const inspection = await inspector.inspect(raster);
    return { score: inspection.score, map: inspection.map as Float32Array<ArrayBuffer>, place: placeOf(inspection, raster) };
  });
}

export async function inspect({ modelId, image }: { modelId: string; image: Picture }): Promise<Measured & { thumbnail: Blob }> {
  const raster = await decodeImageBlob(image.image, image.name);
  return { ...await measure(modelId, raster), thumbnail: await thumbnailOf(raster) };
}

export function inspectFrame({ modelId, frame }: { modelId: string; frame: ImageBitmap }): Promise<Measured> {
  return measure(modelId, rasterOfFrame(frame));
}
