/** What "See why" says in figures and words of an inspection that was made with its details. */
import { hasPrototypes, isPlus, summarizePrototypes, type PrototypeView } from '../../src/inspect/prototypes.ts';
import type { ModelMetadata } from '../../src/browser/index.ts';

/** One prototype in a picture; of a tiled one, the same learned query in all tiles. */
export interface LegendFigures {
  /** Of the picture's patches, 0 to 1. */
  readonly share: number;
  /** Mean cosine similarity of those patches to it; null where there are none. */
  readonly similarity: number | null;
  /** The patch that is most like it, in the picture's pixels. */
  readonly exemplar: Rectangle;
}

export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export function legendOf(views: readonly PrototypeView[]): LegendFigures[] {
  const all = views.map((view) => ({ view, summaries: summarizePrototypes(view), tokens: view.rows * view.columns }));
  const tokens = all.reduce((sum, of) => sum + of.tokens, 0);
  return Array.from({ length: views[0]!.count }, (_, m) => {
    const own = all.map(({ view, summaries, tokens: count }) => ({ view, ...summaries[m]!, members: summaries[m]!.share * count }));
    const members = own.reduce((sum, of) => sum + of.members, 0);
    const { view: { placement: { x, y, scaleX, scaleY } }, exemplar: { row, column } } = own.reduce((best, of) => (of.exemplar.similarity > best.exemplar.similarity ? of : best));
    return {
      share: members / tokens,
      similarity: members === 0 ? null : own.reduce((sum, of) => sum + of.members * (of.similarity ?? 0), 0) / members,
      exemplar: { x: x + column * scaleX, y: y + row * scaleY, width: scaleX, height: scaleY },
    };
  });
}

/** A patch with its neighbours: three patches a side, moved into the picture. */
export function aroundPatch({ x, y, width, height }: Rectangle, picture: { width: number; height: number }): Rectangle {
  const within = (start: number, length: number, limit: number): [number, number] => {
    const size = Math.max(1, Math.min(limit, Math.round(3 * length)));
    return [Math.min(limit - size, Math.max(0, Math.round(start - length))), size];
  };
  const [left, wide] = within(x, width, picture.width);
  const [top, high] = within(y, height, picture.height);
  return { x: left, y: top, width: wide, height: high };
}

/** Share of the picture's patches that are more like their own prototype than `similarity`. */
export function shareMoreAlike(views: readonly PrototypeView[], similarity: number): number {
  let [more, tokens] = [0, 0];
  for (const view of views) {
    const count = view.rows * view.columns;
    view.index.forEach((m, token) => { if (view.similarity[m * count + token]! > similarity) more++; });
    tokens += count;
  }
  return more / tokens;
}

/** What a model has to show beside its heat map. */
export interface ModelNature {
  readonly hasPrototypes: boolean;
  /** Compares with stored patches of good parts; rebuilds nothing. */
  readonly isMemory: boolean;
  /** Whether the heat map is the mean of the groups' maps, and nothing else. */
  readonly isMeanOfGroups: boolean;
}

export function natureOf(metadata: ModelMetadata): ModelNature {
  return { hasPrototypes: hasPrototypes(metadata), isMemory: metadata.method === 'memory', isMeanOfGroups: !isPlus(metadata) };
}

export interface GroupWords {
  readonly title: string;
  /** What such layers mostly see. */
  readonly sees: string;
  /** The encoder's blocks, counted from 1. */
  readonly blocks: string;
}

export function groupWords({ taps, encoderGroups }: Pick<ModelMetadata, 'taps' | 'encoderGroups'>): GroupWords[] {
  return encoderGroups.map((group, g) => {
    const blocks = group.map((position) => taps[position]! + 1);
    const isRun = blocks.every((block, i) => block === blocks[0]! + i);
    const named = `block${blocks.length > 1 ? 's' : ''} ${isRun && blocks.length > 1 ? `${blocks[0]} to ${blocks.at(-1)}` : blocks.join(', ')}`;
    if (encoderGroups.length === 1) return { title: 'All layers', sees: 'surface, shapes and parts', blocks: named };
    if (encoderGroups.length > 2) return { title: `Layers, group ${g + 1} of ${encoderGroups.length}`, sees: 'the later the group, the larger what it sees', blocks: named };
    return g === 0
      ? { title: 'Earlier layers', sees: 'mostly surface and fine detail', blocks: named }
      : { title: 'Later layers', sees: 'mostly shapes, and how parts lie together', blocks: named };
  });
}

/** A share as people read it. */
export const percent = (share: number): string => (share > 0 && share < 0.005 ? 'under 1 %' : share < 1 && share > 0.995 ? 'over 99 %' : `${Math.round(100 * share)} %`);
