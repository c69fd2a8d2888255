/**
 * Four industrial surfaces as pure functions of position: woven cloth, brushed metal, turned metal and grained leather.
 * A surface is drawn in units of 1/256 of the image's side, so that it looks the same at every size; what a seed varies
 * (phase, slight rotation, thread thickness, grain, highlight) is what varies between good parts on a line.
 * Sines and powers may differ in their last bit between JavaScript engines; after rounding to 8 bits a stray grey level
 * is all that can remain of it.
 */
import type { Random } from './random.ts';

/** Side of an image in texture units. */
export const TEXTURE_SIDE = 256;

/** Writes the surface's colour at (x, y) into `colour`: RGB, 0 to 1. */
export type Shade = (x: number, y: number, colour: Float64Array) => void;

export interface Surface {
  readonly shade: Shade;
  /**
   * Cloth only: the surface with the thread nearest to (x, y) thinned by `share` (1 = missing) over `length`, and
   * where that shows.
   */
  withThinnedThread?(x: number, y: number, length: number, share: number): { shade: Shade; covers(x: number, y: number): boolean };
}

export const textures: Readonly<Record<string, (random: Random) => Surface>> = {
  'woven-cloth': wovenCloth,
  'brushed-metal': brushedMetal,
  'turned-metal': turnedMetal,
  leather,
};

/** Towards the light, from the top left; the surfaces and the defects on them share it. */
export const LIGHT = { x: -0.62, y: -0.78 } as const;

/** Plain weave: each thread is half a cylinder that rises over one crossing thread and dives under the next. */
function wovenCloth(random: Random): Surface {
  const period = 8 * random.uniform(0.985, 1.015);
  const angle = random.uniform(-0.026, 0.026);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const [phaseU, phaseV] = [random.uniform(0, 64), random.uniform(0, 64)];
  const seed = random.integer(2 ** 31);
  const weft = [0.60, 0.64, 0.70];
  const warp = [0.43, 0.49, 0.59];

  interface Thinned { readonly index: number; readonly from: number; readonly to: number; readonly share: number }
  /** Thread coordinates: u counts warp threads from left to right, v weft threads from top to bottom; both drift a little. */
  const toThreads = (x: number, y: number): [u: number, v: number] => [
    (x * cos + y * sin + 1.3 * valueNoise(x / 70, y / 70, seed)) / period + phaseU,
    (y * cos - x * sin + 1.3 * valueNoise(x / 70, y / 70, seed + 1)) / period + phaseV,
  ];

  const shade = (x: number, y: number, colour: Float64Array, thinned?: Thinned): void => {
    const [u, v] = toThreads(x, y);
    const [i, j] = [Math.floor(u), Math.floor(v)];
    const isThinned = thinned !== undefined && j === thinned.index && u >= thinned.from && u < thinned.to;
    const over = ((i + j) & 1) === 0 ? 1 : -1;
    // Across a thread -1 .. 1; yarn is uneven, so each thread's width changes slowly along it.
    const warpAcross = (2 * (u - i) - 1) / (0.95 + 0.07 * valueNoise(i * 7.3, v / 5, seed + 2));
    const weftWidth = (0.95 + 0.07 * valueNoise(j * 7.3, u / 5, seed + 3)) * (isThinned ? 1 - thinned.share : 1);
    const weftAcross = (2 * (v - j) - 1) / Math.max(0.01, weftWidth);
    const warpHeight = Math.abs(warpAcross) < 1 ? Math.sqrt(1 - warpAcross ** 2) + 0.9 * over * Math.sin(Math.PI * (v - j)) : -2;
    const weftHeight = Math.abs(weftAcross) < 1 ? Math.sqrt(1 - weftAcross ** 2) - 0.9 * over * Math.sin(Math.PI * (u - i)) : -2;
    if (warpHeight === -2 && weftHeight === -2) {
      colour.set([0.12, 0.13, 0.15]); // the gap between threads
      return;
    }
    const isWarp = warpHeight > weftHeight;
    const height = Math.max(warpHeight, weftHeight);
    const across = isWarp ? warpAcross : weftAcross;
    const along = isWarp ? v : u;
    const slopeAlong = 0.5 * (isWarp ? over * Math.cos(Math.PI * (v - j)) : -over * Math.cos(Math.PI * (u - i)));
    const [slopeX, slopeY] = isWarp ? [-across, slopeAlong] : [slopeAlong, -across];
    const light = 0.80 - 0.17 * (slopeX * LIGHT.x + slopeY * LIGHT.y) + 0.12 * (height - 1);
    const thread = (isWarp ? i : j) * 5.7;
    const yarn = 1 + 0.05 * valueNoise(thread, along / 9, seed + 4) // each thread a little lighter or darker
      + 0.07 * valueNoise(across * 2.2 + along * 1.5, along * 3.5 + thread, seed + 5); // twisted fibres
    const dye = isWarp ? warp : weft;
    for (let c = 0; c < 3; c++) colour[c] = dye[c]! * 1.2 * light * yarn;
  };

  return {
    shade: (x, y, colour) => shade(x, y, colour),
    withThinnedThread(x, y, length, share) {
      const [u, v] = toThreads(x, y);
      const half = length / period / 2;
      const thinned: Thinned = { index: Math.floor(v), from: Math.floor(u - half), to: Math.ceil(u + half), share };
      return {
        shade: (px, py, colour) => shade(px, py, colour, thinned),
        covers(px, py) {
          const [pu, pv] = toThreads(px, py);
          return Math.floor(pv) === thinned.index && pu >= thinned.from && pu < thinned.to;
        },
      };
    },
  };
}

/** Fine parallel streaks, long in the brushing direction and a fraction of a unit across, under a broad highlight. */
function brushedMetal(random: Random): Surface {
  const angle = random.uniform(-0.02, 0.02);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const seed = random.integer(2 ** 31);
  const highlight = random.uniform(108, 148);
  return {
    shade(x, y, colour) {
      const along = x * cos + y * sin;
      const across = y * cos - x * sin;
      const streaks = 0.055 * valueNoise(along / 90, across / 0.9, seed)
        + 0.045 * valueNoise(along / 45, across / 2.1, seed + 1)
        + 0.035 * valueNoise(along / 160, across / 6, seed + 2)
        + 0.03 * valueNoise(along / 14, across / 0.7, seed + 3);
      const broad = 0.13 * Math.exp(-(((across - highlight) / 85) ** 2));
      const brightness = 0.53 + broad + streaks;
      colour[0] = brightness * 0.975;
      colour[1] = brightness * 0.99;
      colour[2] = brightness * 1.015;
    },
  };
}

/** A face turned on a lathe: concentric grooves and the two-winged highlight that they make. */
function turnedMetal(random: Random): Surface {
  const centreX = TEXTURE_SIDE / 2 + random.uniform(-3, 3);
  const centreY = TEXTURE_SIDE / 2 + random.uniform(-3, 3);
  const wing = random.uniform(-0.06, 0.06) - Math.PI / 4;
  const seed = random.integer(2 ** 31);
  const feed = 4.2; // units between the tool's grooves
  const phase = random.next();
  return {
    shade(x, y, colour) {
      const [dx, dy] = [x - centreX, y - centreY];
      const radius = Math.sqrt(dx * dx + dy * dy);
      const bore = 9;
      if (radius < bore) {
        const depth = 0.07 + (radius > bore - 1.8 ? 0.45 * (0.5 - 0.5 * (dx * LIGHT.x + dy * LIGHT.y) / radius) : 0);
        colour.set([depth, depth, depth * 1.03]);
        return;
      }
      const [ux, uy] = [dx / radius, dy / radius];
      // Noise that varies with the radius quickly and with the angle slowly; (ux, uy) has no seam where an angle would.
      const grooves = 0.055 * Math.sin(2 * Math.PI * (radius / feed + phase))
        + 0.05 * valueNoise(radius / 1.1, ux * 1.7 + 9 * uy / 5, seed)
        + 0.035 * valueNoise(radius / 2.7, ux * 1.3 - uy * 1.1, seed + 1);
      // cos^4 of the angle to the wing's axis, both ways.
      const facing = (ux * Math.cos(wing) + uy * Math.sin(wing)) ** 2;
      const brightness = 0.40 + 0.24 * facing * facing + grooves * (0.7 + 0.6 * facing);
      colour[0] = brightness * 1.02;
      colour[1] = brightness;
      colour[2] = brightness * 0.965;
    },
  };
}

/** Pebbled grain: rounded cells around jittered points, with creases where two cells meet. */
function leather(random: Random): Surface {
  const cell = 8.5;
  const seed = random.integer(2 ** 31);
  const angle = random.uniform(-0.15, 0.15);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const dye = [0.50, 0.315, 0.205];
  return {
    shade(x, y, colour) {
      const [u, v] = [(x * cos + y * sin) / cell, (y * cos - x * sin) / (cell * 0.9)];
      const [i, j] = [Math.floor(u), Math.floor(v)];
      let [nearest, second] = [9, 9];
      let [offsetU, offsetV, tone] = [0, 0, 0];
      for (let dj = -1; dj <= 1; dj++) {
        for (let di = -1; di <= 1; di++) {
          const du = u - (i + di + 0.15 + 0.7 * hash(i + di, j + dj, seed));
          const dv = v - (j + dj + 0.15 + 0.7 * hash(i + di, j + dj, seed + 1));
          const distance = du * du + dv * dv;
          if (distance < nearest) {
            second = nearest;
            nearest = distance;
            [offsetU, offsetV, tone] = [du, dv, hash(i + di, j + dj, seed + 2)];
          } else if (distance < second) second = distance;
        }
      }
      const toCrease = Math.sqrt(second) - Math.sqrt(nearest);
      const dome = smoothStep(0, 0.32, toCrease);
      const slope = offsetU * LIGHT.x + offsetV * LIGHT.y;
      const light = 0.62 + 0.33 * dome + 0.38 * slope * (0.35 + 0.65 * dome) + 0.08 * (tone - 0.5)
        + 0.05 * valueNoise(x / 46, y / 46, seed + 3) + 0.06 * valueNoise(x / 0.9, y / 0.9, seed + 4);
      const shine = 0.16 * Math.max(0, slope - 0.12) * dome;
      for (let c = 0; c < 3; c++) colour[c] = dye[c]! * 1.12 * light + shine;
    },
  };
}

/** A number in [0, 1) that only depends on the lattice point and the seed. */
export function hash(x: number, y: number, seed: number): number {
  let h = Math.imul(x, 0x9e3779b1) ^ Math.imul(y, 0x85ebca77) ^ Math.imul(seed, 0xc2b2ae3d);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 4294967296;
}

/** Smooth noise in [-1, 1]: random values at the integer points, interpolated between. */
export function valueNoise(x: number, y: number, seed: number): number {
  const [i, j] = [Math.floor(x), Math.floor(y)];
  const s = smoothStep(0, 1, x - i);
  const t = smoothStep(0, 1, y - j);
  const top = hash(i, j, seed) * (1 - s) + hash(i + 1, j, seed) * s;
  const bottom = hash(i, j + 1, seed) * (1 - s) + hash(i + 1, j + 1, seed) * s;
  return 2 * (top * (1 - t) + bottom * t) - 1;
}

/** 0 below `from`, 1 above `to`, a cubic between. */
export function smoothStep(from: number, to: number, x: number): number {
  const t = Math.min(1, Math.max(0, (x - from) / (to - from)));
  return t * t * (3 - 2 * t);
}
