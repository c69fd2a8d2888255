// The commands around the engine, with a stand-in for it that scores an image by its brightness: what is written where,
// what is skipped, what is kept when a run stops, and what programs are told. The engine itself has its own tests.
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ImageSource, RasterImage } from '../../src/data/image.ts';
import { AbortedError, InputError } from '../../src/errors.ts';
import { calibrate } from '../../src/inspect/calibration.ts';
import { calibrationFor } from '../../src/inspect/model-file.ts';
import { findRegions, placeMap } from '../../src/inspect/regions.ts';
import type { PrototypeView } from '../../src/inspect/prototypes.ts';
import { runCli } from '../../src/node/cli.ts';
import { publishedFor, type ProtocolSetting } from '../../src/evaluate/published.ts';
import { protocolUnits } from '../../src/node/commands/benchmark.ts';
import { overlayNames } from '../../src/node/commands/inspect.ts';
import { limitPerFolder, outcomeRates } from '../../src/node/evaluation.ts';
import { decodeImageFile, encodePng } from '../../src/node/images.ts';
import { resizeAndCrop } from '../../src/data/preprocess.ts';
import { calibrateCategories } from '../../src/train/categories.ts';

const MAP = 56;
const trained = vi.hoisted(() => ({ options: undefined as any, inspected: undefined as any, batch: 0, disposed: 0 }));

function brightnessMap(image: RasterImage): Float32Array {
  const small = resizeAndCrop(image, { resize: MAP, crop: MAP });
  return Float32Array.from({ length: MAP * MAP }, (_, i) => small.data[i * 3]! / 255);
}

/** Two tokens, each with a prototype of its own. */
function halves(count: number): PrototypeView {
  const similarity = Float32Array.from({ length: 2 * count }, (_, at) => (Math.floor(at / 2) === at % 2 ? 0.9 : 0.2));
  return { rows: 1, columns: 2, count, index: Uint8Array.of(0, 1), similarity, groups: [Float32Array.of(0.1, 0.3), Float32Array.of(0.2, 0.4)], placement: { x: 0, y: 0, scaleX: MAP / 2, scaleY: MAP } };
}

vi.mock('../../src/node/engine.ts', () => ({
  createNodeEngine: async () => ({ adapter: { name: 'stand-in', isSoftware: true }, dispose: () => { trained.disposed++; } }),
}));

vi.mock('../../src/inspect/inspector.ts', () => {
  class Inspector {
    readonly metadata: any;
    threshold = 0;
    private current: string | undefined;
    constructor(metadata: any) {
      this.metadata = metadata;
      this.category = undefined;
    }
    get calibration(): any {
      return calibrationFor(this.metadata, this.current);
    }
    get category(): string | undefined {
      return this.current;
    }
    set category(name: string | undefined) {
      this.current = name;
      this.threshold = this.calibration.threshold;
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
    async inspect(image: RasterImage, options: any): Promise<object> {
      return (await this.inspectBatch([image], options))[0]!;
    }
    async inspectBatch(images: RasterImage[], options: any = {}): Promise<object[]> {
      trained.inspected = options;
      trained.batch = images.length;
      return images.map((image) => {
        const map = brightnessMap(image);
        const score = Math.max(...map);
        const sizes = { resize: this.metadata.resize, crop: this.metadata.crop, sourceWidth: image.width, sourceHeight: image.height, mapWidth: MAP, mapHeight: MAP };
        const geometry = { ...sizes, placement: placeMap(sizes) };
        return {
          score, threshold: this.threshold, scale: { low: this.calibration.scaleLow, high: this.calibration.scaleHigh }, verdict: score > this.threshold ? 'defective' : 'good', map, ...geometry,
          ...findRegions(map, this.calibration.pixelThreshold, geometry),
          ...(options.prototypes && { prototypes: halves(this.metadata.count) }),
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
      const results: (ImageSource & { score: number; map: Float32Array })[] = [];
      for (const source of options.calibrationImages ?? options.images) {
        const image = await load(source);
        if (!image) continue;
        const map = brightnessMap(image);
        maps.push(map);
        results.push({ ...source, score: Math.max(...map), map });
      }
      const names = [...new Set(options.images.map((source: ImageSource) => source.category))] as string[];
      const metadata = {
        encoder: { name: options.encoder.name, sha256: options.encoder.sha256, numHeads: options.encoder.architecture.numHeads },
        resize: options.resize, crop: options.crop, mapSize: MAP, framing: 'stretch', view: options.crop, count: options.numPrototypes,
        calibration: calibrate({ scores: maps.map((map) => Math.max(...map)), maps }),
        ...(names.length > 1 && { categories: calibrateCategories(results, options.images, { heldOut: true }) }),
        training: { images: options.images.length, steps: 2, batchSize: 4, seed: options.seed },
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

describe('framing', () => {
  it('options reach the training as sizes', async () => {
    const base = ['train', '--data', path('set'), '--out', path('framed', 'model')];
    expect((await run([...base, '--tile', '500x300', '--tiles-per-image', '3', '--crop', '84x28', '--prototypes', '4'])).code).toBe(0);
    expect(trained.options).toMatchObject({ tile: { size: { width: 500, height: 300 }, perImage: 3 }, crop: { width: 84, height: 28 }, numPrototypes: 4 });
    expect('resize' in trained.options).toBe(false);
    await run([...base, '--tile']);
    expect(trained.options).toMatchObject({ tile: {} });
    await run([...base, '--keep-aspect', '--resize', '448']);
    expect([trained.options.keepAspect, trained.options.resize]).toEqual([true, 448]);
  });

  it('options reach inspection and evaluation', async () => {
    const { code, stdout } = await run(['inspect', '--model', path('model'), path('set', 'test', 'good', '0.png'), '--out', path('tiled'), '--tile', '--tile-overlap', '0.5']);
    expect([code, trained.inspected.tile.overlap]).toEqual([0, 0.5]);
    expect(stdout).toMatch(/Tiles +of 56 x 56 pixels, overlapping by 50 % or more; the threshold is from images of one such view/);
    await run(['evaluate', '--model', path('model'), '--data', path('set'), '--limit-per-class', '1']);
    expect([trained.inspected.tile, trained.batch]).toEqual([false, 2]);
    await run(['evaluate', '--model', path('model'), '--data', path('set'), '--tile', '--tile-overlap', '0.5', '--limit-per-class', '1', '--html', path('tiled', 'report.html')]);
    expect([trained.inspected.tile.overlap, trained.batch]).toEqual([0.5, 1]);
    expect(await readFile(path('tiled', 'report.html'), 'utf8')).toContain('resized to 56 x 56, centre 56 x 56, in tiles of 56 x 56 pixels');
    const alone = await run(['inspect', '--model', path('model'), path('set', 'test', 'good', '0.png'), '--out', path('tiled'), '--tile-overlap', '0.5']);
    expect([alone.code, alone.stderr.includes('--tile-overlap is of --tile')]).toEqual([2, true]);
  });
});

describe('inspect --prototypes', () => {
  it('writes a sheet an image and one report, and tells programs the shares', async () => {
    const { code, json } = await run(['inspect', '--model', path('model'), path('set', 'test', 'spot'), '--out', path('prototypes'), '--prototypes', '--json']);
    expect(code).toBe(0);
    expect((await readdir(path('prototypes'))).sort()).toEqual(['0.heatmap.png', '0.prototypes.png', '1.heatmap.png', '1.prototypes.png', '2.heatmap.png', '2.prototypes.png', 'prototypes.html']);
    expect(json.prototypeReport).toBe(path('prototypes', 'prototypes.html'));
    expect(json.images[0].prototypes).toMatchObject({ sheet: path('prototypes', '0.prototypes.png'), models: [{ count: 6, shares: [0.5, 0.5, 0, 0, 0, 0], inUse: 2, agreement: null }] });
    const sheet = await decodeImageFile(path('prototypes', '0.prototypes.png'));
    // Image, heat map, prototypes and two groups; below, six similarity maps with a bar above each.
    expect([sheet.width, sheet.height]).toEqual([6 * 64 + 8, 64 + 64 + 4 + 8]);
    const html = await readFile(path('prototypes', 'prototypes.html'), 'utf8');
    expect(html.match(/<img /g)).toHaveLength(3 * 11);
    expect(html).not.toMatch(/<script|src="(?!data:)/);
  });

  it('shows another model beside, in the colours of the prototypes that its own overlap', async () => {
    await run(['train', '--data', path('set'), '--out', path('three'), '--resize', '56', '--crop', '56', '--prototypes', '3']);
    const argv = ['inspect', '--model', path('model'), path('set', 'test', 'spot', '0.png'), '--out', path('compared'), '--compare', path('three'), '--json'];
    expect((await run(argv)).code).toBe(2);
    const { json } = await run([...argv, '--prototypes']);
    expect(json.images[0].prototypes.models).toMatchObject([{ count: 6, agreement: null }, { model: path('three'), count: 3, agreement: 1 }]);
    const html = await readFile(path('compared', 'prototypes.html'), 'utf8');
    expect(html).toContain('agreement with the first');
    expect(html).toContain(': 3 prototypes</h3>');
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
    const { imageAuroc, imageAp, imageF1Max, pixelAuroc, pixelAp, pixelF1Max, aupro } = json;
    expect(json.perFolder).toEqual([{ defect: 'good', images: 3, flagged: 0 }, { defect: 'spot', images: 3, flagged: 3, metrics: { imageAuroc, imageAp, imageF1Max, pixelAuroc, pixelAp, pixelF1Max, aupro } }]);
    expect(stderr).toMatch(/^kind +images +flagged +I-AUROC +P-AUROC +P-AP +AUPRO\ngood +3 +0\nspot +3 +3 +1\.000/m);
    expect(json.seconds.total).toBeGreaterThan(0);
    expect(stderr).toContain('I-AUROC');
  });

  it('measures each kind of defect against the good images', async () => {
    await cp(path('set'), path('kinds'), { recursive: true });
    // A kind that nobody could see.
    for (const [to, from] of [['test/unseen/0.png', 'test/good/0.png'], ['ground_truth/unseen/0_mask.png', 'ground_truth/spot/0_mask.png']] as const) await cp(path('set', from), path('kinds', to));
    const { json } = await run(['evaluate', '--model', path('model'), '--data', path('kinds'), '--json']);
    const [good, spot, unseen] = json.perFolder;
    expect([good.defect, good.metrics]).toEqual(['good', undefined]);
    expect(spot).toMatchObject({ defect: 'spot', images: 3, flagged: 3, metrics: { imageAuroc: 1, pixelAuroc: 1, pixelAp: 1 } });
    expect(unseen).toMatchObject({ defect: 'unseen', images: 1, flagged: 0, metrics: { imageAuroc: 0.5 } });
    expect(json.pixelAp).toBeGreaterThan(unseen.metrics.pixelAp);
    expect(json.pixelAp).toBeLessThan(1);
  });

  it('takes the first images of each folder', async () => {
    const { json } = await run(['evaluate', '--model', path('model'), '--data', path('set'), '--limit-per-class', '2', '--json']);
    expect(json).toMatchObject({ images: 4, defectiveImages: 2 });
    const tests = ['a', 'b', 'c'].flatMap((name) => ['good', 'spot'].map((defect) => ({ path: `test/${defect}/${name}`, defect, label: 0 as const })));
    expect(limitPerFolder(tests, 1).map((test) => test.path)).toEqual(['test/good/a', 'test/spot/a']);
  });

  it('writes CSV and an HTML report, and finds out first that it can not', async () => {
    const { code, json } = await run(['evaluate', '--model', path('model'), '--data', path('set'), '--limit-per-class', '1', '--csv', path('report', 'r.csv'), '--html', path('report', 'r.html'), '--json']);
    expect(code).toBe(0);
    expect(await readFile(path('report', 'r.csv'), 'utf8')).toMatch(/^category,.*\r\nset,2,1,2,1,1,/);
    expect(await readFile(path('report', 'r.html'), 'utf8')).toContain('None: every verdict is right.');
    expect(json.categories).toHaveLength(1);
    const wrong = await run(['evaluate', '--model', path('model'), '--data', path('set'), '--csv', path('set'), '--json']);
    expect([wrong.code, wrong.json.error.message]).toEqual([1, expect.stringContaining('--csv names the CSV file')]);
  });

  it('has no rates where there is nothing to judge by', () => {
    expect(outcomeRates([{ defect: 'good', label: 0, flagged: true }, { defect: 'good', label: 0, flagged: false }])).toMatchObject({ falsePositiveRate: 0.5, missRate: null });
  });

  it('needs test images', async () => {
    const { code, json } = await run(['evaluate', '--model', path('model'), '--data', path('mixed'), '--json']);
    expect([code, json.error.code]).toEqual([1, 'no-images']);
  });
});

describe('data sets of several categories', () => {
  const size = ['--resize', '56', '--crop', '56'];

  beforeAll(async () => {
    // The second category's normal images are brighter, so that one threshold does not fit both.
    for (const [name, level] of [['dark', 30], ['bright', 120]] as const) {
      const write = async (file: string, defect: boolean) => {
        const image = picture(defect);
        await mkdir(join(path('root', name, file), '..'), { recursive: true });
        await writeFile(path('root', name, file), await encodePng({ ...image, data: image.data.map((value) => (value === 30 ? level : value)) }));
      };
      for (let i = 0; i < 8; i++) await write(`train/good/${i}.png`, false);
      await write('test/good/0.png', false);
      await write('test/spot/0.png', true);
    }
  });

  it('train gives one model of all, with a threshold for each; inspect and evaluate use it', async () => {
    const { code, json } = await run(['train', '--data', path('root'), '--out', path('multi'), ...size, '--json']);
    expect(code).toBe(0);
    expect(json.images).toMatchObject({ train: 12, calibration: 4, heldOut: true });
    expect(trained.options.images.map(({ category }: ImageSource) => category)).toEqual([...Array(6).fill('bright'), ...Array(6).fill('dark')]);
    const [bright, dark] = json.categories;
    expect([bright.name, dark.name, bright.images]).toEqual(['bright', 'dark', 6]);
    expect(bright.calibration.threshold).toBeGreaterThan(2 * dark.calibration.threshold);

    const evaluated = await run(['evaluate', '--model', path('multi'), '--data', path('root'), '--json']);
    expect(evaluated.json.categories.map(({ category, threshold, imageAuroc, pixelAuroc, imagesWithoutMask }: any) => [category, threshold, imageAuroc, pixelAuroc, imagesWithoutMask]))
      .toEqual([['bright', bright.calibration.threshold, 1, null, 1], ['dark', dark.calibration.threshold, 1, null, 1]]);
    expect(evaluated.json).toMatchObject({ images: 4, imageAuroc: 1, falsePositiveRate: 0, missRate: 0 });
    expect(evaluated.stderr).toMatch(/1 of the 1 defective images of bright have no mask/);

    const inspect = (category: string) => run(['inspect', '--model', path('multi'), path('root', 'bright', 'test', 'good'), '--category', category, '--out', path('maps5'), '--json']);
    expect((await inspect('bright')).json).toMatchObject({ category: 'bright', defective: 0 });
    expect((await inspect('dark')).json).toMatchObject({ threshold: dark.calibration.threshold, defective: 1 });
    const unknown = await inspect('blue');
    expect([unknown.code, unknown.json.error.message]).toEqual([2, expect.stringContaining('knows bright, dark, not blue')]);
  });

  it('--setting single gives a model each, and leaves what is there; evaluate takes the folder', async () => {
    const argv = ['train', '--data', path('root'), '--setting', 'single', '--out', path('models'), ...size, '--json'];
    expect((await run([...argv, '--categories', 'dark'])).json.models).toMatchObject([{ category: 'dark', model: path('models', 'dark.safetensors') }]);
    const { json } = await run([...argv, '--resume']);
    expect(json.models).toMatchObject([{ category: 'bright', steps: 2 }, { category: 'dark', kept: true }]);
    expect(trained.options.images[0].category).toBeUndefined();
    expect((await run(['evaluate', '--model', path('models'), '--data', path('root'), '--json'])).json).toMatchObject({ images: 4, falsePositiveRate: 0, missRate: 0 });
    expect((await run(['train', '--data', path('root'), '--setting', 'single', '--out', path('model'), ...size, '--json'])).json.error.message).toContain('names the folder of the models');
  });

  it('several --data stand side by side; --no-hold-out trains on all; a category that none has is refused', async () => {
    const { json } = await run(['train', '--data', path('root', 'dark'), '--data', path('set'), '--out', path('two'), ...size, '--no-hold-out', '--limit', '3', '--json']);
    expect(json.images).toMatchObject({ train: 6, heldOut: false });
    expect(trained.options.calibrationImages).toBeUndefined();
    expect([...new Set(trained.options.images.map(({ category }: ImageSource) => category))]).toEqual(['dark', 'set']);
    const wrong = await run(['train', '--data', path('root'), '--categories', 'blue', '--out', path('two'), ...size, '--json']);
    expect([wrong.code, wrong.json.error.message]).toEqual([2, expect.stringContaining('there are bright, dark')]);
    expect((await run(['train', '--data', path('root'), '--data', path('root'), '--out', path('two'), ...size, '--json'])).code).toBe(2);
  });

  it('a mask of another shape than its image is an error that names it', async () => {
    await mkdir(path('shapes', 'test', 'spot'), { recursive: true });
    await mkdir(path('shapes', 'ground_truth', 'spot'), { recursive: true });
    await writeFile(path('shapes', 'test', 'spot', '0.png'), await encodePng(picture(true)));
    await writeFile(path('shapes', 'ground_truth', 'spot', '0.png'), await encodePng({ width: 56, height: 20, channels: 1, data: new Uint8Array(56 * 20).fill(255) }));
    const { code, json, stderr } = await run(['evaluate', '--model', path('model'), '--data', path('shapes'), '--json']);
    expect([code, json.error.file]).toEqual([1, path('shapes', 'ground_truth', 'spot', '0.png')]);
    expect(json.error.message).toContain('the mask has 56 x 20 pixels');
    expect(stderr).toContain('has no good test images');
  });
});

describe('benchmark', () => {
  const argv = (out: string, setting: string, ...more: string[]) => ['benchmark', '--dataset', path('root'), '--setting', setting, '--out', path(out), '--encoder', 'tiny', '--resize', '56', '--crop', '56', '--steps', '2', ...more, '--json'];

  it('trains, evaluates each category, keeps the results and does nothing twice', async () => {
    const first = await run(argv('bench', 'multi', '--limit-per-class', '1'));
    expect(first.code).toBe(0);
    expect(first.json).toMatchObject({ command: 'benchmark', setting: 'multi', dataset: null, results: [{ category: 'bright', imageAuroc: 1 }, { category: 'dark', imageAuroc: 1 }], summaries: [{ mean: { imageAuroc: 1 } }] });
    expect(first.stderr).toContain('There is no published row');
    expect(trained.options.calibrationImages).toBeUndefined();
    expect((await readdir(path('bench', 'models')))).toEqual(['multi.safetensors']);
    trained.options = undefined;
    const again = await run(argv('bench', 'multi', '--limit-per-class', '1'));
    expect([again.json.results, trained.options, again.stderr.includes('evaluating')]).toEqual([first.json.results, undefined, false]);
    const other = await run(argv('bench', 'multi', '--limit-per-class', '1', '--seed', '3'));
    expect([other.code, other.json.error.message]).toEqual([2, expect.stringContaining('seed: 1, now 3')]);
  });

  it('goes on with the category that is missing', async () => {
    const file = path('bench2', 'benchmark.json');
    await run(argv('bench2', 'single'));
    expect((await readdir(path('bench2', 'models')))).toEqual(['bright.safetensors', 'dark.safetensors']);
    const kept = JSON.parse(await readFile(file, 'utf8'));
    delete kept.results.dark;
    await writeFile(file, JSON.stringify(kept));
    trained.options = undefined;
    const { code, stderr } = await run(argv('bench2', 'single'));
    expect([code, trained.options, stderr.includes('dark: evaluating'), stderr.includes('bright: evaluating')]).toEqual([0, undefined, true, false]);
  });

  it('says which command failed, and refuses what makes no sense', async () => {
    const unknownOption = await run([...argv('bench3', 'multi').slice(0, -1), '--json', '--', '--no-such-option']);
    expect([unknownOption.code, unknownOption.json.error.message]).toEqual([2, expect.stringMatching(/inp-former train .*--no-such-option[^]*unknown option/)]);
    expect((await run(argv('bench4', 'few-0'))).code).toBe(2);
    expect((await run(argv('bench4', 'super-multi'))).json.error.message).toContain('several data sets');
    expect((await run(argv('bench4', 'multi', '--train-on', path('set')))).json.error.message).toContain('--train-on belongs to --setting zero');
  });

  it('asks for what each setting is, by the commands\' own options', () => {
    const options = { dataset: ['d'], encoder: 'tiny', resize: 448, crop: 392, batchSize: 16, epochs: 200, seed: 1, adapter: 'auto' as const };
    const categories = [{ name: 'a', folder: 'd' }, { name: 'b', folder: 'd' }];
    const units = (setting: ProtocolSetting, more = {}) => protocolUnits({ ...options, setting, ...more }, categories);
    expect(units('few-4')[0]!.train.join(' ')).toMatch(/^train --data d .*--no-hold-out --epochs 200 --shots 4$/);
    expect(units('zero').map(({ model, train, evaluations }) => [model, train[4], evaluations.map(({ args }) => args.at(-1))])).toEqual([['without-a.safetensors', 'b', ['--zero-shot']], ['without-b.safetensors', 'a', ['--zero-shot']]]);
    expect(units('zero', { trainOn: ['e'] })[0]).toMatchObject({ model: 'zero.safetensors', evaluations: [{ category: 'a' }, { category: 'b' }] });
    expect(units('zero', { trainOn: ['e'] })[0]!.train.slice(0, 3)).toEqual(['train', '--data', 'e']);
    expect(publishedFor('MVTec AD', 'multi')).toMatchObject({ imageAuroc: 0.997, aupro: 0.949 });
    expect(publishedFor('MVTec AD', 'multi', true)).toMatchObject({ imageAuroc: 0.998, imageAp: null });
    expect(publishedFor('VisA', 'few-1')).toBeUndefined();
  });
});
