import { input } from '../../../src/graph/tensor.ts';
import * as ops from '../../../src/ops/settings.ts';
import { viewLength } from '../../../src/ops/warp-image.ts';
import type { OperationCase } from '../../support/operation-case.ts';

interface WarpSizes { readonly images: number; readonly views: number; readonly height: number; readonly width: number }
interface SearchSizes { readonly rows: readonly number[]; readonly channels: number; readonly slices: readonly number[] }

export const settingsCases: OperationCase[] = [
  {
    // Places beyond an edge, in another mirror image altogether, and between pixels. f32 places are off by 1e-5 pixels.
    name: 'warpImage', operations: [ops.warpImageOperation], tolerance: 3e-5,
    shapes: [
      { images: 1, views: 3, height: 9, width: 13 }, { images: 2, views: 2, height: 7, width: 5 }, { images: 1, views: 1, height: 1, width: 6 },
      { images: 3, views: 3, height: 17, width: 4 }, { images: 1, views: 5, height: 11, width: 11 },
    ],
    feeds: ({ views }: WarpSizes, random) => ({
      views: Float32Array.from({ length: views * viewLength }, (_, i) => (i % viewLength === 6 ? i % 2 : random.uniform(-2, 2))),
    }),
    build: ({ images, views, height, width }: WarpSizes) => ({ y: ops.warpImage(input('image', [images, 3, height, width]), input('views', [views, viewLength])) }),
  },
  {
    // The memory's rows need no norm of 1 here; a distance is small against its terms where they have other norms.
    name: 'nearestNeighbour', operations: [ops.nearestNeighbourOperation], tolerance: 2e-5,
    shapes: [
      { rows: [1, 5], channels: 7, slices: [3] }, { rows: [2, 37], channels: 16, slices: [131] }, { rows: [67], channels: 24, slices: [1, 50, 33] },
      { rows: [70], channels: 5, slices: [97, 64] }, { rows: [1, 129], channels: 64, slices: [300] },
    ],
    feeds({ channels, slices }: SearchSizes, random) {
      return Object.fromEntries(slices.map((rows, s) => {
        const values = Float32Array.from({ length: rows * channels }, () => random.normal());
        for (let r = 0; r < rows; r++) {
          const row = values.subarray(r * channels, (r + 1) * channels);
          const norm = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));
          row.forEach((v, c) => { row[c] = v / norm; });
        }
        return [`memory ${s}`, values];
      }));
    },
    build: ({ rows, channels, slices }: SearchSizes) => ({ distance: ops.nearestNeighbour(input('x', [...rows, channels]), slices.map((n, s) => input(`memory ${s}`, [n, channels]))) }),
  },
];
