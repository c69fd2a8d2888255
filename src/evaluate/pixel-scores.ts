/**
 * All pixels of a data set as two sorted lists of distinct scores with counts, built image by image: everything that the
 * pixel metrics need, whatever the number of images. Scores gather in a buffer; a full one is sorted and merged into the
 * list. The metrics are exact for 16 million distinct scores of a class, hence for any 256 images of 256 x 256. Lists that
 * grow longer are coarsened: the lowest bit of the scores is dropped and neighbours are merged, so that memory stays bounded
 * (about 500 MB), while the metrics change by 1e-5 at most.
 *
 * A float32's bits, made monotonic, order like the number itself; so keys are 32-bit integers.
 */
import { InputError, UsageError } from '../errors.ts';
import type { ScoreGroups, VisitGroup } from './ranking.ts';
import { labelRegions } from './regions.ts';

/** One image's anomaly map and ground truth; `mask` is absent for a normal image. */
export interface ScoredMap {
  readonly map: Float32Array;
  /** Non-zero = anomalous; same size as the map. */
  readonly mask?: Uint8Array;
  readonly width: number;
  readonly height: number;
  /** What errors call it. */
  readonly name?: string;
}

export interface PixelScoresOptions {
  /** Scores that are gathered before they are sorted. */
  readonly bufferSize?: number;
  /** Distinct scores of a class, above which they are coarsened. */
  readonly mostDistinct?: number;
}

/** Regions in a data set that one key can tell apart: 32 bits of score and these fit into a double's 53. */
const REGION_RANGE = 2 ** 21;

export class PixelScores implements ScoreGroups {
  private readonly normal: Run;
  private readonly anomalous: Run;
  private readonly normalBuffer: Uint32Array;
  /** key * REGION_RANGE + region, which a native sort of numbers orders by key. */
  private readonly anomalousBuffer: Float64Array;
  private normalCount = 0;
  private anomalousCount = 0;
  private readonly mostDistinct: number;
  /** Area of each region of all images, by its number. */
  private readonly areas: number[] = [];
  private dropped = 0;
  /** What is left of a key. */
  private keep = 0xffffffff;
  private low = Infinity;
  private high = -Infinity;
  private numNormal = 0;
  private numAnomalous = 0;

  constructor({ bufferSize = 2 ** 22, mostDistinct = 2 ** 24 }: PixelScoresOptions = {}) {
    this.normalBuffer = new Uint32Array(bufferSize);
    this.anomalousBuffer = new Float64Array(Math.max(1, bufferSize >> 2));
    this.mostDistinct = mostDistinct;
    this.normal = emptyRun();
    this.anomalous = emptyRun();
  }

  get negatives(): number {
    return this.numNormal;
  }

  get positives(): number {
    return this.numAnomalous;
  }

  /** 8-connected regions of all masks. */
  get regions(): number {
    return this.areas.length;
  }

  /** Lowest and highest score of all pixels; infinite without any. */
  get range(): readonly [lowest: number, highest: number] {
    return [this.low, this.high];
  }

  /** Bits of the scores that had to be dropped; 0: all metrics are exact. */
  get droppedBits(): number {
    return this.dropped;
  }

  /** @throws UsageError if sizes disagree; InputError for a score that is not finite */
  add(scored: ScoredMap): void {
    checkSize(scored);
    const { map, mask, width, height } = scored;
    const labelled = mask && labelRegions(mask, width, height);
    const firstRegion = this.areas.length;
    if (labelled) for (const { area } of labelled.regions) this.areas.push(area);
    if (this.areas.length > REGION_RANGE) throw new UsageError(`${scored.name ?? 'anomaly map'}: at most ${REGION_RANGE} regions can be measured at once; the masks look like noise.`);

    const bits = new Uint32Array(map.buffer, map.byteOffset, map.length);
    for (let i = 0; i < bits.length; i++) {
      const pattern = bits[i]!;
      if ((pattern & 0x7f800000) === 0x7f800000) throw notFinite(scored, i);
      const score = map[i]!;
      if (score < this.low) this.low = score;
      if (score > this.high) this.high = score;
      // -0 becomes 0, its equal.
      const key = (pattern < 0x80000000 ? pattern + 0x80000000 : pattern === 0x80000000 ? pattern : 0xffffffff - pattern) & this.keep;
      const label = labelled ? labelled.labels[i]! : 0;
      if (label === 0) {
        this.numNormal++;
        this.normalBuffer[this.normalCount++] = key;
        if (this.normalCount === this.normalBuffer.length) this.mergeNormal();
      } else {
        this.numAnomalous++;
        this.anomalousBuffer[this.anomalousCount++] = (key >>> 0) * REGION_RANGE + firstRegion + label - 1;
        if (this.anomalousCount === this.anomalousBuffer.length) this.mergeAnomalous();
      }
    }
  }

  /** From the highest score down. The weight is the sum of 1 / (area of the region) over the anomalous pixels. */
  descend(visit: VisitGroup): void {
    this.mergeNormal();
    this.mergeAnomalous();
    const { normal, anomalous } = this;
    for (let n = normal.length - 1, a = anomalous.length - 1; n >= 0 || a >= 0;) {
      const normalKey = n >= 0 ? normal.keys[n]! : -1;
      const anomalousKey = a >= 0 ? anomalous.keys[a]! : -1;
      const key = Math.max(normalKey, anomalousKey);
      const positives = anomalousKey === key ? anomalous.counts[a]! : 0;
      const weight = anomalousKey === key ? anomalous.weights![a--]! : 0;
      const negatives = normalKey === key ? normal.counts[n--]! : 0;
      visit(scoreOf(key), positives, negatives, weight);
    }
  }

  private mergeNormal(): void {
    if (this.normalCount === 0) return;
    const sorted = this.normalBuffer.subarray(0, this.normalCount).sort();
    mergeInto(this.normal, distinct(sorted));
    this.normalCount = 0;
    this.coarsen();
  }

  private mergeAnomalous(): void {
    if (this.anomalousCount === 0) return;
    const sorted = this.anomalousBuffer.subarray(0, this.anomalousCount).sort();
    const keys = new Uint32Array(sorted.length);
    const counts = new Uint32Array(sorted.length);
    const weights = new Float64Array(sorted.length);
    let length = 0;
    for (const packed of sorted) {
      const key = Math.floor(packed / REGION_RANGE);
      if (length === 0 || keys[length - 1] !== key) keys[length++] = key;
      counts[length - 1]!++;
      weights[length - 1]! += 1 / this.areas[packed % REGION_RANGE]!;
    }
    mergeInto(this.anomalous, { length, keys, counts, weights });
    this.anomalousCount = 0;
    this.coarsen();
  }

  /** Both lists alike, so that ties between them stay ties. */
  private coarsen(): void {
    if (Math.max(this.normal.length, this.anomalous.length) <= this.mostDistinct) return;
    while (Math.max(this.normal.length, this.anomalous.length) > this.mostDistinct / 2 && this.dropped < 22) {
      this.dropped++;
      this.keep = ~((1 << this.dropped) - 1) >>> 0;
      for (const run of [this.normal, this.anomalous]) dropBits(run, this.keep);
    }
    for (let i = 0; i < this.normalCount; i++) this.normalBuffer[i]! &= this.keep;
    for (let i = 0; i < this.anomalousCount; i++) {
      const packed = this.anomalousBuffer[i]!;
      this.anomalousBuffer[i] = ((Math.floor(packed / REGION_RANGE) & this.keep) >>> 0) * REGION_RANGE + packed % REGION_RANGE;
    }
  }
}

/** Distinct keys, ascending, and how many pixels have each. */
interface Run {
  length: number;
  keys: Uint32Array;
  counts: Uint32Array;
  weights?: Float64Array;
}

function emptyRun(): Run {
  return { length: 0, keys: new Uint32Array(0), counts: new Uint32Array(0) };
}

function distinct(sorted: Uint32Array): Run {
  const keys = new Uint32Array(sorted.length);
  const counts = new Uint32Array(sorted.length);
  let length = 0;
  for (let i = 0; i < sorted.length; i++) {
    const key = sorted[i]!;
    if (length === 0 || keys[length - 1] !== key) keys[length++] = key;
    counts[length - 1]!++;
  }
  return { length, keys, counts };
}

function mergeInto(run: Run, more: Run): void {
  const most = run.length + more.length;
  const keys = new Uint32Array(most);
  const counts = new Uint32Array(most);
  const weights = more.weights && new Float64Array(most);
  let length = 0;
  for (let i = 0, j = 0; i < run.length || j < more.length; length++) {
    const a = i < run.length ? run.keys[i]! : Infinity;
    const b = j < more.length ? more.keys[j]! : Infinity;
    keys[length] = Math.min(a, b);
    if (a <= b) {
      counts[length] = run.counts[i]!;
      if (weights) weights[length] = run.weights![i]!;
      i++;
    }
    if (b <= a) {
      counts[length]! += more.counts[j]!;
      if (weights) weights[length]! += more.weights![j]!;
      j++;
    }
  }
  Object.assign(run, { length, keys, counts, weights });
}

/** In place; what is free at the end goes with the next merge. */
function dropBits(run: Run, keep: number): void {
  const { keys, counts, weights } = run;
  let length = 0;
  for (let i = 0; i < run.length; i++) {
    const key = (keys[i]! & keep) >>> 0;
    const isNew = length === 0 || keys[length - 1] !== key;
    if (isNew) length++;
    keys[length - 1] = key;
    counts[length - 1] = counts[i]! + (isNew ? 0 : counts[length - 1]!);
    if (weights) weights[length - 1] = weights[i]! + (isNew ? 0 : weights[length - 1]!);
  }
  run.length = length;
}

const pattern = new Uint32Array(1);
const float = new Float32Array(pattern.buffer);

function scoreOf(key: number): number {
  pattern[0] = key >= 0x80000000 ? key - 0x80000000 : 0xffffffff - key;
  return float[0]!;
}

function checkSize({ map, mask, width, height, name = 'anomaly map' }: ScoredMap): void {
  if (map.length !== width * height || (mask && mask.length !== width * height)) {
    throw new UsageError(`${name}: ${width} x ${height} needs ${width * height} pixels; the map has ${map.length}, the mask ${mask?.length ?? 'none'}.`);
  }
}

function notFinite({ map, width, name = 'anomaly map' }: ScoredMap, i: number): InputError {
  return new InputError(`${name}: the anomaly map is ${map[i]} at pixel (${i % width}, ${Math.floor(i / width)}); it must be finite.`, { file: name });
}
