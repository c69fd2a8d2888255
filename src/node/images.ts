/**
 * Image files to pixels and back. The pixels are what Pillow's `convert('RGB')` gives the reference: palettes expanded,
 * grey repeated, alpha dropped (not blended), 16 bits cut to the upper 8 (v >> 8), CMYK by 255 - c and 255 - k, colour
 * profiles ignored. Beyond that the EXIF orientation is applied, and a file that is cut short or damaged is refused.
 */
import { readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { checkRasterImage, type ImageSource, type RasterImage } from '../data/image.ts';
import { InputError } from '../errors.ts';
import { fileError, makeFolder, writeFileAtomic } from './files.ts';

/** A larger image is refused: as RGB alone it takes 300 MB. */
export const MAX_PIXELS = 100_000_000;
const MAX_FILE_BYTES = 1_000_000_000;

const FORMATS = ['jpeg', 'png', 'webp', 'tiff'];
const FORMATS_IN_WORDS = 'PNG, JPEG, WebP, TIFF or BMP';

/** An image file that is decoded when it is needed; `name` is its path unless another is given. */
export function imageFileSource(path: string, name: string = path): ImageSource {
  return { name, load: () => decodeImageFile(path) };
}

/**
 * Decodes a PNG, JPEG, WebP, TIFF (first page) or BMP file, told by its content and not by its name.
 * @returns RGB, 8 bits
 * @throws InputError naming the file: missing, a folder, empty, not an image, damaged, cut short, above {@link MAX_PIXELS}
 */
export async function decodeImageFile(path: string): Promise<RasterImage> {
  const bytes = await readImageFile(path);
  return bytes[0] === 0x42 && bytes[1] === 0x4d ? decodeBmp(bytes, path) : decodeWithSharp(bytes, path);
}

async function readImageFile(path: string): Promise<Uint8Array> {
  try {
    const info = await stat(path);
    if (info.isDirectory()) throw new InputError(`${path}: this is a folder; an image file is needed.`, { file: path });
    if (!info.isFile()) throw new InputError(`${path}: not a regular file; an image file is needed.`, { file: path });
    if (info.size === 0) throw new InputError(`${path}: the file is empty; copy it again.`, { file: path });
    if (info.size > MAX_FILE_BYTES) {
      throw new InputError(`${path}: the file has ${Math.round(info.size / 1e6)} MB; an image may have ${MAX_FILE_BYTES / 1e6} MB. Save it smaller.`, { file: path });
    }
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof InputError) throw cause;
    throw fileError(path, cause, 'read');
  }
}

async function decodeWithSharp(bytes: Uint8Array, path: string): Promise<RasterImage> {
  const sharp = await loadSharp();
  const metadata = await sharp(bytes, { limitInputPixels: false }).metadata().catch((cause: unknown) => {
    throw new InputError(
      `${path}: not a readable image (${reason(cause)}). Expected a ${FORMATS_IN_WORDS} file; if it is one, it is damaged or cut short: copy it again.`,
      { file: path, cause },
    );
  });
  const { format, depth, space, width, height } = metadata;
  if (!FORMATS.includes(format)) {
    throw new InputError(`${path}: this is a ${format.toUpperCase()} file; save it as ${FORMATS_IN_WORDS}.`, { file: path });
  }
  if (depth !== 'uchar' && depth !== 'ushort') {
    throw new InputError(`${path}: its pixels are stored as ${depth}; expected 8 or 16 bits a channel, unsigned. Convert it first.`, { file: path });
  }
  checkPixels(width, height, path);

  const isCmyk = space === 'cmyk';
  // JPEG decoders only warn of damaged data and fill the rest with grey. For TIFF a warning may be no more than an unknown tag.
  const failOn = format === 'jpeg' ? 'warning' : 'error';
  let image = sharp(bytes, { limitInputPixels: MAX_PIXELS, failOn, ignoreIcc: true }).autoOrient();
  // CMYK stays CMYK here, because the library would convert it through a printer's profile.
  image = isCmyk ? image.pipelineColourspace('cmyk').toColourspace('cmyk') : image.removeAlpha().toColourspace('srgb');
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true }).catch((cause: unknown) => {
    throw new InputError(`${path}: the ${format.toUpperCase()} data are damaged or cut short (${reason(cause)}). Copy or save the image again.`, { file: path, cause });
  });
  return toRgb(info.width, info.height, info.channels, data, isCmyk);
}

function toRgb(width: number, height: number, channels: number, data: Uint8Array, isCmyk: boolean): RasterImage {
  if (channels === 3 && !isCmyk) return { width, height, channels: 3, data };
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      rgb[i * 3 + c] = isCmyk
        ? inkToLight(data[i * channels + c]!, data[i * channels + 3]!)
        : data[i * channels + (channels < 3 ? 0 : c)]!;
    }
  }
  return { width, height, channels: 3, data: rgb };
}

/** (255 - ink) * (255 - black) / 255 in Pillow's rounding. */
function inkToLight(ink: number, black: number): number {
  const white = 255 - black;
  const product = ink * white + 128;
  return Math.max(0, white - ((product + (product >> 8)) >> 8));
}

/** libvips as sharp ships it reads no BMP; libnsbmp reads all of its kinds. */
async function decodeBmp(bytes: Uint8Array, path: string): Promise<RasterImage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 26) throw new InputError(`${path}: the BMP file ends within its header. Copy or save the image again.`, { file: path });
  const isOldHeader = view.getUint32(14, true) === 12;
  const width = isOldHeader ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = isOldHeader ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true));
  checkPixels(width, height, path);
  const { decode } = await optionalPackage('@cwasm/nsbmp', () => import('@cwasm/nsbmp'));
  try {
    const { data } = decode(bytes);
    if (data.length !== width * height * 4) throw new Error(`the header says ${width} x ${height}, the data have ${data.length / 4} pixels`);
    return toRgb(width, height, 4, new Uint8Array(data.buffer, data.byteOffset, data.length), false);
  } catch (cause) {
    throw new InputError(`${path}: the BMP data are damaged or cut short (${reason(cause)}). Copy or save the image again.`, { file: path, cause });
  }
}

function checkPixels(width: number, height: number, path: string): void {
  if (!(width > 0 && height > 0)) {
    throw new InputError(`${path}: its header says ${width} x ${height} pixels. The file is damaged: copy or save the image again.`, { file: path });
  }
  if (width * height > MAX_PIXELS) {
    throw new InputError(
      `${path}: ${width} x ${height} is ${Math.round((width * height) / 1e6)} megapixels; at most ${MAX_PIXELS / 1e6} are read. Make it smaller or cut it into tiles.`,
      { file: path },
    );
  }
}

/** The picture as a PNG file's bytes. */
export async function encodePng(image: RasterImage): Promise<Uint8Array> {
  return (await sharpOf(image)).png().toBuffer();
}

/** The picture as a PNG file, whole or not there; its folder is made. @throws InputError where it can't be written */
export async function writePng(path: string, image: RasterImage): Promise<void> {
  await makeFolder(dirname(path));
  await writeFileAtomic(path, await encodePng(image));
}

/** The picture as a JPEG file's bytes, for what is only looked at. */
export async function encodeJpeg(image: RasterImage, quality = 85): Promise<Uint8Array> {
  return (await sharpOf(image)).jpeg({ quality, chromaSubsampling: '4:4:4' }).toBuffer();
}

/** A smaller copy whose longer side is at most `size`; for previews, not for the model. */
export async function thumbnail(image: RasterImage, size: number): Promise<RasterImage> {
  if (Math.max(image.width, image.height) <= size) return image;
  const { data, info } = await (await sharpOf(image))
    .resize(size, size, { fit: 'inside' }).removeAlpha().toColourspace('srgb').raw().toBuffer({ resolveWithObject: true });
  return toRgb(info.width, info.height, info.channels, data, false);
}

async function sharpOf(image: RasterImage) {
  checkRasterImage(image);
  const { width, height, channels, data } = image;
  return (await loadSharp())(data, { raw: { width, height, channels } });
}

async function loadSharp() {
  return (await optionalPackage('sharp', () => import('sharp'))).default;
}

async function optionalPackage<T>(name: string, load: () => Promise<T>): Promise<T> {
  return load().catch((cause: unknown) => {
    throw new InputError(`Image files need the package ${name}, which can't be loaded (${reason(cause)}). Install it: npm install ${name}`, { code: 'missing-package', cause });
  });
}

function reason(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).trim().split('\n')[0]!;
}
