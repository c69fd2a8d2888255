/** Which kernel variant a matrix product gets, by the adapter's family and the sizes. */
import { tileOf, type GemmShape, type GemmVariant } from '../../shaders/gemm.wgsl.ts';
import type { Target } from '../gpu/target.ts';

/**
 * Kernel variants by measurement: on CPU adapters lanes that exchange elements, in taller tiles for large products where
 * a subgroup has 4 lanes; direct loads in small blocks for products that don't fill a tile, or without subgroups; on GPUs
 * workgroup tiles, larger ones where there are enough of them.
 */
export const gemmVariants = {
  small: { kind: 'register', blockRows: 4, blockColumns: 4, groupRows: 4, groupColumns: 4, tileDepth: 4 },
  register: { kind: 'register', blockRows: 8, blockColumns: 8, groupRows: 4, groupColumns: 4, tileDepth: 4 },
  exchange: { kind: 'exchange', blockRows: 4, blockColumns: 4, groupRows: 1, groupColumns: 1, tileDepth: 4 },
  exchangeTall: { kind: 'exchange', blockRows: 8, blockColumns: 4, groupRows: 1, groupColumns: 1, tileDepth: 4 },
  tiled: { kind: 'tiled', blockRows: 4, blockColumns: 4, groupRows: 16, groupColumns: 16, tileDepth: 16 },
  tiledBlocks: { kind: 'tiled', blockRows: 8, blockColumns: 8, groupRows: 8, groupColumns: 8, tileDepth: 16 },
  tiledLarge: { kind: 'tiled', blockRows: 8, blockColumns: 8, groupRows: 16, groupColumns: 16, tileDepth: 8 },
} as const satisfies Record<string, GemmVariant>;

/** How many lanes can exchange elements: what a subgroup surely has, to the kernel's most. */
export function lanesOf({ features, subgroupSize = 0 }: Target): 4 | 8 | undefined {
  if (!features.has('subgroups') || subgroupSize < 4) return undefined;
  return subgroupSize < 8 ? 4 : 8;
}

/** Larger blocks take longer to compile, which small products don't make up for. */
export function variantFor(shape: GemmShape, target: Target): GemmVariant {
  const { rows, columns, depth, batch } = shape;
  if (target.family === 'gpu') {
    // Enough large tiles to fill the processors; a guess where nothing was measured, and training on GPUs measures.
    const tile = tileOf(gemmVariants.tiledLarge);
    return batch * Math.ceil(rows / tile.rows) * Math.ceil(columns / tile.columns) >= 128 ? gemmVariants.tiledLarge : gemmVariants.tiled;
  }
  const lanes = lanesOf(target);
  // Less than three quarters of a tile, or loads that are no vectors: the exchange doesn't pay.
  const loadsVectors = [shape.transposeA ? rows : depth, shape.transposeB ? depth : columns, depth].every((n) => n % 4 === 0);
  if (lanes && loadsVectors && Math.min(rows, columns) >= 3 * lanes) {
    return lanes === 4 && rows >= 64 && batch * rows * columns * depth >= 1e8 ? gemmVariants.exchangeTall : gemmVariants.exchange;
  }
  return Math.min(rows, columns) < 64 ? gemmVariants.small : gemmVariants.register;
}

/** The variants worth trying on a device of this family. All add up the products in the same order, so they give the same bits. */
export function gemmCandidates(shape: GemmShape, target: Target): Readonly<Record<string, GemmVariant>> {
  const lanes = lanesOf(target);
  const fits = ([, v]: [string, GemmVariant]): boolean => {
    const { rows, columns, invocations: [across, down] } = tileOf(v, lanes);
    // GPUs load cheaply; and more than 32 rows take the compilers of 8 lanes seconds, for nothing.
    if (v.kind === 'exchange' && (target.family === 'gpu' || !lanes || rows > 32)) return false;
    return across * down <= target.maxComputeInvocationsPerWorkgroup
      && (v.kind !== 'tiled' || 4 * v.tileDepth * (rows + columns + 8) <= target.maxComputeWorkgroupStorageSize)
      && (Math.min(shape.rows, shape.columns) >= 64 || Math.max(v.blockRows, v.blockColumns) <= 8);
  };
  return Object.fromEntries(Object.entries<GemmVariant>(gemmVariants).filter(fits));
}
