/**
 * The demo's inspection data: pictures of textures.ts's surfaces as a camera would take them, good ones and ones with a
 * painted defect whose mask is exact by construction, because a pixel belongs to the mask if and only if the defect's
 * shape covers part of it, and outside the mask the picture is, byte for byte, that of the good part.
 * Everything follows from the seed.
 */
import { UsageError } from '../errors.ts';
import type { RasterImage } from './image.ts';
import { Random } from './random.ts';
import { hash, LIGHT, type Shade, smoothStep, type Surface, TEXTURE_SIDE, textures, valueNoise } from './textures.ts';

export type DefectKind = 'scratch' | 'stain' | 'hole' | 'misplaced-patch' | 'dent' | 'missing-thread';

export const proceduralTextures: readonly string[] = Object.keys(textures);

export const defectKinds: readonly DefectKind[] = ['scratch', 'stain', 'hole', 'misplaced-patch', 'dent', 'missing-thread'];

/** The kinds that make sense on a texture: only cloth has threads, and grain has no direction for a patch to be off. */
export function defectKindsOf(texture: string): readonly DefectKind[] {
  checkTexture(texture);
  return defectKinds.filter((kind) => (kind !== 'missing-thread' || texture === 'woven-cloth') && (kind !== 'misplaced-patch' || texture !== 'leather'));
}

export interface DefectOptions {
  readonly kind: DefectKind;
  /** 0 (just visible) to 1 (plain); drawn from the seed where absent. */
  readonly strength?: number;
  /** 0 (small) to 1 (large); drawn from the seed where absent. */
  readonly extent?: number;
}

export interface SampleOptions {
  /** One of {@link proceduralTextures}. */
  readonly texture: string;
  readonly seed: number | string;
  /** Side in pixels, 256 by default. */
  readonly size?: number;
  /** 'none' by default. */
  readonly defect?: DefectOptions | 'none';
}

export interface ProceduralSample {
  /** RGB, size x size. */
  readonly image: RasterImage;
  /** size * size, row-major, 0 or 255. */
  readonly mask: Uint8Array;
  readonly defect?: DefectKind;
}

/** Where a defect is (coordinates in texture units) and what the surface looks like there. */
interface Defect {
  covers(x: number, y: number): boolean;
  /** Called only where the defect covers. */
  readonly shade: Shade;
}

/** Draws one part. The same texture and seed give the same good part under every defect. */
export function renderSample({ texture, seed, size = 256, defect = 'none' }: SampleOptions): ProceduralSample {
  checkTexture(texture);
  if (!Number.isInteger(size) || size < 8) throw new UsageError(`A procedural image needs an integer size of at least 8 pixels, got ${size}.`);
  const surface = textures[texture]!(new Random(`${texture}/${seed}/surface`));
  const painted = defect === 'none' ? undefined : makeDefect(surface, texture, defect, new Random(`${texture}/${seed}/${defect.kind}`));
  const expose = camera(new Random(`${texture}/${seed}/camera`), size);

  const data = new Uint8Array(size * size * 3);
  const mask = new Uint8Array(size * size);
  const colour = new Float64Array(3);
  const sum = new Float64Array(3);
  const scale = TEXTURE_SIDE / size;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const pixel = row * size + column;
      sum.fill(0);
      // Four samples a pixel, so that threads and grooves do not alias.
      for (let sample = 0; sample < 4; sample++) {
        const x = (column + 0.25 + 0.5 * (sample & 1)) * scale;
        const y = (row + 0.25 + 0.5 * (sample >> 1)) * scale;
        if (painted?.covers(x, y)) {
          painted.shade(x, y, colour);
          mask[pixel] = 255;
        } else surface.shade(x, y, colour);
        for (let c = 0; c < 3; c++) sum[c]! += colour[c]! / 4;
      }
      for (let c = 0; c < 3; c++) data[pixel * 3 + c] = expose(sum[c]!, row, column, c);
    }
  }
  return { image: { width: size, height: size, channels: 3, data }, mask, ...(defect !== 'none' && { defect: defect.kind }) };
}

export interface NamedSample {
  /** In MVTec AD's layout: `train/good/000.png`, `test/good/000.png`, `test/scratch/000.png`. */
  readonly path: string;
  /** `ground_truth/scratch/000_mask.png`, for defective samples. */
  readonly maskPath?: string;
  readonly label: 0 | 1;
  /** 'good' or the defect's kind. */
  readonly defect: 'good' | DefectKind;
  /** Draws it; nothing is kept. */
  render(): ProceduralSample;
}

export interface ProceduralSetOptions {
  readonly texture: string;
  readonly seed: number | string;
  /** Side in pixels, 256 by default. */
  readonly size?: number;
  /** Numbers of images. */
  readonly train: number;
  readonly testGood: number;
  readonly testDefective: number;
}

/**
 * A data set of one texture. The defective samples go through the texture's defect kinds in turn, and every kind through
 * its strengths and extents from faint to plain and from small to large, in an order that the seed shuffles.
 */
export function proceduralSet({ texture, seed, size = 256, train, testGood, testDefective }: ProceduralSetOptions): NamedSample[] {
  const kinds = defectKindsOf(texture);
  for (const [name, count] of Object.entries({ train, testGood, testDefective })) {
    if (!Number.isInteger(count) || count < 0) throw new UsageError(`proceduralSet: ${name} must be a non-negative integer, got ${count}.`);
  }
  const fileName = (index: number): string => String(index).padStart(3, '0');
  const good = (split: string, count: number): NamedSample[] => Array.from({ length: count }, (_, index) => {
    const path = `${split}/good/${fileName(index)}.png`;
    return { path, label: 0, defect: 'good', render: () => renderSample({ texture, size, seed: `${seed}/${path}` }) };
  });
  const defective = kinds.flatMap((kind, k): NamedSample[] => {
    const count = Math.floor((testDefective - k + kinds.length - 1) / kinds.length);
    const random = new Random(`${texture}/${seed}/${kind}`);
    const levels = Array.from({ length: count }, (_, index) => (index + random.next()) / count);
    const strengths = random.shuffle([...levels]);
    const extents = random.shuffle([...levels]);
    return strengths.map((strength, index) => {
      const path = `test/${kind}/${fileName(index)}.png`;
      return {
        path,
        maskPath: `ground_truth/${kind}/${fileName(index)}_mask.png`,
        label: 1,
        defect: kind,
        render: () => renderSample({ texture, size, seed: `${seed}/${path}`, defect: { kind, strength, extent: extents[index]! } }),
      };
    });
  });
  return [...good('train', train), ...good('test', testGood), ...defective];
}

function checkTexture(texture: string): void {
  if (!Object.hasOwn(textures, texture)) {
    throw new UsageError(`There is no procedural texture "${texture}"; there are ${proceduralTextures.join(', ')}.`);
  }
}

/** Exposure, uneven lighting and sensor noise, which differ from picture to picture; rounds to 8 bits. */
function camera(random: Random, size: number): (value: number, row: number, column: number, channel: number) => number {
  const gain = random.uniform(0.95, 1.05);
  const [tiltX, tiltY] = [random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05)];
  const seed = random.integer(2 ** 31);
  return (value, row, column, channel) => {
    const light = gain * (1 + tiltX * (2 * column / size - 1) + tiltY * (2 * row / size - 1));
    // Three uniform numbers make a bell close enough to a sensor's noise.
    const noise = hash(column, row, seed + channel) + hash(column, row, seed + 3 + channel) + hash(column, row, seed + 6 + channel) - 1.5;
    return Math.min(255, Math.max(0, Math.round((value * light + 0.022 * noise) * 255)));
  };
}

function makeDefect(surface: Surface, texture: string, options: DefectOptions, random: Random): Defect {
  const { kind } = options;
  if (!defectKindsOf(texture).includes(kind)) {
    throw new UsageError(`There is no defect "${kind}" on ${texture}; there are ${defectKindsOf(texture).join(', ')}.`);
  }
  const strength = options.strength ?? random.next();
  const extent = options.extent ?? random.next();
  if (!(strength >= 0 && strength <= 1 && extent >= 0 && extent <= 1)) {
    throw new UsageError(`A defect's strength and extent lie in [0, 1], got ${strength} and ${extent}.`);
  }
  return painters[kind](surface, { strength, extent, x: random.uniform(50, 206), y: random.uniform(50, 206), random });
}

interface Placement {
  readonly strength: number;
  readonly extent: number;
  /** The defect's centre. */
  readonly x: number;
  readonly y: number;
  readonly random: Random;
}

const painters: Record<DefectKind, (surface: Surface, placement: Placement) => Defect> = {
  scratch,
  stain,
  hole,
  'misplaced-patch': misplacedPatch,
  dent,
  'missing-thread': (surface, { x, y, strength, extent }) => surface.withThinnedThread!(x, y, between(34, 190, extent), between(0.65, 1, strength)),
};

/** A curved groove: bright where its far wall faces the light, dark on the near wall; it tapers towards both ends. */
function scratch(surface: Surface, { strength, extent, x, y, random }: Placement): Defect {
  const length = between(48, 130, extent);
  const halfWidth = between(1.6, 2.6, (extent + strength) / 2);
  // Oblique, so that it never hides in streaks or threads.
  const angle = random.pick([-1, 1]) * random.uniform(0.4, 1.2);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const bend = random.uniform(-0.16, 0.16) * length;
  const seed = random.integer(2 ** 31);
  /** Along the chord -1 .. 1, and the signed distance from the curve. */
  const locate = (px: number, py: number): [along: number, distance: number] => {
    const along = ((px - x) * cos + (py - y) * sin) / (length / 2);
    const across = (py - y) * cos - (px - x) * sin;
    return [along, across - bend * (1 - along * along) - 0.8 * valueNoise(along * length / 9, 0, seed)];
  };
  const halfWidthAt = (along: number): number => halfWidth * Math.sqrt(Math.max(0, 1 - along * along)) * (0.85 + 0.15 * valueNoise(along * length / 4, 5, seed));
  const litSide = Math.sign(-sin * LIGHT.x + cos * LIGHT.y);
  return {
    covers(px, py) {
      const [along, distance] = locate(px, py);
      return Math.abs(along) < 1 && Math.abs(distance) < halfWidthAt(along);
    },
    shade(px, py, colour) {
      surface.shade(px, py, colour);
      const [along, distance] = locate(px, py);
      const wall = distance / halfWidthAt(along) * litSide; // 1 at the edge nearest to the light
      const change = between(0.8, 1.2, strength) * (wall < 0.1 ? 0.42 * (1 - (wall + 0.4) ** 2) : -0.38 * wall);
      for (let c = 0; c < 3; c++) colour[c]! += change;
    },
  };
}

/** An irregular spot of dried oil: a dull brown that keeps the texture's relief, densest in a ring near its edge. */
function stain(surface: Surface, { strength, extent, x, y, random }: Placement): Defect {
  const depthAt = irregularDisc(x, y, between(12, 30, extent), 0.3, random);
  const opacity = between(0.42, 0.8, strength);
  const oil = [0.58, 0.5, 0.4];
  return {
    covers: (px, py) => depthAt(px, py) > 0,
    shade(px, py, colour) {
      surface.shade(px, py, colour);
      const depth = depthAt(px, py);
      const amount = opacity * (0.3 + 0.7 * smoothStep(0, 0.12, depth)) * (1 - 0.25 * smoothStep(0.1, 0.5, depth));
      const relief = 0.3 * colour[0]! + 0.59 * colour[1]! + 0.11 * colour[2]!;
      for (let c = 0; c < 3; c++) colour[c] = colour[c]! * (1 - amount) + relief * oil[c]! * amount;
    },
  };
}

/** A pit: dark inside, its wall lit on the side that faces the light. */
function hole(surface: Surface, { strength, extent, x, y, random }: Placement): Defect {
  const radius = between(4.6, 11, extent);
  const depthAt = irregularDisc(x, y, radius, 0.22, random);
  const opacity = between(0.7, 0.95, strength);
  return {
    covers: (px, py) => depthAt(px, py) > 0,
    shade(px, py, colour) {
      surface.shade(px, py, colour);
      const depth = depthAt(px, py);
      const away = -((px - x) * LIGHT.x + (py - y) * LIGHT.y) / radius;
      const bottom = 0.07 + 0.28 * Math.max(0, away) * (1 - smoothStep(0.1, 0.45, depth));
      const amount = opacity * smoothStep(-0.1, 0.2, depth);
      for (let c = 0; c < 3; c++) colour[c] = colour[c]! * (1 - amount) + bottom * amount;
    },
  };
}

/** A piece of the same surface from elsewhere, put in turned; it throws a thin shadow at its edge. */
function misplacedPatch(surface: Surface, { strength, extent, x, y, random }: Placement): Defect {
  const halfWidth = between(12, 32, extent) * random.uniform(0.8, 1.2);
  const halfHeight = between(12, 32, extent) * random.uniform(0.8, 1.2);
  const tilt = random.uniform(-0.5, 0.5);
  const turn = random.pick([-1, 1]) * between(0.35, Math.PI / 2, strength);
  const [fromX, fromY] = rotate(random.uniform(62, 84), 0, random.uniform(0, 2 * Math.PI)).map((offset) => TEXTURE_SIDE / 2 + offset) as [number, number];
  /** Distance inside the patch's edge; negative outside. */
  const insideBy = (px: number, py: number): number => {
    const [dx, dy] = rotate(px - x, py - y, tilt);
    return Math.min(halfWidth - Math.abs(dx), halfHeight - Math.abs(dy));
  };
  return {
    covers: (px, py) => insideBy(px, py) > 0,
    shade(px, py, colour) {
      const [dx, dy] = rotate(px - x, py - y, turn);
      surface.shade(fromX + dx, fromY + dy, colour);
      const shadow = 1 - between(0.1, 0.3, strength) * (1 - smoothStep(0, 1.6, insideBy(px, py)));
      for (let c = 0; c < 3; c++) colour[c]! *= shadow;
    },
  };
}

/** A shallow bowl: it bends the texture, is dark on the side of the light and bright on the other. */
function dent(surface: Surface, { strength, extent, x, y, random }: Placement): Defect {
  const radius = between(9, 30, extent);
  const squeeze = random.uniform(0.75, 1);
  const tilt = random.uniform(-1.5, 1.5);
  const depth = between(0.55, 1, strength);
  /** Offsets from the centre as shares of the radius, in the ellipse's frame. */
  const distanceAt = (px: number, py: number): number => {
    const [dx, dy] = rotate(px - x, py - y, tilt);
    return Math.sqrt(dx * dx + (dy / squeeze) ** 2) / radius;
  };
  return {
    covers: (px, py) => distanceAt(px, py) < 1,
    shade(px, py, colour) {
      const distance = distanceAt(px, py);
      const bowl = (1 - distance * distance) ** 2;
      const pull = 1 + 0.3 * depth * bowl;
      surface.shade(x + (px - x) * pull, y + (py - y) * pull, colour);
      // The slope of (1 - d^2)^2, largest half-way out.
      const slope = ((px - x) * LIGHT.x + (py - y) * LIGHT.y) / radius * (1 - distance * distance) * 2.6;
      const light = 1 - 0.46 * depth * slope - 0.10 * depth * bowl;
      for (let c = 0; c < 3; c++) colour[c]! *= light;
    },
  };
}

/** The depth inside a disc with a wavering edge, as a share of the radius: 1 in the middle, 0 at the edge, negative outside. */
function irregularDisc(x: number, y: number, radius: number, roughness: number, random: Random): (px: number, py: number) => number {
  const seed = random.integer(2 ** 31);
  const squeeze = random.uniform(0.65, 1);
  const tilt = random.uniform(-1.5, 1.5);
  return (px, py) => {
    const [dx, dy] = rotate(px - x, (py - y), tilt);
    const distance = Math.sqrt(dx * dx + (dy / squeeze) ** 2) / radius;
    if (distance > 1 + 2 * roughness) return -1;
    const edge = 1 + roughness * valueNoise(px / radius * 1.6, py / radius * 1.6, seed) + 0.4 * roughness * valueNoise(px / radius * 5, py / radius * 5, seed + 1);
    return edge - distance;
  };
}

function rotate(x: number, y: number, angle: number): [x: number, y: number] {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return [x * cos + y * sin, y * cos - x * sin];
}

function between(low: number, high: number, share: number): number {
  return low + (high - low) * share;
}
