/** The worker: answers the page's calls (protocol.ts), each with its result or with the error as people are to read it. */
import { Inspector, withThreshold } from '../../../src/browser/index.ts';
import type { EngineApi, EngineCall, ErrorRecord, Picture } from '../protocol.ts';
import { storage } from '../storage.ts';
import { device, withDevice } from './device.ts';
import { addEncoder } from './encoders.ts';
import { exportResults } from './export.ts';
import { inspect, inspectFrame } from './inspection.ts';
import { pictureSource, pngOf, rasterOfFrame, thumbnailOf } from './pictures.ts';
import { samples } from './samples.ts';
import { cancel, estimate, pause, train } from './training.ts';
import { explain } from './why.ts';

type Handlers = { [Name in keyof EngineApi]: (argument: Parameters<EngineApi[Name]>[0]) => ReturnType<EngineApi[Name]> | Promise<ReturnType<EngineApi[Name]>> };

const handlers: Handlers = {
  start: async () => {
    const { adapter } = await device();
    return { name: adapter.name, isSoftware: adapter.isSoftware };
  },
  thumbnail: async (picture) => {
    const raster = await pictureSource(picture!).load();
    return { thumbnail: await thumbnailOf(raster), width: raster.width, height: raster.height };
  },
  encodeFrame: (frame) => pngOf(rasterOfFrame(frame!)),
  samples,
  estimate: (request) => estimate(request!),
  train,
  pause: (paused) => pause(paused!),
  cancel,
  inspect: (request) => inspect(request!),
  explain: (request) => explain(request!),
  inspectFrame: (request) => inspectFrame(request!),
  importModel: (file) => importModel(file!),
  exportModel: (modelId) => exportModel(modelId!),
  exportResults: (request) => exportResults(request!),
  addEncoder: (request) => addEncoder(request!),
  gpuBytes: () => withDevice(async (engine) => engine.context.allocatedBytes),
};

async function importModel({ name, image: file }: Picture): Promise<string> {
  const metadata = Inspector.readMetadata(new Uint8Array(await file.arrayBuffer()), name);
  const id = crypto.randomUUID();
  await storage.saveModel({
    id, name: name.replace(/\.safetensors$/, ''), created: Date.now(), metadata, file, threshold: metadata.threshold ?? metadata.calibration.threshold, thumbnails: [], fromSamples: false,
  });
  return id;
}

async function exportModel(modelId: string): Promise<Blob> {
  const model = (await storage.model(modelId))!;
  const bytes = new Uint8Array(await model.file.arrayBuffer());
  return new Blob([withThreshold(bytes, model.threshold, model.name) as Uint8Array<ArrayBuffer>], { type: 'application/octet-stream' });
}

globalThis.addEventListener('message', async ({ data: { call, name, argument } }: MessageEvent<EngineCall>) => {
  try {
    const result = await (handlers[name] as (argument: unknown) => unknown)(argument);
    globalThis.postMessage({ call, result }, { transfer: transferable(result) });
  } catch (error) {
    globalThis.postMessage({ call, error: errorRecord(error) }, { transfer: [] });
  }
});

/** Arrays and bitmaps anywhere in a result; each is made for it alone, so that it can be given away. */
function transferable(result: unknown): Transferable[] {
  const found = new Set<Transferable>();
  const visit = (value: unknown): void => {
    if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer);
    else if (value instanceof ImageBitmap) found.add(value);
    else if (Array.isArray(value)) value.forEach(visit);
    else if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) Object.values(value).forEach(visit);
  };
  visit(result);
  return [...found];
}

function errorRecord(error: unknown): ErrorRecord {
  if (error instanceof Error) {
    const code = 'code' in error && typeof error.code === 'string' ? error.code : 'unexpected';
    return { code, message: code === 'unexpected' ? `Something failed that should not have: ${error.name}: ${error.message}` : error.message };
  }
  return { code: 'unexpected', message: String(error) };
}
