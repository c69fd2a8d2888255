/**
 * Connected regions of a binary mask, 8-connected (pixels that touch at a corner belong together), by two raster
 * passes over a union-find forest. AUPRO weighs every region alike, and an inspection draws a box around each.
 */
import { UsageError } from '../errors.ts';

export interface Region {
  /** 1-based, in the order of the regions' first pixels, row by row. */
  readonly label: number;
  /** Number of pixels. */
  readonly area: number;
  /** Bounding box in pixels: left, top, width, height. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface LabelledRegions {
  /** `width * height`, row-major: 0 outside all regions, else the region's label. */
  readonly labels: Int32Array;
  readonly count: number;
  readonly regions: Region[];
}

/** Labels the 8-connected regions of the non-zero pixels of `mask` (`width * height`, row-major). */
export function labelRegions(mask: Uint8Array, width: number, height: number): LabelledRegions {
  if (mask.length !== width * height) {
    throw new UsageError(`labelRegions: a ${width} x ${height} mask has ${width * height} pixels, got ${mask.length}.`);
  }
  const labels = new Int32Array(mask.length);
  // parent[i] <= i, so that a root is the region's earliest provisional label and renumbering keeps raster order.
  const parent: number[] = [0];
  const find = (label: number): number => {
    while (parent[label] !== label) label = parent[label] = parent[parent[label]!]!;
    return label;
  };

  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (mask[i] === 0) continue;
      const west = x > 0 ? labels[i - 1]! : 0;
      const northWest = x > 0 && y > 0 ? labels[i - width - 1]! : 0;
      const north = y > 0 ? labels[i - width]! : 0;
      const northEast = x + 1 < width && y > 0 ? labels[i - width + 1]! : 0;
      let label = 0;
      for (const neighbour of [west, northWest, north, northEast]) {
        if (neighbour === 0 || neighbour === label) continue;
        const root = find(neighbour);
        if (label === 0) label = root;
        else if (root < label) label = parent[label] = root;
        else parent[root] = label;
      }
      if (label === 0) parent.push(label = parent.length);
      labels[i] = label;
    }
  }

  const final = new Int32Array(parent.length);
  let count = 0;
  for (let label = 1; label < parent.length; label++) {
    const root = find(label);
    final[label] = root === label ? ++count : final[root]!;
  }

  const area = new Int32Array(count + 1);
  const left = new Int32Array(count + 1).fill(width);
  const right = new Int32Array(count + 1);
  const top = new Int32Array(count + 1).fill(height);
  const bottom = new Int32Array(count + 1);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i] = final[labels[i]!]!;
      if (label === 0) continue;
      area[label]!++;
      if (x < left[label]!) left[label] = x;
      if (x > right[label]!) right[label] = x;
      if (y < top[label]!) top[label] = y;
      bottom[label] = y;
    }
  }
  const regions = Array.from({ length: count }, (_, index): Region => {
    const label = index + 1;
    const x = left[label]!;
    const y = top[label]!;
    return { label, area: area[label]!, x, y, width: right[label]! - x + 1, height: bottom[label]! - y + 1 };
  });
  return { labels, count, regions };
}
