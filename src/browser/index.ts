/** What a page, or a worker of it, adds to the core: `navigator.gpu`, decoding by the browser, and encoders by fetch. */
import { Engine } from '../engine.ts';
import type { TuningStore } from '../graph/autotune.ts';
import type { RasterImage, ImageSource } from '../data/image.ts';
import { AbortedError, AdapterError, InputError, WeightsError } from '../errors.ts';
import { loadEncoderWeights, type EncoderWeights, type LoadEncoderOptions } from '../weights/encoder.ts';

export * from '../index.ts';

/** @throws AdapterError where the browser has no WebGPU or no adapter, saying what is needed */
export async function createBrowserEngine(options: { powerPreference?: GPUPowerPreference } = {}): Promise<Engine> {
  if (!('gpu' in navigator) || !navigator.gpu) {
    throw new AdapterError('no-adapter', globalThis.isSecureContext
      ? 'This browser has no WebGPU. Chrome or Edge 113, Safari 26 and Firefox 141 or newer have it.'
      : 'WebGPU needs a secure context: serve the page over https, or from localhost.');
  }
  return Engine.create({ gpu: navigator.gpu, tuning: tuningCache(), ...options });
}

/** The fastest kernel variants of this device in the page's cache storage. Where that is refused they are measured anew each time. */
function tuningCache(): TuningStore {
  const url = new URL('inp-former-webgpu-tuning', globalThis.location.href).href;
  const open = (): Promise<Cache> => caches.open('inp-former-webgpu');
  return {
    load: async () => {
      try {
        return await (await (await open()).match(url))?.text();
      } catch {
        return undefined;
      }
    },
    save: async (text) => {
      try {
        await (await open()).put(url, new Response(text));
      } catch {
        // As said above.
      }
    },
  };
}

/** Pixels of anything that a canvas can draw, as they are, RGBA. */
export function rasterFromBitmap(image: ImageBitmap | ImageData): RasterImage {
  if ('data' in image) return { width: image.width, height: image.height, channels: 4, data: image.data };
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext('2d', { willReadFrequently: true })!;
  context.drawImage(image, 0, 0);
  return { width: image.width, height: image.height, channels: 4, data: context.getImageData(0, 0, image.width, image.height).data };
}

/** Decodes an image file as it is stored: no colour conversion, no premultiplied alpha; EXIF rotation applied. @throws InputError */
export async function decodeImageBlob(blob: Blob, name = 'image'): Promise<RasterImage> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none', imageOrientation: 'from-image' });
  } catch (cause) {
    throw new InputError(`${name}: this browser can't decode it as an image (${blob.type || 'unknown type'}). Give a PNG, JPEG or WebP file that is whole.`, { file: name, cause });
  }
  try {
    return rasterFromBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

export function imageBlobSource(blob: Blob, name: string): ImageSource {
  return { name, load: () => decodeImageBlob(blob, name) };
}

/** The picture, opaque or as it is, for a canvas's `putImageData`. */
export function toImageData({ width, height, channels, data }: RasterImage): ImageData {
  const pixels = new ImageData(width, height);
  if (channels === 4) pixels.data.set(data);
  else {
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 4; c++) pixels.data[4 * i + c] = c === 3 ? 255 : data[channels * i + (channels === 1 ? 0 : c)]!;
    }
  }
  return pixels;
}

/**
 * An encoder from a safetensors file of the page's server. The package's own is `inp-former-webgpu/weights/tiny.safetensors`.
 * @param options.signal stops the download
 * @throws WeightsError (`weights-download`), InputError (not an encoder), AbortedError
 */
export async function fetchEncoder(url: string | URL, { signal, ...options }: LoadEncoderOptions & { readonly signal?: AbortSignal } = {}): Promise<EncoderWeights> {
  const name = options.name ?? String(url).replace(/[?#].*$/, '').replace(/^.*\//, '').replace(/\.safetensors$/, '');
  let bytes: ArrayBuffer;
  try {
    const response = await fetch(url, { signal: signal ?? null });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    bytes = await response.arrayBuffer();
  } catch (cause) {
    if (signal?.aborted) throw new AbortedError(`The download of the encoder ${name} was stopped.`);
    throw new WeightsError('weights-download', `The encoder ${name} can't be loaded from ${String(url)}: ${cause instanceof Error ? cause.message : String(cause)}. Check the address, and that the page's policy (connect-src) allows it.`, { cause });
  }
  return loadEncoderWeights(new Uint8Array(bytes), { ...options, name, file: options.file ?? String(url) });
}
