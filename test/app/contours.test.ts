// Outlines of a mask: closed lines around what belongs to it, at the level between the pixels, and nowhere else.
import { describe, expect, it } from 'vitest';
import { contours } from '../../app/src/contours.ts';

const lines = (path: string): [number, number, number, number][] =>
  path.split('M').slice(1).map((line) => line.split(/[L ]/).map(Number) as [number, number, number, number]);

/** Each end is the start of another line, so that the outline is closed. */
function expectClosed(path: string): void {
  const key = (x: number, y: number): string => `${x},${y}`;
  const ends = new Map<string, number>();
  for (const [x1, y1, x2, y2] of lines(path)) for (const at of [key(x1, y1), key(x2, y2)]) ends.set(at, (ends.get(at) ?? 0) + 1);
  expect([...ends.values()].every((count) => count % 2 === 0)).toBe(true);
}

describe('contours', () => {
  it('of nothing are nothing', () => {
    expect(contours(new Float32Array(12), new Uint8Array(12), 0.5, 4, 3)).toBe('');
  });

  it('cross between two pixels where the map reaches the level', () => {
    // One pixel of value 1 among zeros: a quarter of the way in at level 0.75.
    const map = Float32Array.of(0, 0, 0, 0, 1, 0, 0, 0, 0);
    const path = contours(map, Uint8Array.from(map), 0.75, 3, 3);
    expect(lines(path)).toHaveLength(4);
    expectClosed(path);
    const xs = lines(path).flatMap(([x1, , x2]) => [x1, x2]);
    expect([Math.min(...xs), Math.max(...xs)]).toEqual([1.25, 1.75]);
  });

  it('take the level of the pixel inside, where each has its own', () => {
    const map = Float32Array.of(0, 0, 0, 0, 1, 0, 0, 0, 0);
    expect(contours(map, Uint8Array.from(map), Float32Array.of(0, 0, 0, 0, 0.75, 0, 0, 0, 0), 3, 3)).toBe(contours(map, Uint8Array.from(map), 0.75, 3, 3));
  });

  it('are closed at the border of the map, and around every shape', () => {
    const [width, height] = [7, 5];
    for (let shape = 0; shape < 40; shape++) {
      const map = Float32Array.from({ length: width * height }, (_, i) => ((i * 7919 + shape * 104729) % 97) / 97);
      const mask = Uint8Array.from(map, (v) => (v > 0.5 ? 1 : 0));
      expectClosed(contours(map, mask, 0.5, width, height));
    }
    expectClosed(contours(new Float32Array(4).fill(1), new Uint8Array(4).fill(1), 0.5, 2, 2));
  });

  it('leave out what is above the level but not in the mask', () => {
    const map = Float32Array.of(1, 0, 0, 1);
    expect(lines(contours(map, Uint8Array.of(1, 0, 0, 0), 0.5, 2, 2))).toHaveLength(4);
  });
});
