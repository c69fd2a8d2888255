/**
 * `npm run bench`: runs suites in Chrome or Node and writes what came out as a table, JSON and a page; or compares two
 * results files, or makes the README's tables of one. Exit codes: 0 done, 1 a target missed, a regression or a failure,
 * 2 wrong usage.
 */
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { InputError, UsageError } from '../src/errors.ts';
import type { AdapterReport } from '../src/gpu/context.ts';
import { readFileChecked, writeFileAtomic } from '../src/node/files.ts';
import { changesTable, heading, performanceTables, resultsTable, targetsTable } from './report/text.ts';
import { resultsPage } from './report/html.ts';
import { compare, isRegression } from './compare.ts';
import { figures } from './figures.ts';
import { errorText, type LeftOut, type Measurement, type Suite } from './measurement.ts';
import { mergeSamples, packageOf, parseResults, reusable, type Results } from './results.ts';
import type { Session, SessionOptions } from './runtimes/session.ts';
import type { Settings } from './suites/bench.ts';
import { judgedTraining, modelCases, suiteModels } from './suites/models.ts';
import type { Peaks } from './suites/peaks.ts';
import { isMissed, judge } from './targets.ts';

export interface Output {
  /** For results. */
  out(text: string): void;
  /** For progress and errors. */
  err(text: string): void;
}

interface Options {
  readonly runtime: 'chrome' | 'node';
  readonly adapter: SessionOptions['adapter'];
  readonly suite: Exclude<Suite, 'peaks'> | 'all';
  readonly quick?: boolean;
  readonly json?: string;
  readonly html?: string;
  readonly encoderDir?: string;
  readonly reusePeers?: string;
  readonly runLimit: number;
  readonly peerTimeout: number;
  readonly compare?: boolean;
  readonly threshold: number;
  readonly table?: string;
}

const coldStarts = 3;

/** @param root the project's folder @returns the exit code; never throws */
export async function main(argv: readonly string[], root: string, output: Output): Promise<number> {
  const program = createProgram(output);
  try {
    program.parse([...argv], { from: 'user' });
    const options = program.opts<Options>();
    if (options.compare) return await compareFiles(program.args, options.threshold, output);
    if (program.args.length > 0) throw new UsageError(`${program.args[0]} is not an option; files are given to --compare, --json, --html and --table.`);
    if (options.table !== undefined) {
      output.out(performanceTables(await readResults(options.table)).trimEnd());
      return 0;
    }
    if (options.runtime === 'chrome' && options.adapter === 'lavapipe') throw new UsageError('Chrome brings SwiftShader and does not use lavapipe: add --runtime node.');
    return await runSuites(options, root, output);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    output.err(`Error: ${errorText(error)}`);
    return error instanceof UsageError ? 2 : 1;
  }
}

function createProgram(output: Output): Command {
  const positive = (text: string): number => {
    const value = Number(text);
    if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('It must be a number above 0.');
    return value;
  };
  return new Command('npm run bench --')
    .description('Measures this engine: its kernels, inspection, training, and against other WebGPU runtimes.')
    .argument('[files...]', 'with --compare: two results files')
    .addOption(new Option('--runtime <name>', 'where to run').choices(['chrome', 'node']).default('chrome'))
    .addOption(new Option('--adapter <name>', 'what computes; auto is a GPU where there is one').choices(['auto', 'gpu', 'swiftshader', 'lavapipe']).default('auto'))
    .addOption(new Option('--suite <name>', 'what to measure').choices(['kernels', 'model', 'train', 'peers', 'all']).default('all'))
    .option('--quick', 'the smallest model, few samples, no tuning: whether it works, not how fast it is')
    .option('--json <file>', 'write all samples')
    .option('--html <file>', 'write a page with charts')
    .option('--encoder-dir <folder>', 'folder of dinov2-small.safetensors and others; random weights of the same shapes otherwise, which take the same time')
    .option('--run-limit <seconds>', 'leave out what takes longer for one run, by estimate', positive, 20)
    .option('--peer-timeout <seconds>', 'end a run of a peer that takes longer', positive, 300)
    .option('--reuse-peers <file>', 'take the peers\' slow runs (3 s and more) over from an earlier results file, where adapter and versions are the same')
    .option('--compare', 'compare two results files and exit 1 on a regression')
    .option('--threshold <share>', 'with --compare: slower by this share is a regression', positive, 0.1)
    .option('--table <file>', 'print the README\'s tables of a results file')
    .configureOutput({ writeOut: (text) => output.out(text.trimEnd()), writeErr: (text) => output.err(text.trimEnd()) })
    .exitOverride();
}

async function readResults(file: string): Promise<Results> {
  return parseResults(new TextDecoder().decode(await readFileChecked(file)), file);
}

async function compareFiles(files: readonly string[], threshold: number, output: Output): Promise<number> {
  if (files.length !== 2) throw new UsageError(`--compare takes two results files, got ${files.length}.`);
  const changes = compare(await readResults(files[0]!), await readResults(files[1]!), threshold);
  output.out(changesTable(changes));
  const regressions = changes.filter(isRegression).length;
  output.out(`${changes.length} compared, ${regressions} slower by more than ${(threshold * 100).toFixed(0)} % or failed`);
  return regressions > 0 ? 1 : 0;
}

async function runSuites(options: Options, root: string, output: Output): Promise<number> {
  for (const file of [options.json, options.html]) {
    if (file !== undefined && !existsSync(dirname(resolve(file)))) throw new InputError(`${file} can't be written: its folder does not exist; create it first.`, { file });
  }
  const { quick = false, suite } = options;
  const earlier = options.reusePeers === undefined ? undefined : await readResults(options.reusePeers);
  const measurements: Measurement[] = [];
  const leftOut: LeftOut[] = [];
  const sessionOptions: SessionOptions = {
    root, adapter: options.adapter, encoderFolder: options.encoderDir && resolve(options.encoderDir),
    onEvent(event) {
      if (event.kind === 'log') output.err(`  ${event.text}`);
      else if (event.kind === 'leftOut') leftOut.push(event.leftOut);
      else measurements.push(event.measurement);
    },
  };
  const open = async (): Promise<Session> => options.runtime === 'node'
    ? (await import('./runtimes/node.ts')).openNodeSession(sessionOptions)
    : (await import('./runtimes/chrome.ts')).openChromeSession(sessionOptions);

  const session = await open();
  let adapter: AdapterReport;
  let peaks: Peaks;
  const failed: string[] = [];
  const attempt = async (what: string, body: () => Promise<unknown>): Promise<void> => {
    output.err(`${what}…`);
    try {
      await body();
    } catch (error) {
      failed.push(`${what}: ${errorText(error)}`);
    }
  };
  const packages = packageVersions(root);
  const base = { runtime: options.runtime, runtimeVersion: session.version, packages };
  const wanted = (name: Suite): boolean => suite === 'all' || suite === name;
  try {
    adapter = await session.run({ name: 'identify' }) as AdapterReport;
    output.err(`${adapter.name}, ${session.version}`);
    const reused = earlier ? reusable(earlier, { ...base, adapter }) : [];
    if (earlier && reused.length === 0) output.err(`Nothing of ${options.reusePeers} can be taken over: it is of another adapter, runtime or version.`);
    const settings: Settings = {
      sampling: quick ? { minimumSamples: 2, maximumSamples: 2, seconds: 0 } : { minimumSamples: 3, maximumSamples: 15, seconds: 1.5 },
      quick, models: modelCases.slice(0, 1), runLimit: options.runLimit, peerTimeout: options.peerTimeout, reused: wanted('peers') ? reused.map(({ id }) => id) : [],
    };
    output.err('Peaks…');
    peaks = await session.run({ name: 'peaks', settings }) as Peaks;
    for (const name of ['kernels', 'model', 'train', 'peers'] as const) {
      if (wanted(name)) await attempt(`Suite ${name}`, () => session.run({ name: 'suite', suite: name, settings: quick ? settings : { ...settings, models: suiteModels[name] }, peaks }));
    }
    // The targets want one training step, whatever the suite.
    if (suite === 'peers') await attempt('Training step', () => session.run({ name: 'suite', suite: 'train', settings: quick ? settings : { ...settings, models: [judgedTraining] }, peaks }));
    // Only of races that were run: a quick run has fewer.
    const raced = new Set(measurements.map(({ id }) => raceOf(id)));
    if (wanted('peers')) measurements.push(...reused.filter(({ id }) => raceOf(id) === 'peers/cold-start' || raced.has(raceOf(id))));
  } finally {
    await session.close();
  }
  if (wanted('model') || wanted('peers')) {
    const reusedIds = new Set(measurements.map(({ id }) => id));
    await attempt('Cold starts', async () => {
      for (let n = 0; n < (quick ? 1 : coldStarts); n++) {
        await inFreshSession(open, (fresh) => fresh.run({ name: 'coldStart' }));
        if (!wanted('peers') || options.runtime !== 'chrome' || n > 0) continue;
        const peer = 'onnxruntime-web WebGPU';
        if (!reusedIds.has('peers/cold-start/onnxruntime-web-webgpu/total')) await inFreshSession(open, (fresh) => fresh.run({ name: 'peerColdStart', peer }));
      }
    });
  }

  const results: Results = {
    format: 1, date: new Date().toISOString(), suite, quick, ...base, adapter, peaks, leftOut,
    machine: { platform: `${process.platform} ${process.arch}`, processor: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism() },
    figures: await figures(root), measurements: mergeSamples(measurements),
  };
  const targets = judge(results);
  output.out(heading(results));
  output.out(`\n${resultsTable(results)}`);
  if (options.json !== undefined) await writeFileAtomic(options.json, `${JSON.stringify(results)}\n`);
  if (options.html !== undefined) {
    const library = readFileSync(join(root, 'bench/node_modules/chart.js/dist/chart.umd.js'), 'utf8');
    await writeFileAtomic(options.html, resultsPage(results, targets, library));
  }
  // Untuned and on few samples, the targets say nothing.
  const judged = wanted('peers') && !quick;
  if (judged) output.out(`\nTargets\n${targetsTable(targets)}`);
  for (const text of failed) output.err(`Failed: ${text}`);
  const ownFailures = results.measurements.filter(({ contender, failure }) => contender.startsWith('ours') && failure !== undefined);
  for (const { id, failure } of ownFailures) output.err(`Failed: ${id}: ${failure}`);
  const missed = judged ? targets.filter(isMissed).length : 0;
  if (judged) output.out(`${targets.filter(({ verdict }) => verdict === 'met').length} targets met, ${missed} missed`);
  return missed > 0 || failed.length > 0 || ownFailures.length > 0 ? 1 : 0;
}

/** `peers/decoder-block` of `peers/decoder-block/jax-js`. */
const raceOf = (id: string): string => id.split('/').slice(0, 2).join('/');

async function inFreshSession(open: () => Promise<Session>, body: (session: Session) => Promise<unknown>): Promise<void> {
  const session = await open();
  try {
    await body(session);
  } finally {
    await session.close();
  }
}

function packageVersions(root: string): Record<string, string> {
  const version = (path: string): string => (JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8')) as { version: string }).version;
  return {
    'inp-former-webgpu': version('.'), webgpu: version('node_modules/webgpu'),
    ...Object.fromEntries([...new Set(Object.values(packageOf))].map((name) => [name, version(`bench/node_modules/${name}`)])),
  };
}
