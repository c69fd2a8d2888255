// Every file format that the issue names, written here pixel by pixel or by libvips, must come back as the exact pixels
// that Pillow's convert('RGB') gives; damaged files must fail with an error that names them.
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { decodeImageFile, encodeJpeg, encodePng, imageFileSource, thumbnail } from '../../src/node/images.ts';

const width = 19;
const height = 14;
const pixels = width * height;
const noise = (length: number, range: number) => Uint16Array.from({ length }, (_, i) => ((i * 2654435761) >>> 11) % range);
const rgb = Uint8Array.from(noise(pixels * 3, 256));
const rgb16 = noise(pixels * 3, 65536);
const grey = Uint8Array.from(noise(pixels, 256));
const grey16 = noise(pixels, 65536);
const repeated = (values: ArrayLike<number>) => Uint8Array.from({ length: values.length * 3 }, (_, i) => values[Math.floor(i / 3)]!);
const upperBytes = (values: Uint16Array) => Uint8Array.from(values, (value) => value >> 8);
const raw = (data: Uint8Array | Uint16Array, channels: 1 | 2 | 3 | 4, w = width, h = height) => sharp(data, { raw: { width: w, height: h, channels } });

let folder: string;
const write = async (name: string, bytes: Uint8Array) => {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
};
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-images-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A BMP file. `rows` are the stored rows, unpadded, from the bottom unless `topDown`. */
function bmp(w: number, h: number, bits: number, rows: number[][], { palette = [], gap = 0, topDown = false }: { palette?: number[][]; gap?: number; topDown?: boolean } = {}): Buffer {
  const stride = Math.ceil((w * bits) / 32) * 4;
  const offset = 54 + palette.length * 4 + gap;
  const file = Buffer.alloc(offset + stride * h);
  file.write('BM');
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(offset, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(w, 18);
  file.writeInt32LE(topDown ? -h : h, 22);
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(bits, 28);
  file.writeUInt32LE(palette.length, 46);
  palette.forEach(([r, g, b], i) => file.set([b!, g!, r!, 0], 54 + i * 4));
  rows.forEach((row, y) => file.set(row, offset + y * stride));
  return file;
}
const bgrRow = (y: number) => Array.from({ length: width * 3 }, (_, i) => rgb[(y * width + Math.floor(i / 3)) * 3 + 2 - (i % 3)]!);
const rowsFromBottom = (row: (y: number) => number[]) => Array.from({ length: height }, (_, i) => row(height - 1 - i));

describe('lossless formats come back exactly', () => {
  const rgba = Uint8Array.from({ length: pixels * 4 }, (_, i) => (i % 4 === 3 ? (i * 37) % 256 : rgb[Math.floor(i / 4) * 3 + (i % 4)]!));
  const greyAlpha = Uint8Array.from({ length: pixels * 2 }, (_, i) => (i % 2 === 1 ? (i * 41) % 256 : grey[i >> 1]!));
  const cases: [string, () => Promise<Uint8Array>, Uint8Array][] = [
    ['rgb.png', () => raw(rgb, 3).png().toBuffer(), rgb],
    ['grey.png', () => raw(grey, 1).toColourspace('b-w').png().toBuffer(), repeated(grey)],
    ['rgba.png (alpha dropped, colours kept under it)', () => raw(rgba, 4).png().toBuffer(), rgb],
    ['grey-alpha.png', () => raw(greyAlpha, 2).toColourspace('b-w').png().toBuffer(), repeated(grey)],
    ['rgb16.png', () => raw(rgb16, 3).toColourspace('rgb16').png().toBuffer(), upperBytes(rgb16)],
    ['grey16.png', () => raw(grey16, 1).toColourspace('grey16').png().toBuffer(), repeated(upperBytes(grey16))],
    ['rgb.webp', () => raw(rgb, 3).webp({ lossless: true }).toBuffer(), rgb],
    ['rgb.tiff', () => raw(rgb, 3).tiff({ compression: 'lzw' }).toBuffer(), rgb],
    ['rgb16.tiff', () => raw(rgb16, 3).toColourspace('rgb16').tiff({ compression: 'deflate' }).toBuffer(), upperBytes(rgb16)],
    ['grey.tiff', () => raw(grey, 1).toColourspace('b-w').tiff({ compression: 'none' }).toBuffer(), repeated(grey)],
    ['24.bmp', async () => bmp(width, height, 24, rowsFromBottom(bgrRow)), rgb],
    ['24 bits top down.bmp', async () => bmp(width, height, 24, Array.from({ length: height }, (_, y) => bgrRow(y)), { topDown: true }), rgb],
    ['24 bits, a gap before the pixels.bmp', async () => bmp(width, height, 24, rowsFromBottom(bgrRow), { gap: 10 }), rgb],
  ];
  it.each(cases)('%s', async (name, make, expected) => {
    const image = await decodeImageFile(await write(name, await make()));
    expect([image.width, image.height, image.channels]).toEqual([width, height, 3]);
    expect(Buffer.from(image.data).equals(Buffer.from(expected))).toBe(true);
  });

  it('expands palettes, in PNG and in BMP of 8, 4 and 1 bits', async () => {
    const palette = Array.from({ length: 16 }, (_, i) => [i * 16, 255 - i * 16, i]);
    const index = (x: number, y: number) => (x * 3 + y * 5) % 16;
    const expected = (entry: (x: number, y: number) => number[]) =>
      Buffer.from(Array.from({ length: pixels }, (_, i) => entry(i % width, Math.floor(i / width))).flat());
    const eight = bmp(width, height, 8, rowsFromBottom((y) => Array.from({ length: width }, (_, x) => index(x, y))), { palette });
    const four = bmp(width, height, 4, rowsFromBottom((y) => Array.from({ length: Math.ceil(width / 2) }, (_, i) =>
      (index(2 * i, y) << 4) | (2 * i + 1 < width ? index(2 * i + 1, y) : 0))), { palette });
    const one = bmp(width, height, 1, rowsFromBottom((y) => Array.from({ length: Math.ceil(width / 8) }, (_, i) =>
      Array.from({ length: 8 }, (_, bit) => ((i * 8 + bit + y) % 2) << (7 - bit)).reduce((a, b) => a | b))), { palette: [[1, 2, 3], [250, 251, 252]] });
    for (const [name, file, entry] of [
      ['8.bmp', eight, (x: number, y: number) => palette[index(x, y)]!],
      ['4.bmp', four, (x: number, y: number) => palette[index(x, y)]!],
      ['1.bmp', one, (x: number, y: number) => ((x + y) % 2 === 1 ? [250, 251, 252] : [1, 2, 3])],
    ] as const) {
      const image = await decodeImageFile(await write(name, file));
      expect(Buffer.from(image.data).equals(expected(entry)), name).toBe(true);
    }
    const flat = Uint8Array.from({ length: pixels * 3 }, (_, i) => palette[index(Math.floor(i / 3) % width, Math.floor(i / 3 / width))]![i % 3]!);
    const png = await raw(flat, 3).png({ palette: true, colours: 16, dither: 0, quality: 100, effort: 10 }).toBuffer();
    expect((await sharp(png).metadata()).isPalette).toBe(true);
    const image = await decodeImageFile(await write('palette.png', png));
    expect(Math.max(...image.data.map((value, i) => Math.abs(value - flat[i]!)))).toBeLessThanOrEqual(4);
  });

  it('turns by the EXIF orientation: 6 is a quarter turn clockwise', async () => {
    const path = await write('exif6.png', await raw(rgb, 3).png().withMetadata({ orientation: 6 }).toBuffer());
    const image = await decodeImageFile(path);
    expect([image.width, image.height]).toEqual([height, width]);
    for (const [x, y] of [[0, 0], [height - 1, 0], [3, 11]] as const) {
      const source = ((height - 1 - x) * width + y) * 3;
      expect([...image.data.subarray((y * height + x) * 3, (y * height + x) * 3 + 3)]).toEqual([...rgb.subarray(source, source + 3)]);
    }
  });

  it('does not convert colours through an embedded profile', async () => {
    const png = await raw(rgb, 3).png().withIccProfile('p3', { attach: true }).toBuffer();
    expect((await sharp(png).metadata()).hasProfile).toBe(true);
    const stored = await sharp(png, { ignoreIcc: true }).raw().toBuffer();
    const image = await decodeImageFile(await write('profile.png', png));
    expect(Buffer.from(image.data).equals(stored)).toBe(true);
    // The profile would have mattered.
    expect(Buffer.from(image.data).equals(Buffer.from(rgb))).toBe(false);
  });

  it('reads a CMYK JPEG by the plain formula, not through a printer profile', async () => {
    const flat = new Uint8Array(32 * 32 * 3);
    for (let i = 0; i < 32 * 32; i++) flat.set([200, 60, 30], i * 3);
    const file = await raw(flat, 3, 32, 32).toColourspace('cmyk').jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer();
    const ink = await sharp(file, { ignoreIcc: true }).pipelineColourspace('cmyk').toColourspace('cmyk').raw().toBuffer({ resolveWithObject: true });
    expect(ink.info.channels).toBe(4);
    const image = await decodeImageFile(await write('cmyk.jpg', file));
    for (let c = 0; c < 3; c++) {
      expect(Math.abs(image.data[c]! - ((255 - ink.data[c]!) * (255 - ink.data[3]!)) / 255)).toBeLessThanOrEqual(1);
    }
  });

  it('reads JPEG, colour and grey', async () => {
    const flat = new Uint8Array(16 * 16 * 3).fill(0).map((_, i) => [180, 90, 40][i % 3]!);
    const image = await decodeImageFile(await write('flat.jpg', await raw(flat, 3, 16, 16).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer()));
    expect(Math.max(...image.data.map((value, i) => Math.abs(value - flat[i]!)))).toBeLessThanOrEqual(2);
    const greyImage = await decodeImageFile(await write('grey.jpg', await raw(grey, 1).toColourspace('b-w').jpeg().toBuffer()));
    expect(greyImage.channels).toBe(3);
    expect(greyImage.data[0]).toBe(greyImage.data[2]);
  });

  it('goes by the content, not by the name', async () => {
    const image = await decodeImageFile(await write('really-a-png.jpg', await raw(rgb, 3).png().toBuffer()));
    expect(Buffer.from(image.data).equals(Buffer.from(rgb))).toBe(true);
  });
});

describe('what can not be used is refused by name', () => {
  const refused = async (path: string, text: RegExp) => {
    const error = await decodeImageFile(path).then(() => undefined, (cause: unknown) => cause);
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).file).toBe(path);
    expect((error as InputError).message).toContain(path);
    expect((error as InputError).message).toMatch(text);
  };

  it('missing, a folder, empty, text', async () => {
    await refused(join(folder, 'nothing.png'), /no such file/);
    await mkdir(join(folder, 'sub.png'));
    await refused(join(folder, 'sub.png'), /folder/);
    await refused(await write('empty.png', new Uint8Array(0)), /empty/);
    await refused(await write('text.png', Buffer.from('This is not an image at all.\n'.repeat(40))), /not a readable image/);
  });

  it('files that are cut short, at any place', async () => {
    const big = Uint8Array.from(noise(64 * 48 * 3, 256));
    const files: [string, Uint8Array][] = [
      ['jpg', await raw(big, 3, 64, 48).jpeg({ quality: 90 }).toBuffer()],
      ['png', await raw(big, 3, 64, 48).png().toBuffer()],
      ['webp', await raw(big, 3, 64, 48).webp().toBuffer()],
      ['tiff', await raw(big, 3, 64, 48).tiff({ compression: 'lzw' }).toBuffer()],
      ['bmp', bmp(width, height, 24, rowsFromBottom(bgrRow))],
    ];
    for (const [extension, bytes] of files) {
      for (const share of [0.02, 0.3, 0.6, 0.9]) {
        await refused(await write(`cut-${share}.${extension}`, bytes.subarray(0, Math.floor(bytes.length * share))), /damaged|cut short|ends within/);
      }
    }
  });

  it('damage inside, also where a JPEG decoder would only warn', async () => {
    const big = Uint8Array.from(noise(64 * 48 * 3, 256));
    const jpeg = await raw(big, 3, 64, 48).jpeg({ quality: 90 }).toBuffer();
    // Half of the data and a proper end marker: decoders fill the rest with grey.
    await refused(await write('half.jpg', Buffer.concat([jpeg.subarray(0, jpeg.length >> 1), Buffer.from([0xff, 0xd9])])), /damaged/);
    const png = await raw(big, 3, 64, 48).png().toBuffer();
    png.set([1, 2, 3, 4], png.length >> 1);
    await refused(await write('flipped.png', png), /damaged/);
  });

  it('harmless bytes after the picture are no damage', async () => {
    const jpeg = await raw(rgb, 3).jpeg().toBuffer();
    await expect(decodeImageFile(await write('trailing.jpg', Buffer.concat([jpeg, Buffer.alloc(64)])))).resolves.toMatchObject({ width, height });
  });

  it('more than 100 megapixels, before decoding them', async () => {
    const huge = bmp(width, height, 24, rowsFromBottom(bgrRow));
    huge.writeInt32LE(20_000, 18);
    huge.writeInt32LE(20_000, 22);
    await refused(await write('huge.bmp', huge), /400 megapixels/);
    const png = await sharp({ create: { width: 12_000, height: 9_000, channels: 3, background: 'black' }, limitInputPixels: false }).png({ compressionLevel: 1 }).toBuffer();
    await refused(await write('huge.png', png), /108 megapixels/);
    const negative = bmp(width, height, 24, rowsFromBottom(bgrRow));
    negative.writeInt32LE(-5, 18);
    await refused(await write('negative.bmp', negative), /damaged/);
  });

  it('floating-point pixels and formats that nobody asked for', async () => {
    const float = await raw(rgb, 3).toColourspace('scrgb').tiff({ compression: 'none' }).toBuffer();
    await refused(await write('float.tiff', float), /stored as float/);
    await refused(await write('drawing.svg', Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')), /SVG/);
    await refused(await write('image.gif', await raw(rgb, 3).gif().toBuffer()), /GIF/);
  });
});

describe('writing', () => {
  it('PNG keeps every pixel, of 1, 3 and 4 channels', async () => {
    for (const channels of [1, 3, 4] as const) {
      const data = Uint8Array.from(noise(pixels * channels, 256));
      const bytes = await encodePng({ width, height, channels, data });
      const image = await decodeImageFile(await write(`written-${channels}.png`, bytes));
      const expected = Array.from({ length: pixels * 3 }, (_, i) => data[Math.floor(i / 3) * channels + (channels === 1 ? 0 : i % 3)]!);
      expect(Buffer.from(image.data).equals(Buffer.from(expected))).toBe(true);
    }
  });

  it('thumbnails keep the shape and JPEGs are JPEGs', async () => {
    const image = await imageFileSource(await write('source.png', await raw(rgb, 3).png().toBuffer()), 'source').load();
    const small = await thumbnail(image, 10);
    expect([small.width, small.height, small.data.length]).toEqual([10, 7, 210]);
    expect(await thumbnail(image, 100)).toBe(image);
    expect([...(await encodeJpeg(image)).subarray(0, 2)]).toEqual([0xff, 0xd8]);
  });
});
