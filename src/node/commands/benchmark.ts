/**
 * `inp-former benchmark`: a whole published protocol on a data set: train what the setting trains, evaluate each category,
 * and print the mean beside the paper's. It is made of the commands `train` and `evaluate`, so all that it does can be done
 * by hand. Every result is kept in a file in the output folder as soon as it is there; what is done is not done again.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AbortedError, InputError, UsageError } from '../../errors.ts';
import { averageMetrics, METRIC_NAMES, type EvaluationMetrics } from '../../evaluate/evaluate.ts';
import { publishedFor, type ProtocolSetting } from '../../evaluate/published.ts';
import { modelFileName, openDatasets } from '../dataset.ts';
import { metricsTable } from '../evaluation-table.ts';
import { fileError, writeFileAtomic } from '../files.ts';
import type { CliIo, CommandContext, CommonOptions } from './context.ts';

export interface BenchmarkCommandOptions extends CommonOptions {
  readonly dataset: readonly string[];
  readonly setting: ProtocolSetting;
  readonly out: string;
  /** zero: what to train on; by default each category is tested with a model of the others. */
  readonly trainOn?: readonly string[];
  readonly categories?: readonly string[];
  readonly encoder: string;
  readonly resize: number;
  readonly crop: number;
  readonly batchSize: number;
  readonly epochs: number;
  readonly steps?: number;
  readonly limit?: number;
  readonly limitPerClass?: number;
  readonly seed: number;
}

/** A model to train, once, and the categories to evaluate with it. */
export interface Unit {
  readonly model: string;
  /** Arguments of `train`. */
  readonly train: readonly string[];
  readonly evaluations: readonly { readonly category: string; readonly args: readonly string[] }[];
}

type CategoryEvaluation = EvaluationMetrics & { readonly category: string; readonly images: number };

/** What the folder keeps. */
interface Kept {
  readonly settings: Record<string, unknown>;
  readonly results: Record<string, CategoryEvaluation>;
}

/** Runs one command line, see cli.ts. */
export type RunCommand = (argv: readonly string[], io: CliIo) => Promise<number>;

const RESULTS = 'benchmark.json';

/** @param trainArgs further arguments for `train`, from behind `--` */
export async function benchmark(trainArgs: readonly string[], options: BenchmarkCommandOptions, context: CommandContext, run: RunCommand): Promise<number> {
  const { dataset, setting, out, seed, encoder, resize, crop, batchSize, epochs, steps, limit, limitPerClass, trainOn } = options;
  if (trainOn && setting !== 'zero') throw new UsageError('--train-on belongs to --setting zero; the other settings train on the data set itself.');
  if (setting === 'super-multi' && dataset.length < 2) throw new UsageError('--setting super-multi trains one model on several data sets: give --dataset for each.');
  const { datasets, categories } = await openDatasets(dataset, {
    purpose: 'testing', ...(options.categories && { only: options.categories }),
    say: (line) => context.field('Data', line), warn: (text) => context.warn(text),
  });
  const settings = { dataset, setting, trainOn: trainOn ?? null, categories: options.categories ?? null, encoder, resize, crop, batchSize, epochs: steps === undefined ? epochs : null, steps: steps ?? null, limit: limit ?? null, limitPerClass: limitPerClass ?? null, seed, trainArgs };
  const file = join(out, RESULTS);
  await mkdir(join(out, 'models'), { recursive: true }).catch((cause: unknown) => {
    throw fileError(out, cause, 'written');
  });
  const kept = await readKept(file, settings);
  const results = { ...kept.results };

  for (const unit of protocolUnits(options, categories, trainArgs)) {
    const open = unit.evaluations.filter(({ category }) => !(category in results));
    if (open.length === 0) continue;
    const model = join(out, 'models', unit.model);
    if (!existsSync(model)) {
      context.say(`\n${unit.model}: training`);
      await answerOf([...unit.train, '--out', model, ...(existsSync(`${model}.checkpoint`) ? ['--resume'] : [])], context, run);
    }
    for (const { category, args } of open) {
      context.say(`\n${category}: evaluating`);
      const { categories: [result] } = await answerOf([...args, '--model', model], context, run) as { categories: CategoryEvaluation[] };
      results[category] = result!;
      await writeFileAtomic(file, `${JSON.stringify({ settings, results } satisfies Kept, null, 2)}\n`);
    }
  }

  const rows = categories.map(({ name }) => [name, results[name]!] as const);
  const known = datasets.length === 1 ? datasets[0]!.known : undefined;
  const summaries = datasets.map(({ title, known: own, categories: members }) => {
    const part = rows.filter(([name]) => datasets.length === 1 || members.some((member) => name === member.name || name.endsWith(`/${member.name}`)));
    return { dataset: own?.name, title, isWhole: own?.categories === part.length, mean: averageMetrics(part.map(([, result]) => result)), published: publishedFor(own?.name, setting, trainArgs.includes('--plus')) };
  });
  context.say(`\n${metricsTable(rows, setting)}\n`);
  context.say(metricsTable(summaries.flatMap(({ dataset: name, mean, published }) => [
    [`${name ?? 'mean'}: this run`, mean] as const,
    ...(published ? [[`${name}: published`, published] as const] : []),
  ]), setting));
  context.say();
  for (const { title, published, isWhole } of summaries) {
    if (!published) context.say(`There is no published row for this data set (${title}) and ${setting}.`);
    else if (!isWhole || limit !== undefined || limitPerClass !== undefined) context.say('The published row is over the whole data set; this run is over a part of it.');
  }
  if (summaries.some(({ published }) => published)) context.say(`Published: ViT-B with registers, 448 cropped to 392, 200 epochs. This run: ${encoder}, ${resize} cropped to ${crop}, ${steps === undefined ? `${epochs} epochs` : `${steps} steps`}${trainArgs.length > 0 ? `, ${trainArgs.join(' ')}` : ''}.`);
  context.field('Results', file);
  context.result({ command: 'benchmark', setting, dataset: known?.name ?? null, results: rows.map(([, result]) => result), summaries, settings, file });
  return 0;
}

/** What a setting trains, and what it tests with which model. @param categories each with the folder of its data set */
export function protocolUnits(options: Omit<BenchmarkCommandOptions, 'out'>, categories: readonly { readonly name: string; readonly folder: string }[], trainArgs: readonly string[] = []): Unit[] {
  const { dataset, setting, trainOn, encoder, resize, crop, batchSize, epochs, steps, limit, limitPerClass, seed, adapter } = options;
  const data = (folders: readonly string[]): string[] => folders.flatMap((folder) => ['--data', folder]);
  // Published protocols train on all normal images. A tile is resized to the crop.
  const train = [
    '--encoder', encoder, ...(trainArgs.some((arg) => /^--tile(=|$)/.test(arg)) ? [] : ['--resize', String(resize)]), '--crop', String(crop), '--batch-size', String(batchSize), '--seed', String(seed), '--adapter', adapter, '--no-hold-out',
    ...(steps === undefined ? ['--epochs', String(epochs)] : ['--steps', String(steps)]), ...(limit === undefined ? [] : ['--limit', String(limit)]), ...trainArgs,
  ];
  // Two data sets may have categories of one name; each is asked for in its own.
  const own = (name: string): string => name.split('/').at(-1)!;
  const evaluate = ({ name, folder }: (typeof categories)[number], more: readonly string[] = []) => ({
    category: name,
    args: ['evaluate', ...data([folder]), '--categories', own(name), '--adapter', adapter, ...(limitPerClass === undefined ? [] : ['--limit-per-class', String(limitPerClass)]), ...more],
  });
  const only = options.categories ? ['--categories', options.categories.map(own).join(',')] : [];
  switch (setting) {
    case 'single':
      return categories.map((category) => ({ model: modelFileName(category.name), train: ['train', ...data([category.folder]), '--categories', own(category.name), ...train], evaluations: [evaluate(category)] }));
    case 'zero':
      if (trainOn) return [{ model: 'zero.safetensors', train: ['train', ...data(trainOn), ...train], evaluations: categories.map((category) => evaluate(category, ['--zero-shot'])) }];
      if (categories.length < 2) throw new UsageError('--setting zero trains on other categories than it tests: the data set has just one here, so name another data set with --train-on.');
      return categories.map((category) => ({
        model: `without-${modelFileName(category.name)}`,
        train: ['train', ...data(dataset), '--categories', categories.filter((other) => other !== category).map(({ name }) => own(name)).join(','), ...train],
        evaluations: [evaluate(category, ['--zero-shot'])],
      }));
    default: {
      const shots = /^few-([1-9]\d*)$/.exec(setting)?.[1];
      return [{ model: `${setting}.safetensors`, train: ['train', ...data(dataset), ...only, ...train, ...(shots === undefined ? [] : ['--shots', shots])], evaluations: categories.map((category) => evaluate(category)) }];
    }
  }
}

/** Runs a command with --json; what it says goes to where ours goes. @throws what it failed with */
async function answerOf(argv: readonly string[], context: CommandContext, run: RunCommand): Promise<unknown> {
  let answer = '';
  const code = await run([...argv, '--json'], { stdout: { write: (text) => { answer += text; } }, stderr: context.stderr, signal: context.signal });
  const last = answer.trimEnd().split('\n').at(-1);
  const parsed = last ? JSON.parse(last) as { error?: { message?: string; code?: string } } : undefined;
  if (code === 0 && parsed) return parsed;
  if (parsed?.error?.code === 'aborted') throw new AbortedError('Stopped; the same command goes on from here.');
  const message = `inp-former ${argv.join(' ')}\nended with code ${code}: ${parsed?.error?.message ?? 'no answer'}`;
  throw code === 2 ? new UsageError(message) : new InputError(message);
}

async function readKept(file: string, settings: Record<string, unknown>): Promise<Kept> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined;
    throw fileError(file, cause, 'read');
  });
  if (text === undefined) return { settings, results: {} };
  let kept: Kept;
  try {
    kept = JSON.parse(text) as Kept;
  } catch (cause) {
    throw new InputError(`${file}: the results of an earlier run can't be read (${(cause as Error).message}). Delete the file, or take another --out.`, { file, cause });
  }
  const differing = Object.keys(settings).filter((key) => JSON.stringify(settings[key]) !== JSON.stringify(kept.settings?.[key]));
  if (differing.length > 0 || typeof kept.results !== 'object') {
    throw new UsageError(`${file}: an earlier run had other settings (${differing.map((key) => `${key}: ${JSON.stringify(kept.settings?.[key])}, now ${JSON.stringify(settings[key])}`).join('; ')}). Take another --out, or the same settings to go on.`);
  }
  for (const [name, result] of Object.entries(kept.results)) {
    if (METRIC_NAMES.some(([key]) => !(key in result))) throw new InputError(`${file}: the result of ${name} is incomplete. Delete the file, or take another --out.`, { file });
  }
  return kept;
}
