// What models cost, without a GPU: plans of the real encoders stay within the limits that every adapter guarantees.
import { describe, expect, it } from 'vitest';
import { AllocationError, UsageError } from '../../src/errors.ts';
import { defaultTarget } from '../../src/gpu/target.ts';
import { planReport } from '../../src/train/plan-report.ts';
import { findEncoder } from '../../src/weights/catalog.ts';

const MiB = 1024 * 1024;
const say = (what: string, { kernels, flops, peakBytes, parameterBytes, slabBytes, largestBinding, slices }: ReturnType<typeof planReport>) =>
  console.info(`${what}: ${kernels} kernels, ${(flops / 1e9).toFixed(1)} GFLOP, peak ${(peakBytes / MiB).toFixed(0)} MiB (slabs ${(slabBytes / MiB).toFixed(0)}, weights and moments ${(parameterBytes / MiB).toFixed(0)}), largest binding ${(largestBinding / MiB).toFixed(1)} MiB, ${slices} slices`);

/** GMAC of an inspection at 392², for one image. */
const published = { 'dinov2-small': 29.4, 'dinov2-base': 107.5, 'dinov2-large': 288 };

describe.each(Object.entries(published))('%s', (name, gmac) => {
  const { architecture } = findEncoder(name);

  it('inspects at 392² with the arithmetic that the paper counts, in guaranteed limits', () => {
    const report = planReport({ architecture, crop: 392, batchSize: 1, train: false });
    say(`${name}, inspection`, report);
    expect(report.submits).toBe(1);
    expect(report.largestBinding).toBeLessThanOrEqual(128 * MiB);
    // A multiply-add counts 2 here; norms, GELU and softmax, which the paper leaves out, add a little.
    expect(report.flops / 2e9 / gmac).toBeGreaterThan(0.97);
    expect(report.flops / 2e9 / gmac).toBeLessThan(1.06);
    expect(report.peakBytes).toBe(report.slabBytes + report.parameterBytes + report.constantBytes);
  });
});

it('a training step of ViT-B at 392², batch 16, is one submit in bindings of 128 MiB, by slices', () => {
  const { architecture } = findEncoder('dinov2-base');
  const report = planReport({ architecture, crop: 392, batchSize: 16, train: true });
  say('dinov2-base, training step of 16', report);
  expect(report.submits).toBe(1);
  expect(report.slices).toBeGreaterThanOrEqual(2);
  expect(report.largestBinding).toBeLessThanOrEqual(128 * MiB);
  expect(report.peakBytes).toBeLessThan(12 * 1024 * MiB);
  const roomier = planReport({ architecture, crop: 392, batchSize: 16, train: true, target: { ...defaultTarget, maxStorageBufferBindingSize: 1024 * MiB, maxBufferSize: 1024 * MiB } });
  expect(roomier.slices).toBe(1);
  // The same work, whether in slices or not.
  expect(roomier.flops / report.flops).toBeCloseTo(1, 2);
});

it('a smaller step fits without slices', () => {
  const report = planReport({ architecture: findEncoder('dinov2-small').architecture, crop: 168, batchSize: 8, train: true });
  say('dinov2-small at 168², training step of 8', report);
  expect(report.slices).toBe(1);
});

it('counts trained tensors and their three moments once', () => {
  const architecture = { width: 8, depth: 2, numHeads: 2, patchSize: 14, numRegisters: 0, positionGrid: [2, 2] as const, mlpRatio: 4, layerScale: true };
  const { parameterBytes } = planReport({ architecture, crop: 28, batchSize: 1, train: true, decoderDepth: 2 });
  // M C; extractor and decoder blocks: 2 norms, q, kv, proj, an MLP, the decoder's learnScale; the bottleneck's MLP.
  const [c, heads] = [8, 2];
  const mlp = 8 * c * c + 5 * c;
  const block = 4 * c + 4 * c * c + 4 * c + mlp;
  const elements = 6 * c + block + mlp + 2 * (block + heads);
  const tensors = 1 + 14 + 4 + 2 * 15 - 2;
  expect(parameterBytes).toBeGreaterThanOrEqual(4 * 4 * elements);
  // Each tensor begins at a multiple of 256 bytes.
  expect(parameterBytes).toBeLessThan(4 * (4 * elements + tensors * 256));
});

it('refuses what can\'t fit, with the figures', () => {
  const { architecture } = findEncoder('dinov2-base');
  const small = { ...defaultTarget, maxStorageBufferBindingSize: 4 * MiB, maxBufferSize: 4 * MiB };
  expect(() => planReport({ architecture, crop: 392, batchSize: 1, train: false, target: small })).toThrow(AllocationError);
  expect(() => planReport({ architecture, crop: 392, batchSize: 1, train: true, target: small })).toThrow(/4194304/);
  expect(() => planReport({ architecture, crop: 390, batchSize: 1, train: false })).toThrow(UsageError);
});
