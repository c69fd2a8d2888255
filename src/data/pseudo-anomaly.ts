/**
 * Defects made up on normal images, to train a segmentation head with: a source shows through a Perlin mask with opacity
 * 1 - b, b uniform in [0, 0.8],
 *
 *   image' = (1 - mask) image + mask (b image + (1 - b) source)
 *
 * The source is a texture image where the user has some (the papers take the Describable Textures Dataset), else one of the
 * procedural surfaces or the image itself, changed in tone, with the tiles of a grid shuffled. Of real defects there may be a few: cut out,
 * flipped, turned, scaled, made lighter or darker, and pasted elsewhere. All of it is a function of the images and a seed.
 *
 * Source: DRAEM (Zavrtanik et al., ICCV 2021), MemSeg (Yang et al., 2023), INP-Former++ (arXiv 2506.03660) section III-D.
 */
import { UsageError } from '../errors.ts';
import type { RasterImage } from './image.ts';
import { perlinMask } from './perlin.ts';
import type { Random } from './random.ts';
import { resizeAntialiased } from './resample.ts';
import { hash, TEXTURE_SIDE, textures, valueNoise } from './textures.ts';

/** What a sample's defect is made of; 'none': a normal image as it is. */
export type DefectKind = 'texture' | 'procedural' | 'shuffled' | 'pasted' | 'real' | 'none';

export interface PseudoAnomaly {
  /** RGB, of the normal image's size. */
  readonly image: RasterImage;
  /** 1 where there is a defect, `width * height`. */
  readonly mask: Uint8Array;
  readonly kind: DefectKind;
}

/** A real defect: an RGB image and, of the same size, 1 where it is defective. */
export interface RealDefect {
  readonly image: RasterImage;
  readonly mask: Uint8Array;
  /** The connected regions of the mask that can be pasted, as boxes in pixels. */
  readonly regions: readonly DefectBox[];
}

export interface DefectBox {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface PseudoAnomalySources {
  /** Texture images of the user's; without them procedural ones and shuffled tiles of the image serve. */
  readonly textures?: readonly (() => Promise<RasterImage>)[];
  /** Real defects, in images of the normal ones' size. */
  readonly defects?: readonly RealDefect[];
}

/** Share of samples without any defect, so that the head also learns what nothing looks like. */
const normalShare = 0.1;
/** Where there are real defects: share of samples with one of them pasted, and of the defective images themselves. */
const pastedShare = 0.5;
const realShare = 0.1;
/** Draws until the mask is not empty and the change shows; thereafter the sample stays normal, as DRAEM leaves one without a mask. */
const attempts = 16;
const opacityLoss = 0.8;
/** Mean change under the mask, of 255 levels, below which there is nothing to see, and so nothing to learn. */
const leastChange = 6;

/** @param image normal, RGB, in the size that the encoder sees */
export async function pseudoAnomaly(image: RasterImage, { textures: folder = [], defects = [] }: PseudoAnomalySources, random: Random): Promise<PseudoAnomaly> {
  if (image.channels !== 3) throw new UsageError(`pseudoAnomaly: the image has ${image.channels} channels, expected RGB.`);
  const draw = random.next();
  if (draw < normalShare) return untouched(image);
  const pasteable = defects.filter(({ regions }) => regions.length > 0);
  const share = (draw - normalShare) / (1 - normalShare);
  if (pasteable.length > 0 && share < pastedShare) return paste(image, random.pick(pasteable), random);
  if (defects.length > 0 && share < pastedShare + realShare) return flipped(random.pick(defects), random);
  for (let i = 0; i < attempts; i++) {
    const mask = perlinMask(image.width, image.height, random);
    const blended = mask.includes(1) && await blend(image, mask, folder, random);
    if (blended && meanChange(image, blended) >= leastChange) return blended;
  }
  return untouched(image);
}

function untouched(image: RasterImage): PseudoAnomaly {
  return { image, mask: new Uint8Array(image.width * image.height), kind: 'none' };
}

function meanChange({ data }: RasterImage, { image, mask }: PseudoAnomaly): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    count++;
    for (let c = 0; c < 3; c++) sum += Math.abs(image.data[3 * i + c]! - data[3 * i + c]!);
  }
  return sum / (3 * count);
}

/** A source as a function of a pixel; writes RGB, 0 to 255. */
type Source = (x: number, y: number, colour: Float64Array) => void;

async function blend(image: RasterImage, mask: Uint8Array, folder: readonly (() => Promise<RasterImage>)[], random: Random): Promise<PseudoAnomaly> {
  const { width, height } = image;
  const kind: DefectKind = folder.length > 0 ? 'texture' : random.next() < 0.5 ? 'procedural' : 'shuffled';
  const source = kind === 'texture' ? textureSource(await random.pick(folder)(), image, random)
    : kind === 'procedural' ? proceduralSource(image, random) : shuffledSource(image, random);
  // Tiles of a fine texture look like any other part of it: only their tone tells them.
  const adjust = toneChange(random, kind === 'shuffled' ? 1 : 0);
  const isGrey = looksGrey(image);
  const kept = random.uniform(0, opacityLoss);
  const data = new Uint8Array(image.data);
  const colour = new Float64Array(3);
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    source(i % width, Math.floor(i / width), colour);
    // A coloured spot on a grey image could be told by its colour alone, which no real defect there has.
    if (isGrey) colour.fill(0.299 * colour[0]! + 0.587 * colour[1]! + 0.114 * colour[2]!);
    for (let c = 0; c < 3; c++) data[3 * i + c] = Math.round(clamp(kept * image.data[3 * i + c]! + (1 - kept) * adjust(clamp(colour[c]!))));
  }
  return { image: { width, height, channels: 3, data }, mask, kind };
}

/** `least` to three changes of tone, as DRAEM varies its textures, and MemSeg the image before it is shuffled. */
function toneChange(random: Random, least: number): (value: number) => number {
  const changes: ((value: number) => number)[] = random.shuffle([
    () => { const gain = random.uniform(0.7, 1.3); return (v: number) => v * gain; },
    () => { const shift = random.uniform(-40, 40); return (v: number) => v + shift; },
    () => { const contrast = random.uniform(0.5, 1.8); return (v: number) => 128 + (v - 128) * contrast; },
    () => (v: number) => 255 - v,
    () => { const level = random.uniform(96, 224); return (v: number) => (v > level ? 255 - v : v); },
    () => { const step = random.pick([16, 32, 64]); return (v: number) => Math.floor(v / step) * step + step / 2; },
  ]).slice(0, least + random.integer(4 - least)).map((make) => make());
  return (value) => changes.reduce((v, change) => clamp(change(v)), value);
}

/** A texture image in the image's size, flipped and turned by quarters. */
function textureSource(texture: RasterImage, { width, height }: RasterImage, random: Random): Source {
  const { data, channels } = resizeAntialiased(texture, width, height);
  const [flipX, flipY, turn] = [random.next() < 0.5, random.next() < 0.5, width === height && random.next() < 0.5];
  return (x, y, colour) => {
    const [u, v] = turn ? [y, x] : [x, y];
    const at = ((flipY ? height - 1 - v : v) * width + (flipX ? width - 1 - u : u)) * channels;
    for (let c = 0; c < 3; c++) colour[c] = data[channels === 1 ? at : at + c]!;
  };
}

/** One of the demo's surfaces in other colours, or clouds, stripes or grains of two colours. */
function proceduralSource({ width, height }: RasterImage, random: Random): Source {
  const [dark, light] = [randomColour(random), randomColour(random)];
  const [unitX, unitY] = [TEXTURE_SIDE / width, TEXTURE_SIDE / height];
  const kinds = [...Object.keys(textures), 'clouds', 'stripes', 'grains'];
  const kind = random.pick(kinds);
  const seed = random.integer(2 ** 31);
  const size = random.uniform(3, 40);
  const mix = (share: number, colour: Float64Array): void => {
    const s = Math.min(1, Math.max(0, share));
    for (let c = 0; c < 3; c++) colour[c] = dark[c]! + (light[c]! - dark[c]!) * s;
  };
  if (kind in textures) {
    const { shade } = textures[kind]!(random);
    const zoom = random.uniform(0.5, 2);
    const [atX, atY] = [random.uniform(0, TEXTURE_SIDE), random.uniform(0, TEXTURE_SIDE)];
    const own = random.next() < 0.5;
    return (x, y, colour) => {
      shade(x * unitX * zoom + atX, y * unitY * zoom + atY, colour);
      if (own) for (let c = 0; c < 3; c++) colour[c] = 255 * colour[c]!;
      else mix((colour[0]! + colour[1]! + colour[2]!) / 3, colour);
    };
  }
  if (kind === 'clouds') {
    return (x, y, colour) => {
      const [u, v] = [(x * unitX) / size, (y * unitY) / size];
      mix(0.5 + 0.5 * (0.6 * valueNoise(u, v, seed) + 0.3 * valueNoise(2 * u, 2 * v, seed + 1) + 0.2 * valueNoise(4 * u, 4 * v, seed + 2)), colour);
    };
  }
  if (kind === 'stripes') {
    const [a, b] = [random.uniform(-1, 1), random.uniform(-1, 1)];
    return (x, y, colour) => {
      const along = (a * x * unitX + b * y * unitY) / (0.4 * size);
      mix(Math.abs(2 * (along - Math.floor(along)) - 1) + 0.15 * valueNoise(x, y, seed), colour);
    };
  }
  return (x, y, colour) => mix(hash(Math.floor((8 * x * unitX) / size), Math.floor((8 * y * unitY) / size), seed), colour);
}

function randomColour(random: Random): [number, number, number] {
  const level = random.uniform(0, 255);
  const tint = (): number => clamp(level + random.uniform(-60, 60));
  return [tint(), tint(), tint()];
}

/** The image itself, cut into a grid of 4 x 4 to 8 x 8 tiles, and those shuffled. */
function shuffledSource({ width, height, data }: RasterImage, random: Random): Source {
  const cells = 4 + random.integer(5);
  const order = random.shuffle(Array.from({ length: cells * cells }, (_, i) => i));
  const [cellWidth, cellHeight] = [Math.ceil(width / cells), Math.ceil(height / cells)];
  return (x, y, colour) => {
    const [i, j] = [Math.floor(x / cellWidth), Math.floor(y / cellHeight)];
    const from = order[j * cells + i]!;
    // The last tiles may be cut short.
    const u = Math.min(width - 1, (from % cells) * cellWidth + (x - i * cellWidth));
    const v = Math.min(height - 1, Math.floor(from / cells) * cellHeight + (y - j * cellHeight));
    for (let c = 0; c < 3; c++) colour[c] = data[3 * (v * width + u) + c]!;
  };
}

/** A real defect's region, turned by any angle, flipped, scaled, a little lighter or darker, somewhere on a normal image. */
function paste(image: RasterImage, { image: from, mask: fromMask, regions }: RealDefect, random: Random): PseudoAnomaly {
  const { width, height } = image;
  const region = random.pick(regions);
  // Not so large that it could not lie inside.
  const scale = Math.min(random.uniform(0.7, 1.4), (0.9 * width) / region.width, (0.9 * height) / region.height);
  const [cos, sin] = direction(random);
  const flip = random.next() < 0.5 ? -1 : 1;
  const gain = random.uniform(0.85, 1.15);
  const [halfX, halfY] = [(region.width * scale) / 2, (region.height * scale) / 2];
  const reachX = Math.abs(cos) * halfX + Math.abs(sin) * halfY;
  const reachY = Math.abs(sin) * halfX + Math.abs(cos) * halfY;
  const centre = (size: number, reach: number): number => (2 * reach < size ? random.uniform(reach, size - reach) : size / 2);
  const [centreX, centreY] = [centre(width, reachX), centre(height, reachY)];
  const [fromX, fromY] = [region.x + region.width / 2, region.y + region.height / 2];

  /** Where a pixel of the result lies in the defective image. */
  const source = (x: number, y: number): [number, number] => {
    const [dx, dy] = [(x + 0.5 - centreX) / scale, (y + 0.5 - centreY) / scale];
    return [fromX + flip * (cos * dx + sin * dy) - 0.5, fromY + cos * dy - sin * dx - 0.5];
  };
  const inRegion = (u: number, v: number): boolean => u >= region.x - 1 && v >= region.y - 1 && u <= region.x + region.width && v <= region.y + region.height;
  const opacity = (x: number, y: number): number => {
    const [u, v] = source(x, y);
    return inRegion(u, v) ? sample(u, v, from.width, from.height, (at) => fromMask[at]!) : 0;
  };

  const [left, right] = [Math.max(0, Math.floor(centreX - reachX - 2)), Math.min(width - 1, Math.ceil(centreX + reachX + 2))];
  const [top, bottom] = [Math.max(0, Math.floor(centreY - reachY - 2)), Math.min(height - 1, Math.ceil(centreY + reachY + 2))];
  const shift = toneShift(image, from, fromMask, { left, right, top, bottom }, source, gain);
  const data = new Uint8Array(image.data);
  const mask = new Uint8Array(width * height);
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const share = opacity(x, y);
      if (share === 0) continue;
      const at = y * width + x;
      if (share >= 0.5) mask[at] = 1;
      const [u, v] = source(x, y);
      for (let c = 0; c < 3; c++) {
        const value = gain * sample(u, v, from.width, from.height, (i) => from.data[3 * i + c]!) + shift[c]!;
        data[3 * at + c] = Math.round(clamp((1 - share) * image.data[3 * at + c]! + share * value));
      }
    }
  }
  return { image: { width, height, channels: 3, data }, mask, kind: 'pasted' };
}

/** What brings the normal surroundings of a defect to the level of where it is pasted, so that no edge gives it away. */
function toneShift(
  to: RasterImage, from: RasterImage, fromMask: Uint8Array, box: { left: number; right: number; top: number; bottom: number },
  source: (x: number, y: number) => [number, number], gain: number,
): number[] {
  const sums = [0, 0, 0];
  let count = 0;
  for (let y = box.top; y <= box.bottom; y++) {
    for (let x = box.left; x <= box.right; x++) {
      const [u, v] = source(x, y).map(Math.round) as [number, number];
      if (u < 0 || v < 0 || u >= from.width || v >= from.height || fromMask[v * from.width + u] === 1) continue;
      count++;
      for (let c = 0; c < 3; c++) sums[c]! += to.data[3 * (y * to.width + x) + c]! - gain * from.data[3 * (v * from.width + u) + c]!;
    }
  }
  return sums.map((sum) => (count === 0 ? 0 : sum / count));
}

/** A defective image as it is, or mirrored. */
function flipped({ image: { width, height, data: from }, mask: fromMask }: RealDefect, random: Random): PseudoAnomaly {
  const [flipX, flipY] = [random.next() < 0.5, random.next() < 0.5];
  const data = new Uint8Array(from.length);
  const mask = new Uint8Array(fromMask.length);
  for (let i = 0; i < mask.length; i++) {
    const [x, y] = [i % width, Math.floor(i / width)];
    const at = (flipY ? height - 1 - y : y) * width + (flipX ? width - 1 - x : x);
    mask[i] = fromMask[at]!;
    for (let c = 0; c < 3; c++) data[3 * i + c] = from[3 * at + c]!;
  }
  return { image: { width, height, channels: 3, data }, mask, kind: 'real' };
}

/** Bilinear, 0 beyond the border. */
function sample(x: number, y: number, width: number, height: number, value: (at: number) => number): number {
  const [i, j] = [Math.floor(x), Math.floor(y)];
  const at = (u: number, v: number): number => (u < 0 || v < 0 || u >= width || v >= height ? 0 : value(v * width + u));
  const [s, t] = [x - i, y - j];
  return (at(i, j) * (1 - s) + at(i + 1, j) * s) * (1 - t) + (at(i, j + 1) * (1 - s) + at(i + 1, j + 1) * s) * t;
}

function direction(random: Random): [number, number] {
  for (;;) {
    const [x, y] = [random.uniform(-1, 1), random.uniform(-1, 1)];
    const square = x * x + y * y;
    if (square > 0.01 && square < 1) return [x / Math.sqrt(square), y / Math.sqrt(square)];
  }
}

/** Whether hardly any pixel has a colour. */
function looksGrey({ data }: RasterImage): boolean {
  let coloured = 0;
  for (let i = 0; i < data.length; i += 3) {
    if (Math.max(data[i]!, data[i + 1]!, data[i + 2]!) - Math.min(data[i]!, data[i + 1]!, data[i + 2]!) > 12) coloured++;
  }
  return coloured < 0.001 * (data.length / 3);
}

function clamp(value: number): number {
  return Math.min(255, Math.max(0, value));
}
