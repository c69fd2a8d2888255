/**
 * Outlines of a mask as a smooth SVG path: marching squares, each crossing put where the map between the two pixels
 * reaches the level (where each has its own, that of the one inside). Coordinates are the map's, pixel centres at halves.
 */
export function contours(map: Float32Array, mask: Uint8Array, level: number | Float32Array, width: number, height: number): string {
  const inside = (x: number, y: number): boolean => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
  // Outside of the map all is normal; a pixel that is above the level but no defect (a speck) is crossed half-way.
  const share = (x: number, y: number, toX: number, toY: number): number => {
    const [from, to] = [at(x, y), at(toX, toY)];
    const reached = typeof level === 'number' ? level : inside(x, y) ? level[y * width + x]! : level[toY * width + toX]!;
    const t = (reached - from) / (to - from);
    return t >= 0 && t <= 1 ? t : 0.5;
  };
  const at = (x: number, y: number): number => (x >= 0 && y >= 0 && x < width && y < height ? map[y * width + x]! : 0);
  const parts: string[] = [];
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = (inside(x, y) ? 1 : 0) | (inside(x + 1, y) ? 2 : 0) | (inside(x + 1, y + 1) ? 4 : 0) | (inside(x, y + 1) ? 8 : 0);
      if (corners === 0 || corners === 15) continue;
      const point = (px: number, py: number): string => `${round(px + 0.5)} ${round(py + 0.5)}`;
      const edges = [
        () => point(x + share(x, y, x + 1, y), y),
        () => point(x + 1, y + share(x + 1, y, x + 1, y + 1)),
        () => point(x + share(x, y + 1, x + 1, y + 1), y + 1),
        () => point(x, y + share(x, y, x, y + 1)),
      ];
      for (const [from, to] of segments[corners]!) parts.push(`M${edges[from]!()}L${edges[to]!()}`);
    }
  }
  return parts.join('');
}

const round = (x: number): number => Math.round(100 * x) / 100;

/** By corners inside (1 top left, 2 top right, 4 bottom right, 8 bottom left): the edges (top, right, bottom, left) that a line joins. */
const segments: readonly (readonly (readonly [number, number])[])[] = [
  [], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
  [[2, 3]], [[0, 2]], [[0, 1], [2, 3]], [[1, 2]], [[1, 3]], [[0, 1]], [[0, 3]], [],
];
