/**
 * The one seeded random generator: mulberry32 (32 bits of state), seeded from text by FNV-1a, so that everything
 * random (initial weights, shuffles, augmentations, the demo's images) has its own named, reproducible stream.
 * Only + - * / and square roots are used (Math.log and Math.cos may differ in their last bit between JavaScript
 * engines), so the same seed gives the same bits everywhere.
 */
import { UsageError } from '../errors.ts';

/** FNV-1a, 32 bits, of the UTF-8 bytes of `text`: the seed that a name stands for. */
export function seedFromText(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

export class Random {
  /** The whole state, an unsigned 32-bit integer: save it, and set it to continue where it was saved. */
  state: number;

  /** @param seed a number (its low 32 bits count), or a text that {@link seedFromText} turns into one. */
  constructor(seed: number | string) {
    this.state = (typeof seed === 'string' ? seedFromText(seed) : seed) >>> 0;
  }

  /** Uniform in [0, 1), a multiple of 2^-32. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Uniform in [low, high). */
  uniform(low: number, high: number): number {
    return low + (high - low) * this.next();
  }

  /** A uniform integer in [0, count), count from 1 to 2^32. */
  integer(count: number): number {
    if (!(Number.isInteger(count) && count >= 1 && count <= 2 ** 32)) {
      throw new UsageError(`Random.integer: the count must be an integer from 1 to 2^32, got ${count}.`);
    }
    return Math.floor(this.next() * count);
  }

  /** One of `items`, which must not be empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.integer(items.length)]!;
  }

  /** Standard normal, by Marsaglia's polar method; of its two values one is dropped, to keep the state in one number. */
  normal(): number {
    for (;;) {
      const u = 2 * this.next() - 1;
      const v = 2 * this.next() - 1;
      const s = u * u + v * v;
      if (s > 0 && s < 1) return u * Math.sqrt(-2 * naturalLogarithm(s) / s);
    }
  }

  /** Normal with mean 0, redrawn until it lies in [low, high]. The defaults initialise the reference's linear weights. */
  truncatedNormal(standardDeviation = 0.01, low = -0.03, high = 0.03): number {
    if (!(standardDeviation > 0 && low <= standardDeviation && high >= -standardDeviation && low < high)) {
      throw new UsageError(`Random.truncatedNormal: [${low}, ${high}] must overlap one standard deviation (${standardDeviation}) around 0.`);
    }
    for (;;) {
      const value = standardDeviation * this.normal();
      if (value >= low && value <= high) return value;
    }
  }

  /** Shuffles in place (Fisher-Yates) and returns the array. */
  shuffle<T extends unknown[] | Int32Array | Uint32Array>(items: T): T {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const other = items[i]!;
      items[i] = items[j]!;
      items[j] = other;
    }
    return items;
  }
}

/**
 * ln x for x in (0, 1), to about the last bit: x = m 2^e with m in [sqrt(1/2), sqrt 2), and ln m = 2 atanh z with
 * z = (m - 1)/(m + 1), by its series.
 */
function naturalLogarithm(x: number): number {
  let exponent = 0;
  let mantissa = x;
  for (; mantissa < Math.SQRT1_2; mantissa *= 2) exponent--;
  const z = (mantissa - 1) / (mantissa + 1);
  const square = z * z;
  let series = 0;
  // |z| < 0.172, so the first dropped term is below 1e-18 of the sum.
  for (let k = 23; k >= 1; k -= 2) series = series * square + 1 / k;
  return exponent * Math.LN2 + 2 * z * series;
}
