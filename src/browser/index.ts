/** What a page adds to the core: `navigator.gpu`, and decoding by the browser. */
import { Engine } from '../engine.ts';
import type { TuningStore } from '../graph/autotune.ts';
import type { RasterImage, ImageSource } from '../data/image.ts';
import { AdapterError, InputError } from '../errors.ts';

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
