/** Pictures as files and as pixels, by the browser's own decoders and encoders. */
import { decodeImageBlob, rasterFromBitmap, type ImageSource, type RasterImage } from '../../../src/browser/index.ts';
import type { Picture } from '../protocol.ts';

const thumbnailSide = 160;

export const pictureSource = ({ name, image }: Picture): ImageSource => ({ name, load: () => decodeImageBlob(image, name) });

export async function thumbnailOf(raster: RasterImage): Promise<Blob> {
  const scale = Math.min(1, thumbnailSide / Math.max(raster.width, raster.height));
  const [width, height] = [raster.width, raster.height].map((side) => Math.max(1, Math.round(side * scale))) as [number, number];
  const bitmap = await createImageBitmap(imageDataOf(raster), { resizeWidth: width, resizeHeight: height, resizeQuality: 'medium' });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d')!;
  // JPEG has no transparency: see-through parts would turn black.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.8 });
}

export async function pngOf(raster: RasterImage): Promise<Blob> {
  const canvas = new OffscreenCanvas(raster.width, raster.height);
  canvas.getContext('2d')!.putImageData(imageDataOf(raster), 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

export const bitmapOf = (raster: RasterImage): Promise<ImageBitmap> => createImageBitmap(imageDataOf(raster));

/** Takes the frame's memory back as well. */
export function rasterOfFrame(frame: ImageBitmap): RasterImage {
  try {
    return rasterFromBitmap(frame);
  } finally {
    frame.close();
  }
}

function imageDataOf({ width, height, channels, data }: RasterImage): ImageData {
  if (channels === 4) return new ImageData(new Uint8ClampedArray(data.buffer as ArrayBuffer, data.byteOffset, data.length), width, height);
  const pixels = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = data[i * channels + (channels === 1 ? 0 : c)]!;
  }
  return new ImageData(pixels, width, height);
}
