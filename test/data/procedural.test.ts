import { describe, expect, it } from 'vitest';
import type { DatasetCategory } from '../../src/data/dataset.ts';
import { readDataset } from '../../src/data/layout.ts';
import { type DefectKind, defectKinds, defectKindsOf, proceduralSet, proceduralTextures, renderSample } from '../../src/data/procedural.ts';
import { UsageError } from '../../src/errors.ts';
import { labelRegions } from '../../src/evaluate/regions.ts';

const size = 96;
const mean = (data: ArrayLike<number>): number => Array.from(data).reduce((sum, value) => sum + value, 0) / data.length;

/** Largest channel difference of each pixel. */
function differences(a: ArrayLike<number>, b: ArrayLike<number>): number[] {
  return Array.from({ length: a.length / 3 }, (_, i) => Math.max(...[0, 1, 2].map((c) => Math.abs(a[i * 3 + c]! - b[i * 3 + c]!))));
}

describe('renderSample', () => {
  it('has at least three textures and all defect kinds among them', () => {
    expect(proceduralTextures.length).toBeGreaterThanOrEqual(3);
    expect(new Set(proceduralTextures.flatMap(defectKindsOf))).toEqual(new Set(defectKinds));
  });

  for (const texture of proceduralTextures) {
    it(`${texture}: the seed decides, and good parts vary`, () => {
      const a = renderSample({ texture, seed: 1, size });
      expect(a).toEqual(renderSample({ texture, seed: 1, size, defect: 'none' }));
      expect(a.image).toMatchObject({ width: size, height: size, channels: 3 });
      expect(a.image.data.length).toBe(size * size * 3);
      expect(a.mask.every((value) => value === 0)).toBe(true);
      expect(a.defect).toBeUndefined();
      const brightness = Array.from({ length: 6 }, (_, seed) => mean(renderSample({ texture, seed, size }).image.data));
      expect(Math.max(...brightness) - Math.min(...brightness)).toBeGreaterThan(1);
      for (const value of brightness) expect(value > 40 && value < 215).toBe(true);
      expect(mean(differences(a.image.data, renderSample({ texture, seed: 2, size }).image.data))).toBeGreaterThan(5);
    });

    for (const kind of defectKindsOf(texture)) {
      it(`${texture}, ${kind}: shows inside its mask, faint or plain, and nowhere else`, () => {
        const contrast = [0, 1].map((strength) => {
          const options = { texture, seed: `${kind}/${strength}`, size };
          const good = renderSample(options);
          const bad = renderSample({ ...options, defect: { kind, strength, extent: 0.5 } });
          expect(bad.defect).toBe(kind);
          expect(bad).toEqual(renderSample({ ...options, defect: { kind, strength, extent: 0.5 } }));
          const difference = differences(bad.image.data, good.image.data);
          expect(difference.filter((_, i) => bad.mask[i] === 0).every((d) => d === 0)).toBe(true);
          const inside = difference.filter((_, i) => bad.mask[i] === 255);
          expect(inside.length).toBe(bad.mask.filter((value) => value !== 0).length);
          expect(inside.filter((d) => d > 4).length / inside.length).toBeGreaterThan(0.4);
          expect(labelRegions(bad.mask, size, size).count).toBe(1);
          return mean(inside);
        });
        expect(contrast[0]).toBeGreaterThan(6);
      });

      it(`${texture}, ${kind}: grows with its extent`, () => {
        const area = (extent: number): number => renderSample({ texture, seed: 4, size, defect: { kind, strength: 0.5, extent } }).mask.filter((value) => value !== 0).length;
        expect(area(1)).toBeGreaterThan(area(0) * 1.5);
      });
    }
  }

  it('looks the same at other sizes', () => {
    for (const texture of proceduralTextures) {
      const [small, large] = [64, 192].map((side) => renderSample({ texture, seed: 8, size: side, defect: { kind: 'stain', strength: 1, extent: 1 } }));
      expect(Math.abs(mean(small!.image.data) - mean(large!.image.data))).toBeLessThan(2.5);
      const share = (mask: Uint8Array): number => mask.filter((value) => value !== 0).length / mask.length;
      expect(Math.abs(share(small!.mask) / share(large!.mask) - 1)).toBeLessThan(0.15);
    }
  });

  it('refuses what it does not know', () => {
    expect(() => renderSample({ texture: 'wood', seed: 1 })).toThrow(UsageError);
    expect(() => renderSample({ texture: 'toString', seed: 1 })).toThrow(/woven-cloth/);
    expect(() => renderSample({ texture: 'leather', seed: 1, size, defect: { kind: 'missing-thread' } })).toThrow(/scratch/);
    expect(() => renderSample({ texture: 'leather', seed: 1, size: 0 })).toThrow(UsageError);
    expect(() => renderSample({ texture: 'leather', seed: 1, size, defect: { kind: 'dent', strength: 2 } })).toThrow(UsageError);
  });
});

describe('proceduralSet', () => {
  const options = { texture: 'woven-cloth', seed: 7, size: 64, train: 5, testGood: 3, testDefective: 15 };
  const set = proceduralSet(options);

  it('names its samples as MVTec AD does, with every kind in turn', () => {
    const listing = set.flatMap(({ path, maskPath }) => (maskPath ? [path, maskPath] : [path]));
    expect(new Set(listing).size).toBe(5 + 3 + 2 * 15);
    const [{ train, tests }] = readDataset(listing, new Map(), 'set').categories as [DatasetCategory];
    expect(train).toEqual(set.slice(0, 5).map(({ path }) => path));
    expect(tests.length).toBe(18);
    for (const { path, label, defect, maskPaths } of tests) {
      expect(set.find((sample) => sample.path === path)).toMatchObject({ label, defect, ...(maskPaths && { maskPath: maskPaths[0] }) });
    }
    const counts = defectKindsOf('woven-cloth').map((kind: DefectKind) => tests.filter(({ defect }) => defect === kind).length);
    expect(counts).toEqual([3, 3, 3, 2, 2, 2]);
  });

  it('renders what the names say, every sample another one, the same for the same seed', () => {
    const again = proceduralSet(options);
    const seen = new Set<string>();
    set.forEach(({ label, defect, render }, index) => {
      const sample = render();
      expect(again[index]!.render().image.data).toEqual(sample.image.data);
      expect(sample.defect ?? 'good').toBe(defect);
      expect(sample.mask.some((value) => value === 255)).toBe(label === 1);
      seen.add(String(sample.image.data));
    });
    expect(seen.size).toBe(set.length);
    expect(proceduralSet({ ...options, seed: 8 })[0]!.render().image.data).not.toEqual(set[0]!.render().image.data);
  });

  it('spreads defects over the image', () => {
    const many = proceduralSet({ ...options, size: 32, train: 0, testGood: 0, testDefective: 120 });
    const centres = many.map(({ render }) => {
      const { regions } = labelRegions(render().mask, 32, 32);
      return [regions[0]!.x + regions[0]!.width / 2, regions[0]!.y + regions[0]!.height / 2];
    });
    for (const axis of [0, 1]) {
      const values = centres.map((centre) => centre[axis]! / 32);
      expect(Math.abs(mean(values) - 0.5)).toBeLessThan(0.06);
      expect(Math.sqrt(mean(values.map((v) => (v - 0.5) ** 2)))).toBeGreaterThan(0.12);
    }
  });

  it('refuses counts that are none', () => {
    expect(() => proceduralSet({ ...options, train: -1 })).toThrow(UsageError);
    expect(() => proceduralSet({ ...options, testDefective: 1.5 })).toThrow(UsageError);
    expect(() => proceduralSet({ ...options, texture: 'wood' })).toThrow(UsageError);
  });
});
