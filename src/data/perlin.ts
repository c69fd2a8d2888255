/**
 * Perlin's gradient noise (Improving Noise, 2002) on a lattice without end, and the defect masks that INP-Former++ cuts out of
 * it as DRAEM does: cells of 1 to 1/32 of the image's sides, each side's a power of two drawn for itself, the whole turned by
 * up to a quarter either way, and what lies above 0.5 is the mask. With few cells it is one or two large blots, with many,
 * specks; with different sides, streaks.
 */
import type { Random } from './random.ts';

/** Noise of about [-1, 1]; its lattice points are the integers. */
export function perlinNoise(random: Random): (x: number, y: number) => number {
  // A point's gradient is one of these, picked by a hash of its coordinates.
  const directions = Array.from({ length: 64 }, () => unitVector(random));
  const seed = random.integer(2 ** 31);
  const slope = (i: number, j: number, x: number, y: number): number => {
    const [gx, gy] = directions[latticeHash(i, j, seed) & 63]!;
    return gx * (x - i) + gy * (y - j);
  };
  return (x, y) => {
    const [i, j] = [Math.floor(x), Math.floor(y)];
    const [u, v] = [fade(x - i), fade(y - j)];
    const top = slope(i, j, x, y) * (1 - u) + slope(i + 1, j, x, y) * u;
    const bottom = slope(i, j + 1, x, y) * (1 - u) + slope(i + 1, j + 1, x, y) * u;
    return Math.SQRT2 * (top * (1 - v) + bottom * v);
  };
}

/** Zeros and ones, `width * height`; may be all zeros. */
export function perlinMask(width: number, height: number, random: Random): Uint8Array {
  const cellsAcross = 2 ** random.integer(6);
  const cellsDown = 2 ** random.integer(6);
  const noise = perlinNoise(random);
  // Turned by -90 to 90 degrees around the centre: the direction has a cosine of at least 0.
  const [sin, cos] = unitVector(random);
  const [c, s] = [Math.abs(cos), sin];
  const mask = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const y = (row + 0.5) / height - 0.5;
    for (let column = 0; column < width; column++) {
      const x = (column + 0.5) / width - 0.5;
      if (noise((c * x - s * y + 0.5) * cellsAcross, (s * x + c * y + 0.5) * cellsDown) > 0.5) mask[row * width + column] = 1;
    }
  }
  return mask;
}

/** Uniform over the circle, without sines, whose last bit differs between JavaScript engines. */
function unitVector(random: Random): [number, number] {
  for (;;) {
    const [x, y] = [random.uniform(-1, 1), random.uniform(-1, 1)];
    const square = x * x + y * y;
    if (square > 0.01 && square < 1) return [x / Math.sqrt(square), y / Math.sqrt(square)];
  }
}

function latticeHash(i: number, j: number, seed: number): number {
  let h = Math.imul(i, 0x9e3779b1) ^ Math.imul(j, 0x85ebca77) ^ Math.imul(seed, 0xc2b2ae3d);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

function fade(t: number): number {
  return t * t * t * (t * (6 * t - 15) + 10);
}
