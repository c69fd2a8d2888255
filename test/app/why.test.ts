// What "See why" says in figures and words, on views made by hand.
import { describe, expect, it } from 'vitest';
import { aroundPatch, groupWords, legendOf, percent, shareMoreAlike } from '../../app/src/why.ts';
import type { PrototypeView } from '../../src/inspect/prototypes.ts';

/** Tokens in a row, with their similarities to each prototype. */
function viewOf(similarities: number[][], x = 0): PrototypeView {
  const columns = similarities.length;
  const count = similarities[0]!.length;
  return {
    rows: 1, columns, count, placement: { x, y: 5, scaleX: 10, scaleY: 20 }, groups: [],
    index: Uint8Array.from(similarities, (own) => own.indexOf(Math.max(...own))),
    similarity: Float32Array.from({ length: count * columns }, (_, i) => similarities[i % columns]![Math.floor(i / columns)]!),
  };
}

const view = viewOf([[0.9, 0.1, 0], [0.8, 0.5, 0], [0.7, 0.6, 0], [0.2, 0.4, 0]]);

describe('the legend', () => {
  it('has the share of each prototype, how alike its patches are, and where the one most like it lies', () => {
    const [first, second, unused] = legendOf([view]);
    expect(first).toEqual({ share: 0.75, similarity: expect.closeTo(0.8, 6), exemplar: { x: 0, y: 5, width: 10, height: 20 } });
    // The patch that is most like a prototype may belong to another one.
    expect(second).toEqual({ share: 0.25, similarity: expect.closeTo(0.4, 6), exemplar: { x: 20, y: 5, width: 10, height: 20 } });
    expect(unused).toMatchObject({ share: 0, similarity: null });
  });

  it('counts the patches of all tiles', () => {
    const [first, second] = legendOf([view, viewOf([[0.1, 0.95, 0]], 100)]);
    expect([first!.share, second!.share]).toEqual([0.6, 0.4]);
    expect(second!.similarity).toBeCloseTo((0.4 + 0.95) / 2, 6);
    expect(second!.exemplar.x).toBe(100);
  });
});

it('a patch is shown with its neighbours, within the picture', () => {
  const picture = { width: 100, height: 50 };
  expect(aroundPatch({ x: 40, y: 20, width: 10, height: 10 }, picture)).toEqual({ x: 30, y: 10, width: 30, height: 30 });
  expect(aroundPatch({ x: 90, y: 0, width: 10, height: 10 }, picture)).toEqual({ x: 70, y: 0, width: 30, height: 30 });
  expect(aroundPatch({ x: 0, y: 0, width: 40, height: 40 }, picture)).toEqual({ x: 0, y: 0, width: 100, height: 50 });
});

it('says how many patches are more like their prototype than one is', () => {
  // As a view has it: in f32.
  expect(shareMoreAlike([view], Math.fround(0.4))).toBe(0.75);
  expect(shareMoreAlike([view], 0.95)).toBe(0);
  expect(shareMoreAlike([view, viewOf([[0.1, 0.95, 0]])], 0.75)).toBe(0.6);
});

it('names the layers of the groups, and counts blocks from 1', () => {
  const groups = groupWords({ taps: [2, 3, 4, 5, 6, 7, 9, 11], encoderGroups: [[0, 1, 2, 3], [4, 5, 6, 7]] });
  expect(groups.map(({ title, blocks }) => [title, blocks])).toEqual([['Earlier layers', 'blocks 3 to 6'], ['Later layers', 'blocks 7, 8, 10, 12']]);
  expect(groupWords({ taps: [4], encoderGroups: [[0]] })).toMatchObject([{ title: 'All layers', blocks: 'block 5' }]);
  expect(groupWords({ taps: [0, 1, 2], encoderGroups: [[0], [1], [2]] })[2]!.title).toBe('Layers, group 3 of 3');
});

it('never rounds something to nothing, or not quite all to all', () => {
  expect([0, 0.001, 0.126, 0.9999, 1].map(percent)).toEqual(['0 %', 'under 1 %', '13 %', 'over 99 %', '100 %']);
});
