/**
 * AUPRO: the area under the per-region-overlap curve. At a threshold t, PRO(t) is the mean over all ground-truth
 * regions of the share of the region's pixels with score > t, and FPR(t) the share of all normal pixels with
 * score > t; the area under PRO over FPR is taken up to FPR 0.3 and divided by 0.3, so that small defects count as
 * much as large ones. Regions are 8-connected. Two readings exist, and they differ where scores tie:
 * `auproOfficial` is the reference code's, `auproExact` integrates over every distinct score.
 */
import { InputError, UsageError } from '../errors.ts';
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

export interface AuproOfficial {
  readonly aupro: number;
  /** The curve: the thresholds and, at each, PRO and FPR. */
  readonly thresholds: Float64Array;
  readonly pro: Float64Array;
  readonly fpr: Float64Array;
}

export const AUPRO_FPR_LIMIT = 0.3;
const NUM_THRESHOLDS = 200;

/**
 * The reference's AUPRO: 200 thresholds min + i (max - min)/200; the points with FPR < 0.3 are kept, their FPR divided
 * by the largest one, and the trapezoids summed. No (0, 0) is added and the curve is not extended to 0.3.
 * Two cases in which the reference fails are settled here: if no normal pixel is above any kept threshold (0/0 there),
 * the result is the highest PRO reached at FPR 0; if no threshold keeps FPR below 0.3, it is 0.
 * Null unless there are both regions and normal pixels.
 */
export function auproOfficial(maps: readonly ScoredMap[]): AuproOfficial | null {
  let lowest = Infinity;
  let highest = -Infinity;
  for (const scored of maps) {
    checkScoredMap(scored);
    for (const score of scored.map) {
      if (score < lowest) lowest = score;
      if (score > highest) highest = score;
    }
  }
  // The step as numpy's arange rounds it: where scores are quantised, its last bit decides on which side of a score a
  // threshold falls.
  const step = lowest + (highest - lowest) / NUM_THRESHOLDS - lowest;
  const thresholds = Float64Array.from({ length: NUM_THRESHOLDS }, (_, i) => lowest + i * step);

  // One pass: each pixel falls into bin b = the number of thresholds below it, and is above thresholds 0 .. b-1.
  const normal = new Float64Array(NUM_THRESHOLDS + 1);
  const overlap = new Float64Array(NUM_THRESHOLDS + 1); // pixels of regions, each weighing 1 / its region's area
  let numNormal = 0;
  let numRegions = 0;
  for (const { map, mask, width, height } of maps) {
    const { labels, regions } = mask ? labelRegions(mask, width, height) : { labels: undefined, regions: [] };
    const counts = regions.map(() => new Uint32Array(NUM_THRESHOLDS + 1));
    for (let i = 0; i < map.length; i++) {
      const score = map[i]!;
      let bin = step > 0 ? Math.min(NUM_THRESHOLDS, Math.max(0, Math.ceil((score - lowest) / step))) : 0;
      // The division rounds; the comparison with the thresholds themselves decides.
      while (bin < NUM_THRESHOLDS && score > thresholds[bin]!) bin++;
      while (bin > 0 && !(score > thresholds[bin - 1]!)) bin--;
      const label = labels ? labels[i]! : 0;
      if (label === 0) {
        normal[bin]!++;
        numNormal++;
      } else {
        counts[label - 1]![bin]!++;
      }
    }
    regions.forEach((region, r) => counts[r]!.forEach((count, bin) => { overlap[bin]! += count / region.area; }));
    numRegions += regions.length;
  }
  if (numRegions === 0 || numNormal === 0) return null;

  const pro = new Float64Array(NUM_THRESHOLDS);
  const fpr = new Float64Array(NUM_THRESHOLDS);
  for (let i = NUM_THRESHOLDS - 1, above = 0, covered = 0; i >= 0; i--) {
    above += normal[i + 1]!;
    covered += overlap[i + 1]!;
    fpr[i] = above / numNormal;
    pro[i] = covered / numRegions;
  }

  // FPR falls as the threshold rises, so the kept points are the last ones.
  const firstKept = fpr.findIndex((rate) => rate < AUPRO_FPR_LIMIT);
  let aupro = 0;
  if (firstKept >= 0) {
    const largest = fpr[firstKept]!;
    if (largest === 0) aupro = pro[firstKept]!;
    else {
      for (let i = firstKept; i + 1 < NUM_THRESHOLDS; i++) aupro += (fpr[i]! - fpr[i + 1]!) / largest * (pro[i]! + pro[i + 1]!) / 2;
    }
  }
  return { aupro, thresholds, pro, fpr };
}

/**
 * AUPRO over every distinct score: the curve starts at (0, 0), is linear between its points, is cut (interpolated) at
 * FPR 0.3 and divided by 0.3. Null unless there are both regions and normal pixels.
 */
export function auproExact(maps: readonly ScoredMap[]): number | null {
  let numPixels = 0;
  for (const scored of maps) {
    checkScoredMap(scored);
    numPixels += scored.map.length;
  }
  // A native sort of plain numbers orders pixels by score and keeps what each one counts for: a float32's bits, made
  // monotonic, times 2^20 plus the region (0 = normal) is an integer below 2^52.
  const REGION_RANGE = 2 ** 20;
  const keys = new Float64Array(numPixels);
  const areas: number[] = [0];
  let numNormal = 0;
  let next = 0;
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  for (const { map, mask, width, height } of maps) {
    const firstLabel = areas.length - 1;
    const labelled = mask && labelRegions(mask, width, height);
    if (labelled) areas.push(...labelled.regions.map((region) => region.area));
    for (let i = 0; i < map.length; i++) {
      const label = labelled ? labelled.labels[i]! : 0;
      if (label === 0) numNormal++;
      float[0] = map[i]! + 0; // -0 becomes 0, its equal
      const pattern = bits[0]!;
      const ordered = pattern >= 0x80000000 ? 0xffffffff - pattern : pattern + 0x80000000;
      keys[next++] = ordered * REGION_RANGE + (label === 0 ? 0 : firstLabel + label);
    }
  }
  const numRegions = areas.length - 1;
  if (numRegions === 0 || numNormal === 0) return null;
  if (numRegions >= REGION_RANGE) throw new UsageError(`auproExact: at most ${REGION_RANGE - 1} regions, got ${numRegions}.`);
  keys.sort();

  let area = 0;
  let fpr = 0;
  let pro = 0;
  let above = 0;
  for (let i = numPixels - 1; i >= 0;) {
    const score = Math.floor(keys[i]! / REGION_RANGE);
    let proHere = pro;
    while (i >= 0 && Math.floor(keys[i]! / REGION_RANGE) === score) {
      const region = keys[i--]! % REGION_RANGE;
      if (region === 0) above++;
      else proHere += 1 / (areas[region]! * numRegions);
    }
    const fprHere = above / numNormal;
    if (fprHere >= AUPRO_FPR_LIMIT) {
      const share = (AUPRO_FPR_LIMIT - fpr) / (fprHere - fpr);
      area += (AUPRO_FPR_LIMIT - fpr) * (pro + (pro + share * (proHere - pro))) / 2;
      break;
    }
    area += (fprHere - fpr) * (pro + proHere) / 2;
    fpr = fprHere;
    pro = proHere;
  }
  return area / AUPRO_FPR_LIMIT;
}

/** Throws unless map and mask have the stated size and every score is finite. */
export function checkScoredMap({ map, mask, width, height, name = 'anomaly map' }: ScoredMap): void {
  if (map.length !== width * height || (mask && mask.length !== width * height)) {
    throw new UsageError(
      `${name}: ${width} x ${height} needs ${width * height} pixels; the map has ${map.length}, the mask ${mask?.length ?? 'none'}.`,
    );
  }
  for (let i = 0; i < map.length; i++) {
    if (!Number.isFinite(map[i])) {
      throw new InputError(`${name}: the anomaly map is ${map[i]} at pixel (${i % width}, ${Math.floor(i / width)}); it must be finite.`, { file: name });
    }
  }
}
