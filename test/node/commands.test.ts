// The commands around the engine, with a stand-in for it that scores an image by its brightness: what is written where,
// what is skipped, what is kept when a run stops, and what programs are told. The engine itself has its own tests.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ImageSource, RasterImage } from '../../src/data/image.ts';
import { AbortedError, InputError } from '../../src/errors.ts';
import { calibrate } from '../../src/inspect/calibration.ts';
import { findRegions } from '../../src/inspect/regions.ts';
import { runCli } from '../../src/node/cli.ts';
import { limitPerFolder, outcomeRates } from '../../src/node/commands/evaluate.ts';
import { overlayNames } from '../../src/node/commands/inspect.ts';
import { decodeImageFile, encodePng } from '../../src/node/images.ts';
import { resizeAndCrop } from '../../src/data/preprocess.ts';

const MAP = 56;
const trained = vi.hoisted(() => ({ options: undefined as any, disposed: 0 }));

function brightnessMap(image: RasterImage): Float32Array {
  const small = resizeAndCrop(image, { resize: MAP, crop: MAP });
  return Float32Array.from({ length: MAP * MAP }, (_, i) => small.data[i * 3]! / 255);
}

vi.mock('../../src/node/engine.ts', () => ({
  createNodeEngine: async () => ({ adapter: { name: 'stand-in', isSoftware: true }, dispose: () => { trained.disposed++; } }),
}));

vi.mock('../../src/inspect/inspector.ts', () => {
  class Inspector {
    readonly metadata: any;
    threshold: number;
    constructor(metadata: any) {
      this.metadata = metadata;
      this.threshold = metadata.calibration.threshold;
    }
    static readMetadata(model: Uint8Array, name?: string): any {
      try {
        return JSON.parse(new TextDecoder().decode(model));
      } catch {
        throw new InputError(`${name}: not a model file.`, { file: name });
      }
    }
    static async open(_engine: unknown, model: Uint8Array): Promise<Inspector> {
      return new Inspector(Inspector.readMetadata(model));
    }
    async inspectBatch(images: RasterImage[]): Promise<object[]> {
      return images.map((image) => {
        const map = brightnessMap(image);
        const score = Math.max(...map);
        const geometry = { resize: this.metadata.resize, crop: this.metadata.crop, sourceWidth: image.width, sourceHeight: image.height, mapWidth: MAP, mapHeight: MAP };
        return {
          score, threshold: this.threshold, verdict: score > this.threshold ? 'defective' : 'good', map, mapWidth: MAP, mapHeight: MAP,
          ...findRegions(map, this.metadata.calibration.pixelThreshold, geometry),
        };
      });
    }
    dispose(): void {}
  }
  return { Inspector };
});

vi.mock('../../src/train/train.ts', async () => {
  const { Inspector } = await import('../../src/inspect/inspector.ts') as any;
  return {
    trainInspector: async (_engine: unknown, options: any) => {
      trained.options = options;
      const skipped: { name: string; reason: string }[] = [];
      const load = async (source: ImageSource) => source.load().catch((error: Error) => {
        if (!options.skipUnreadable) throw error;
        skipped.push({ name: source.name, reason: error.message });
        return undefined;
      });
      for (const source of options.images) await load(source);
      options.onProgress({ phase: 'training', done: 1, total: 2, loss: 0.5, imagesPerSecond: 4, secondsLeft: 1 });
      await options.checkpoint.save(new Uint8Array([1, 2, 3]));
      if (options.signal.aborted) throw new AbortedError('Stopped at step 1.');
      const maps: Float32Array[] = [];
      for (const source of options.calibrationImages ?? options.images) {
        const image = await load(source);
        if (image) maps.push(brightnessMap(image));
      }
      const metadata = {
        encoder: { name: options.encoder.name, sha256: options.encoder.sha256, numHeads: options.encoder.architecture.numHeads },
        resize: options.resize, crop: options.crop, training: { images: options.images.length },
        calibration: calibrate({ scores: maps.map((map) => Math.max(...map)), maps }),
      };
      return {
        inspector: new Inspector(metadata), model: new TextEncoder().encode(JSON.stringify(metadata)),
        record: { steps: 2, finalLoss: 0.25, seconds: 1, imagesPerSecond: 4, skipped, outliers: [] },
      };
    },
  };
});

/** A dark image, with a bright square where it has a defect. */
function picture(defect: boolean): RasterImage {
  const data = new Uint8Array(56 * 56 * 3).fill(30);
  if (defect) for (let y = 20; y < 32; y++) data.fill(250, (y * 56 + 12) * 3, (y * 56 + 24) * 3);
  return { width: 56, height: 56, channels: 3, data };
}

let folder: string;
const path = (...parts: string[]) => join(folder, ...parts);

async function run(argv: string[], signal?: AbortSignal): Promise<{ code: number; stdout: string; stderr: string; json: any }> {
  let stdout = '';
  let stderr = '';
  const code = await runCli(argv, { stdout: { write: (text) => { stdout += text; } }, stderr: { write: (text) => { stderr += text; } }, signal });
  return { code, stdout, stderr, json: argv.includes('--json') ? JSON.parse(stdout.trimEnd().split('\n').at(-1)!) : undefined };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-commands-'));
  vi.stubEnv('INP_FORMER_CACHE', path('cache'));
  const write = async (file: string, image: RasterImage) => {
    await mkdir(join(path('set', file), '..'), { recursive: true });
    await writeFile(path('set', file), await encodePng(image));
  };
  const mask = { ...picture(true), data: picture(true).data.map((value) => (value > 100 ? 255 : 0)) };
  for (let i = 0; i < 10; i++) await write(`train/good/${i}.png`, picture(false));
  for (let i = 0; i < 3; i++) {
    await write(`test/good/${i}.png`, picture(false));
    await write(`test/spot/${i}.png`, picture(true));
    await write(`ground_truth/spot/${i}_mask.png`, mask);
  }
  await writeFile(path('broken.png'), (await encodePng(picture(false))).subarray(0, 60));
  await run(['train', '--data', path('set'), '--out', path('model'), '--resize', '56', '--crop', '56']);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  trained.disposed = 0;
});

describe('train', () => {
  it('writes the model, removes the checkpoint and reports both ways', async () => {
    const { code, stdout, json } = await run(['train', '--data', path('set'), '--out', path('a', 'model'), '--resize', '56', '--crop', '56', '--limit', '6', '--seed', '7', '--warmup', '3', '--steps', '5', '--json']);
    expect(code).toBe(0);
    expect(stdout.trimEnd().split('\n')).toHaveLength(1);
    expect(json).toMatchObject({ command: 'train', model: path('a', 'model'), images: { train: 6, calibration: 4, heldOut: true, skipped: [] }, steps: 2, finalLoss: 0.25, encoder: { name: 'tiny' } });
    expect(await readdir(path('a'))).toEqual(['model']);
    expect(trained.options).toMatchObject({ resize: 56, crop: 56, steps: 5, warmupSteps: 3, seed: 7, batchSize: 16, resume: false });
    expect(trained.options.images.map(({ name }: ImageSource) => name)).toEqual([0, 1, 2, 3, 4, 5].map((i) => path('set', 'train', 'good', `${i}.png`)));
    expect(trained.disposed).toBe(1);
    const people = await run(['train', '--data', path('set'), '--out', path('a', 'model'), '--resize', '56', '--crop', '56']);
    expect(people.stdout).toMatch(/Threshold {4}0\.[^]*Next: inp-former inspect --model/);
    expect(people.stderr).toContain('runs on the CPU');
  });

  it('keeps the checkpoint when it is stopped, and resumes', async () => {
    const controller = new AbortController();
    controller.abort();
    const argv = ['train', '--data', path('set'), '--out', path('b', 'model'), '--resize', '56', '--crop', '56', '--json'];
    const stopped = await run(argv, controller.signal);
    expect(stopped.code).toBe(1);
    expect(stopped.json.error.code).toBe('aborted');
    expect(stopped.stderr).toContain('--resume goes on from there');
    expect(await readdir(path('b'))).toEqual(['model.checkpoint']);
    const again = await run(argv.concat('--resume'));
    expect(again.code).toBe(0);
    expect(trained.options.resume).toBe(true);
    expect(await readdir(path('b'))).toEqual(['model']);
  });

  it('fails on an unreadable image unless it may skip it', async () => {
    await mkdir(path('mixed'));
    for (let i = 0; i < 3; i++) await writeFile(path('mixed', `${i}.png`), await encodePng(picture(false)));
    await writeFile(path('mixed', 'broken.png'), await readFile(path('broken.png')));
    const argv = ['train', '--data', path('mixed'), '--out', path('mixed-model'), '--resize', '56', '--crop', '56', '--json'];
    const failed = await run(argv);
    expect(failed.code).toBe(1);
    expect(failed.json.error.file).toBe(path('mixed', 'broken.png'));
    expect(existsSync(path('mixed-model'))).toBe(false);
    const skipping = await run([...argv, '--skip-unreadable']);
    expect(skipping.code).toBe(0);
    expect(skipping.json.images).toMatchObject({ train: 4, heldOut: false });
    expect(skipping.json.images.skipped[0].name).toBe(path('mixed', 'broken.png'));
    // Too few to hold any out: the engine is not given images for it.
    expect(trained.options.calibrationImages).toBeUndefined();
  });
});

describe('inspect', () => {
  it('scores, judges, boxes, writes overlays at the source\'s size', async () => {
    const { code, json } = await run(['inspect', '--model', path('model'), path('set', 'test', 'good', '0.png'), path('set', 'test', 'spot', '0.png'), '--out', path('maps'), '--json']);
    expect(code).toBe(0);
    expect(json).toMatchObject({ command: 'inspect', inspected: 2, defective: 1, failed: [] });
    const [good, bad] = json.images;
    expect(good).toMatchObject({ verdict: 'good', regions: [] });
    expect(bad.verdict).toBe('defective');
    expect(bad.regions).toHaveLength(1);
    expect(bad.regions[0]).toMatchObject({ x: 12, y: 20, width: 12, height: 12 });
    expect(good.heatmap).toBe(path('maps', 'good_0.heatmap.png'));
    expect((await decodeImageFile(good.heatmap)).data).toEqual(Buffer.from(picture(false).data));
    const overlay = await decodeImageFile(bad.heatmap);
    expect([overlay.width, overlay.height]).toEqual([56, 56]);
    expect(overlay.data).not.toEqual(Buffer.from(picture(true).data));
  });

  it('skips what it can not read, keeps the rest and ends with 1', async () => {
    const { code, json, stderr } = await run(['inspect', '--model', path('model'), path('broken.png'), path('nothing.png'), path('set', 'test', 'spot', '0.png'), '--out', path('maps2'), '--json']);
    expect(code).toBe(1);
    expect(json.images).toHaveLength(1);
    expect(json.failed.map(({ file }: { file: string }) => file).sort()).toEqual([path('broken.png'), path('nothing.png')]);
    expect(stderr).toContain('skipped');
    expect(await readdir(path('maps2'))).toEqual(['0.heatmap.png']);
  });

  it('takes folders and a threshold, and shows people a line an image', async () => {
    const { code, stdout } = await run(['inspect', '--model', path('model'), path('set', 'test'), '--out', path('maps3'), '--threshold', '0.999', '--batch-size', '4']);
    expect(code).toBe(0);
    expect(stdout.match(/ good {7}/g)).toHaveLength(6);
    expect(stdout).toContain('given with --threshold');
    expect(await readdir(path('maps3'))).toHaveLength(6);
  });

  it('refuses a file that is no model before it starts the engine', async () => {
    const { code, json } = await run(['inspect', '--model', path('broken.png'), path('set', 'test'), '--out', path('maps4'), '--json']);
    expect([code, json.error.file, trained.disposed, existsSync(path('maps4'))]).toEqual([1, path('broken.png'), 0, false]);
  });

  it('gives every image a file of its own', () => {
    const names = overlayNames(['a/0.png', 'b/0.png', 'x/b/0.jpg', 'a/1.png']);
    expect([...names.values()]).toEqual(['a_0.heatmap.png', 'b_0.heatmap.png', 'b_0_2.heatmap.png', '1.heatmap.png']);
  });
});

describe('evaluate', () => {
  it('measures with the exact masks and says how the threshold does', async () => {
    const { code, json, stderr } = await run(['evaluate', '--model', path('model'), '--data', path('set'), '--json']);
    expect(code).toBe(0);
    expect(json).toMatchObject({ imageAuroc: 1, imageAp: 1, pixelAuroc: 1, images: 6, defectiveImages: 3, pixelImages: 6, falsePositiveRate: 0, missRate: 0, skipped: [] });
    for (const key of ['imageF1Max', 'pixelAp', 'pixelF1Max', 'aupro']) {
      expect(json[key]).toBeGreaterThan(0.9);
      expect(json[key]).toBeLessThanOrEqual(1);
    }
    expect(json.perFolder).toEqual([{ defect: 'good', images: 3, flagged: 0 }, { defect: 'spot', images: 3, flagged: 3 }]);
    expect(json.seconds.total).toBeGreaterThan(0);
    expect(stderr).toContain('I-AUROC');
  });

  it('takes the first images of each folder', async () => {
    const { json } = await run(['evaluate', '--model', path('model'), '--data', path('set'), '--limit-per-class', '2', '--json']);
    expect(json).toMatchObject({ images: 4, defectiveImages: 2 });
    const tests = ['a', 'b', 'c'].flatMap((name) => ['good', 'spot'].map((defect) => ({ path: `test/${defect}/${name}`, defect, label: 0 as const })));
    expect(limitPerFolder(tests, 1).map((test) => test.path)).toEqual(['test/good/a', 'test/spot/a']);
  });

  it('has no rates where there is nothing to judge by', () => {
    expect(outcomeRates([{ defect: 'good', label: 0, flagged: true }, { defect: 'good', label: 0, flagged: false }])).toMatchObject({ falsePositiveRate: 0.5, missRate: null });
  });

  it('needs test images', async () => {
    const { code, json } = await run(['evaluate', '--model', path('model'), '--data', path('mixed'), '--json']);
    expect([code, json.error.code]).toEqual([1, 'no-images']);
  });
});
