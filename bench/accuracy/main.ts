/**
 * One table of what each setting is worth: the user's categories and three drawn ones, all settings of the papers, the same
 * images and steps. Each training and each evaluation is a command of its own (`inp-former train`, `inp-former evaluate`),
 * and each result is kept at once, so a run that is stopped goes on where it was. Writes accuracy.json and accuracy.md.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { DatasetCategory, LabelledImage } from '../../src/data/dataset.ts';
import { METRIC_NAMES, type EvaluationMetrics } from '../../src/evaluate/evaluate.ts';
import { openDatasets } from '../../src/node/dataset.ts';
import type { KindOutcome } from '../../src/node/evaluation.ts';
import { writeFileAtomic } from '../../src/node/files.ts';
import { writeProceduralSet } from '../../src/node/procedural-files.ts';
import { findings, markdown, type Cell, type Table } from './table.ts';
import { settings, type Job } from './settings.ts';

const TEXTURES = ['leather', 'brushed-metal', 'woven-cloth'];
const REAL_DEFECTS = 5;

const usage = `Usage: npm run accuracy -- --data DIR [--data DIR …] [options]
  --data DIR        a category or a data set with test images
  --categories A,B  only these of them
  --settings A,B    only these: ${settings.map(({ id }) => id).join(', ')}
  --no-drawn        without the ${TEXTURES.length} drawn surfaces
  --out DIR         results (default out/accuracy); the same command goes on from what is there
  --encoder NAME    default tiny        --size PIXELS   default 224, resize and crop
  --steps N         default 60          --batch-size N  default 8        --seed N  default 1
  --head-steps N    of the segmentation head of INP-Former++; default: as train does
  --limit N         normal images of each category to train on, default 64
  --limit-per-class N  test images of each kind, default 24
  --adapter NAME    default auto`;

/** @returns the exit code */
export async function main(argv: readonly string[], root: string): Promise<number> {
  if (argv.includes('--help')) {
    console.log(usage);
    return 0;
  }
  let options: ReturnType<typeof parse>;
  try {
    options = parse(argv);
  } catch (error) {
    console.error(`${(error as Error).message}\n${usage}`);
    return 2;
  }
  try {
    await run(options, root);
    return 0;
  } catch (error) {
    console.error(`\n${(error as Error).message}`);
    return 1;
  }
}

function parse(argv: readonly string[]) {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      data: { type: 'string', multiple: true, default: [] }, categories: { type: 'string' }, settings: { type: 'string' }, 'no-drawn': { type: 'boolean', default: false },
      out: { type: 'string', default: 'out/accuracy' }, encoder: { type: 'string', default: 'tiny' }, size: { type: 'string', default: '224' },
      steps: { type: 'string', default: '60' }, 'head-steps': { type: 'string' }, 'batch-size': { type: 'string', default: '8' }, seed: { type: 'string', default: '1' },
      limit: { type: 'string', default: '64' }, 'limit-per-class': { type: 'string', default: '24' }, adapter: { type: 'string', default: 'auto' },
    },
  });
  const number = (name: 'size' | 'steps' | 'head-steps' | 'batch-size' | 'seed' | 'limit' | 'limit-per-class'): number => {
    if (!/^\d+$/.test(values[name] ?? '')) throw new Error(`--${name} must be a whole number, got ${values[name]}.`);
    return Number(values[name]);
  };
  const list = (text: string | undefined): string[] | undefined => text?.split(',').map((name) => name.trim()).filter((name) => name !== '');
  const wanted = list(values.settings);
  const unknown = wanted?.find((id) => !settings.some((setting) => setting.id === id));
  if (unknown !== undefined) throw new Error(`There is no setting ${unknown}.`);
  if (values.data.length === 0 && values['no-drawn']) throw new Error('There is nothing to do: give --data, or leave out --no-drawn.');
  return {
    data: values.data, categories: list(values.categories), settings: settings.filter(({ id }) => !wanted || wanted.includes(id)), drawn: !values['no-drawn'], out: resolve(values.out),
    encoder: values.encoder, adapter: values.adapter,
    figures: { size: number('size'), steps: number('steps'), headSteps: values['head-steps'] === undefined ? undefined : number('head-steps'), batchSize: number('batch-size'), seed: number('seed'), limit: number('limit'), limitPerClass: number('limit-per-class') },
  };
}

async function run({ data, categories: only, settings: wanted, drawn, out, encoder, adapter, figures }: ReturnType<typeof parse>, root: string): Promise<void> {
  const names = await prepareData(data, only, drawn, out, figures);
  const file = join(out, 'accuracy.json');
  const conditions = { encoder, ...figures };
  const table: Table = { conditions, categories: names, cells: await readCells(file, conditions) };
  const command = (args: readonly string[]) => inpFormer(root, [...args, '--adapter', adapter]);
  const category = (name: string): string => join(out, 'data', name);

  for (const setting of wanted) {
    for (const name of names) {
      if (table.cells.some((cell) => cell.setting === setting.id && cell.category === name)) continue;
      const job = setting.job(name, names, figures, (of) => join(out, 'defects', of));
      if (!job) continue;
      console.error(`\n${setting.title}: ${name}`);
      const training = await trainOnce(job, join(out, 'models'), figures, encoder, category, command);
      const started = performance.now();
      const result = await command(['evaluate', '--model', modelFile(job, join(out, 'models')), '--data', category(name), ...job.evaluate]) as EvaluationMetrics & Evaluated;
      const cell: Cell = {
        setting: setting.id, title: setting.title, category: name, adapter: result.adapter.name, images: result.images,
        kinds: Object.fromEntries(result.categories[0]!.perFolder.flatMap(({ defect, metrics }) => (metrics ? [[defect, metrics.pixelAp]] : []))),
        ...Object.fromEntries(METRIC_NAMES.map(([key]) => [key, result[key]])) as unknown as EvaluationMetrics,
        seconds: { training, evaluating: (performance.now() - started) / 1000 },
      };
      table.cells.push(cell);
      await writeFileAtomic(file, `${JSON.stringify(table, null, 2)}\n`);
      await writeFileAtomic(join(out, 'accuracy.md'), markdown(table, settings));
    }
  }
  console.log(markdown(table, settings));
  for (const line of findings(table)) console.log(line);
  console.log(`\n${file}\n${join(out, 'accuracy.md')}`);
}

const modelFile = (job: Job, models: string): string => join(models, `${job.model}.safetensors`);

/** What `evaluate --json` says besides the metrics. */
interface Evaluated {
  readonly images: number;
  readonly adapter: { readonly name: string };
  readonly categories: readonly { readonly perFolder: readonly KindOutcome[] }[];
}

/** @returns seconds, those of the model it goes on from included; 0 where it was there */
async function trainOnce(job: Job, models: string, figures: { size: number; batchSize: number; seed: number }, encoder: string, category: (name: string) => string, command: (args: readonly string[]) => Promise<unknown>): Promise<number> {
  const model = modelFile(job, models);
  if (existsSync(model)) return 0;
  if (job.from) await trainOnce(job.from, models, figures, encoder, category, command);
  const { size, batchSize, seed } = figures;
  const started = performance.now();
  await mkdir(models, { recursive: true });
  await command([
    'train', ...job.trainOn.flatMap((name) => ['--data', category(name)]), '--out', model, '--encoder', encoder, '--resize', String(size), '--crop', String(size),
    '--batch-size', String(batchSize), '--seed', String(seed), '--no-hold-out', ...(job.from ? ['--from', modelFile(job.from, models)] : []), ...job.train, ...(existsSync(`${model}.checkpoint`) ? ['--resume'] : []),
  ]);
  return (performance.now() - started) / 1000;
}

/**
 * out/data/<category>: the images that count, as links in MVTec AD's layout: the first of each kind. out/defects/<category>:
 * the real defects of the semi-supervised setting, the last of each kind in turn, which nothing is tested on.
 */
async function prepareData(folders: readonly string[], only: readonly string[] | undefined, drawn: boolean, out: string, { limit, limitPerClass, seed }: { limit: number; limitPerClass: number; seed: number }): Promise<string[]> {
  const drawings = join(out, 'drawn');
  if (drawn) for (const texture of TEXTURES) await draw(texture, join(drawings, texture), limit, seed);
  const { categories } = await openDatasets(folders, { purpose: 'testing', ...(only && { only }), warn: (text) => console.error(`Warning: ${text}`) });
  const more = drawn ? (await openDatasets([drawings], { purpose: 'testing' })).categories : [];
  const all = [...categories, ...more].map((category) => ({ ...category, name: category.name.replaceAll('/', '-') }));
  await rm(join(out, 'data'), { recursive: true, force: true });
  await rm(join(out, 'defects'), { recursive: true, force: true });
  for (const category of all) {
    const { defects, tests } = splitTests(category, limitPerClass);
    const link = async (path: string, to: string): Promise<void> => {
      await mkdir(dirname(to), { recursive: true });
      await symlink(resolve(category.folder, path), to);
    };
    const place = join(out, 'data', category.name);
    for (const path of category.train.slice(0, limit)) await link(path, join(place, 'train/good', basename(path)));
    const linkTest = async (test: LabelledImage, base: string, group: string): Promise<void> => {
      await link(test.path, join(base, group, test.defect, basename(test.path)));
      const stem = basename(test.path, extname(test.path));
      for (const [i, mask] of (test.maskPaths ?? []).entries()) await link(mask, join(base, 'ground_truth', test.defect, test.maskPaths!.length > 1 ? join(stem, `${i}${extname(mask)}`) : `${stem}_mask${extname(mask)}`));
    };
    for (const test of tests) await linkTest(test, place, 'test');
    for (const test of defects) await linkTest(test, join(out, 'defects', category.name), 'test');
  }
  return all.map(({ name }) => name);
}

/** @returns real defects to train on, with masks, from the end of each kind in turn; and of the others the first of each kind to test */
export function splitTests({ tests }: Pick<DatasetCategory, 'tests'>, limitPerClass: number): { defects: LabelledImage[]; tests: LabelledImage[] } {
  const kinds = [...new Set(tests.filter(({ label, maskPaths }) => label === 1 && maskPaths).map(({ defect }) => defect))];
  const left = new Map(kinds.map((kind) => [kind, tests.filter(({ defect, maskPaths }) => defect === kind && maskPaths)]));
  const defects: LabelledImage[] = [];
  for (let round = 0; defects.length < REAL_DEFECTS && [...left.values()].some((images) => images.length > 1); round++) {
    const images = left.get(kinds[round % kinds.length]!)!;
    if (images.length > 1) defects.push(images.pop()!);
  }
  const counts = new Map<string, number>();
  return {
    defects,
    tests: tests.filter((test) => {
      const count = counts.get(test.defect) ?? 0;
      if (defects.includes(test) || count >= limitPerClass) return false;
      counts.set(test.defect, count + 1);
      return true;
    }),
  };
}

async function draw(texture: string, folder: string, train: number, seed: number): Promise<void> {
  if (existsSync(join(folder, 'done'))) return;
  await writeProceduralSet(folder, { texture, seed, size: 256, train, testGood: 24, testDefective: 53 });
  await writeFileAtomic(join(folder, 'done'), '');
}

async function readCells(file: string, conditions: object): Promise<Cell[]> {
  if (!existsSync(file)) return [];
  const kept = JSON.parse(await readFile(file, 'utf8')) as Table;
  if (JSON.stringify(kept.conditions) !== JSON.stringify(conditions)) throw new Error(`${file} is of a run under other conditions (${JSON.stringify(kept.conditions)}, now ${JSON.stringify(conditions)}): take another --out.`);
  return kept.cells;
}

/** Runs the command line, whose progress goes to stderr. @returns its answer; @throws Error with the command and what it said */
function inpFormer(root: string, args: readonly string[]): Promise<unknown> {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [join(root, 'bin/inp-former.js'), ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => { stdout += chunk.toString(); });
    child.stderr.on('data', (chunk: Buffer) => { stderr += chunk.toString(); process.stderr.write(chunk); });
    child.on('error', failed);
    child.on('close', (code) => {
      const last = stdout.trimEnd().split('\n').at(-1);
      if (code === 0 && last) done(JSON.parse(last));
      else failed(new Error(`inp-former ${args.join(' ')}\nended with code ${code}: ${stderr.trim().split('\n').slice(-2).join(' ')}`));
    });
  });
}
