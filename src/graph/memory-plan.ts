/**
 * Lays tensors out by lifetime in a few slabs: two tensors may share memory when they never live at the same time.
 * Greedy by size (largest first, lowest free gap), which stays within a few per cent of the lower bound for
 * networks. WebGPU forbids reading and writing one buffer in a dispatch, so tensors that meet in a dispatch with
 * different access are kept in different slabs.
 */
import { AllocationError } from '../errors.ts';
import { roundUp } from '../gpu/target.ts';

export interface Lifetime {
  readonly name: string;
  readonly bytes: number;
  /** First and last step (inclusive) at which the memory is in use. */
  readonly first: number;
  readonly last: number;
  /** Indices of the tensors that must lie in another slab. */
  readonly conflicts: ReadonlySet<number>;
}

export interface Placement {
  readonly slab: number;
  readonly offset: number;
}

export interface MemoryPlan {
  readonly placements: readonly Placement[];
  /** Size of each slab, bytes. */
  readonly slabs: readonly number[];
  /** The most bytes alive at one step: no layout can do with less. */
  readonly lowerBound: number;
}

export function planMemory(tensors: readonly Lifetime[], options: { alignment: number; maxSlabBytes: number }): MemoryPlan {
  const { alignment, maxSlabBytes } = options;
  const sizes = tensors.map((t) => roundUp(t.bytes, alignment));
  const order = tensors.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]! || tensors[a]!.first - tensors[b]!.first || a - b);
  const placements = Array.from<Placement>({ length: tensors.length });
  const slabs: { size: number; members: number[] }[] = [];

  for (const i of order) {
    const tensor = tensors[i]!;
    if (sizes[i]! > maxSlabBytes) {
      throw new AllocationError(
        `${tensor.name} needs ${sizes[i]} bytes in one buffer, the adapter allows ${maxSlabBytes}. Use a smaller batch or crop.`,
      );
    }
    let best: { slab: number; offset: number; growth: number } | undefined;
    slabs.forEach((slab, s) => {
      if (slab.members.some((m) => tensor.conflicts.has(m) || tensors[m]!.conflicts.has(i))) return;
      const offset = lowestGap(tensor, sizes[i]!, slab.members, tensors, sizes, placements);
      const growth = Math.max(0, offset + sizes[i]! - slab.size);
      if (offset + sizes[i]! <= maxSlabBytes && (!best || growth < best.growth)) best = { slab: s, offset, growth };
    });
    if (!best) {
      slabs.push({ size: 0, members: [] });
      best = { slab: slabs.length - 1, offset: 0, growth: sizes[i]! };
    }
    const slab = slabs[best.slab]!;
    slab.size = Math.max(slab.size, best.offset + sizes[i]!);
    slab.members.push(i);
    placements[i] = { slab: best.slab, offset: best.offset };
  }
  return { placements, slabs: slabs.map((s) => s.size), lowerBound: liveMaximum(tensors, sizes) };
}

function lowestGap(
  tensor: Lifetime, size: number, members: readonly number[], tensors: readonly Lifetime[], sizes: readonly number[], placements: readonly Placement[],
): number {
  const busy = members
    .filter((m) => tensors[m]!.first <= tensor.last && tensor.first <= tensors[m]!.last)
    .map((m) => [placements[m]!.offset, placements[m]!.offset + sizes[m]!] as const)
    .sort((a, b) => a[0] - b[0]);
  let offset = 0;
  for (const [start, end] of busy) {
    if (start - offset >= size) return offset;
    offset = Math.max(offset, end);
  }
  return offset;
}

function liveMaximum(tensors: readonly Lifetime[], sizes: readonly number[]): number {
  const changes = new Map<number, number>();
  tensors.forEach((t, i) => {
    changes.set(t.first, (changes.get(t.first) ?? 0) + sizes[i]!);
    changes.set(t.last + 1, (changes.get(t.last + 1) ?? 0) - sizes[i]!);
  });
  let live = 0;
  let most = 0;
  for (const step of [...changes.keys()].sort((a, b) => a - b)) most = Math.max(most, (live += changes.get(step)!));
  return most;
}
