/**
 * The command line `inp-former`: arguments, help and exit codes. What a command needs (the engine, image decoding) is
 * loaded when it runs, so that help is instant and needs nothing installed. Exit codes: 0 done, 1 failed, 2 wrong usage.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { Size } from '../data/preprocess.ts';
import { AbortedError, InpFormerError, UsageError } from '../errors.ts';
import { version } from '../version.ts';
import { DEFAULT_ENCODER } from '../weights/catalog.ts';
import { adapterChoices } from './adapter.ts';
import { CommandContext, errorRecord, type CliIo, type CommonOptions } from './commands/context.ts';

export type { CliIo } from './commands/context.ts';

const DONE = 0;
const FAILED = 1;
const WRONG_USAGE = 2;

/**
 * Runs one command.
 * @param argv the arguments after the program's name
 * @returns the exit code; never throws, never exits
 */
export async function runCli(argv: readonly string[], io: CliIo): Promise<number> {
  const context = new CommandContext(io, argv.includes('--json'));
  const fail = (error: unknown, code: number): number => {
    context.result(errorRecord(error));
    return code;
  };
  let exitCode = DONE;
  const program = createProgram(io, async (run) => {
    exitCode = await run(context);
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version are asked for and end with 0; commander has written its own text for all others.
      return error.exitCode === 0 ? DONE : fail(new UsageError(error.message), WRONG_USAGE);
    }
    if (error instanceof AbortedError || (error instanceof Error && error.name === 'AbortError')) {
      io.stderr.write('Stopped.\n');
      return fail(error instanceof AbortedError ? error : new AbortedError('Stopped.'), FAILED);
    }
    if (error instanceof InpFormerError) io.stderr.write(`Error: ${error.message}\n`);
    else io.stderr.write(`Unexpected error, probably a fault in inp-former itself: ${error instanceof Error ? error.stack : String(error)}\n`);
    return fail(error, error instanceof UsageError ? WRONG_USAGE : FAILED);
  }
}

/** The process's own entry: Ctrl-C (or SIGTERM) stops cleanly and keeps what is done, a second one ends at once. */
export async function main(): Promise<void> {
  const controller = new AbortController();
  let signals = 0;
  const onSignal = () => {
    signals++;
    if (signals > 1) process.exit(130);
    process.stderr.write('\nStopping; once more ends at once.\n');
    controller.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // A reader that goes away (`| head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
  process.exitCode = await runCli(process.argv.slice(2), { stdout: process.stdout, stderr: process.stderr, signal: controller.signal });
  process.off('SIGINT', onSignal);
  process.off('SIGTERM', onSignal);
}

type Execute = (run: (context: CommandContext) => Promise<number>) => Promise<void>;

function createProgram(io: CliIo, execute: Execute): Command {
  const program = new Command('inp-former')
    .description('Train INP-Former on images of normal things, then find what is wrong in others. Runs on WebGPU.')
    .version(version)
    .configureOutput({ writeOut: (text) => io.stdout.write(text), writeErr: (text) => io.stderr.write(text) })
    .showHelpAfterError('(inp-former --help lists all options.)')
    .exitOverride()
    .addHelpText('after', `
Exit codes: 0 done, 1 failed (or an image could not be read), 2 wrong usage.
With --json the last line of stdout is one JSON object, and everything else goes to stderr.

Example:
  inp-former train --data images/normal --out model.safetensors
  inp-former inspect --model model.safetensors images/new/*.png --out heatmaps`);

  const command = (name: string, description: string) =>
    program.command(name).description(description).option('--json', 'end with one JSON object on stdout');
  const adapterOption = () => new Option('--adapter <name>', 'what computes').choices(adapterChoices).default('auto');
  const modelOption = ['--model <file>', 'model file that `train` wrote'] as const;
  const encoderOfModel = ['--encoder <name|path>', 'the encoder that the model was trained with, if it is not found by itself'] as const;
  const zeroShotOption = ['--zero-shot', 'compare each image with its own prototypes alone, for things that the model was not trained on; no verdict without --threshold'] as const;
  const precisionOption = () => new Option('--precision <name>', 'how weights are stored on the GPU; f16 halves their memory, where the adapter has it').choices(['f32', 'f16']).default('f32');
  const tileOption = ['--tile', 'inspect in overlapping tiles at the scale that the model was trained at; on by itself for a model trained with --tile'] as const;
  const overlapOption = () => new Option('--tile-overlap <share>', 'share of its side that a tile has in common with the next, 0 to 0.75 (default: 0.25)').argParser(finiteNumber);
  const batchOption = () => new Option('--batch-size <n>', 'images at a time').argParser(positiveInteger).default(8);

  const settingsOptions = (of: Command): Command => of
    .option('--prototypes <n>', 'on-site prototypes of an image; `inspect --prototypes` shows them', positiveInteger, 6)
    .addOption(new Option('--decoder <name>', 'what the decoder attends to; all but the first are for comparison').choices(['prototypes', 'self-attention', 'neighbour-masked']).default('prototypes'))
    .option('--neighbourhood <n>', 'with --decoder neighbour-masked: side of the masked square, tokens, odd', positiveInteger, 7)
    .option('--residual', 'keep the residual around the decoder\'s attention')
    .addOption(new Option('--coherence <name>', 'coherence loss: to the nearest prototype, to the soft mixture of all, or none').choices(['min', 'soft', 'none']).default('min'))
    .option('--no-mining', 'weight the gradient of all tokens alike');

  const dataOption = (what: string) => new Option('--data <dir>', `${what}; repeat it for several`).argParser(collect).makeOptionMandatory();
  const categoriesOption = () => new Option('--categories <names>', 'only these categories of the data sets, separated by commas').argParser(commaSeparated);

  settingsOptions(command('train', 'train on normal images: a folder of them, a category or a whole data set')
    .addOption(dataOption('folder of normal images, or a data set (layouts: docs/data.md)'))
    .requiredOption('--out <file>', 'model file to write; a stopped run leaves <file>.checkpoint. With --setting single the folder for the models')
    .addOption(new Option('--setting <name>', 'multi: one model of all categories, each with a threshold of its own; single: a model for each').choices(['multi', 'single']).default('multi'))
    .addOption(categoriesOption())
    .option('--encoder <name|path>', 'frozen encoder: a name (`inp-former plan --help` lists them) or a .safetensors file', DEFAULT_ENCODER)
    .option('--resize <size>', 'images are resized to this square, or WIDTHxHEIGHT (default: 8/7 of the crop, 448; with --keep-aspect and --tile the crop)', imageSize)
    .option('--crop <size>', 'and their centre of this size is used; multiples of the patch size 14 (default: 392)', imageSize)
    .option('--keep-aspect', 'resize without distortion: --crop then says how many pixels (its square), the images what shape')
    .option('--tile [size]', 'train on tiles of this many source pixels (default: of the crop), for large images with small defects', imageSize)
    .option('--tiles-per-image <n>', 'train on n tiles of each image, drawn by the seed, instead of all', positiveInteger)
    .addOption(new Option('--steps <n>', 'optimiser steps').argParser(positiveInteger).conflicts('epochs'))
    .addOption(new Option('--epochs <n>', 'passes through the images, in place of --steps').argParser(positiveInteger))
    .option('--warmup <n>', 'steps until the learning rate is full', nonNegativeInteger)
    .option('--batch-size <n>', 'images a step', positiveInteger, 16)
    .option('--limit <n>', 'train on the first n images of each category, in name order; the threshold then comes from the others', positiveInteger)
    .option('--no-hold-out', 'train on all images, as published protocols do; the threshold then comes from them too, with a wider margin')
    .option('--seed <n>', 'same seed, same model, bit for bit', nonNegativeInteger, 1)
    .option('--resume', 'go on from <file>.checkpoint; with --setting single, also leave models that are there as they are')
    .option('--tune', 'first measure which kernels are fastest here, and keep it: done by default on GPUs (--no-tune), not on software adapters')
    .addOption(new Option('--no-tune').hideHelp())
    .option('--skip-unreadable', 'leave out images that cannot be read, instead of stopping')
    .option('--plus', 'INP-Former++: its losses, and a segmentation head trained on made-up defects')
    .option('--textures <dir>', 'with --plus: images that defects are made of, in place of procedural ones and the images themselves')
    .option('--defects <dir>', 'with --plus: a few real defects with masks, which train the head too')
    .option('--defect-limit <n>', 'the first n of them, kinds of defect taking turns', positiveInteger)
    .addOption(new Option('--head-steps <n>', 'with --plus: optimiser steps of the head').argParser(positiveInteger).conflicts('headEpochs'))
    .addOption(new Option('--head-epochs <n>', 'with --plus: passes through the made-up defects, in place of --head-steps').argParser(positiveInteger))
    .addOption(new Option('--pseudo-anomalies <n|fresh>', 'with --plus: how many images with made-up defects are encoded for the head, or new ones for each step').argParser(countOrFresh))
    .option('--no-head', 'with --plus: the losses alone')
    .option('--from <model>', 'with --plus: give this trained model a head, or train its head on; nothing else of it changes')
    .addOption(new Option('--shots <n>', 'few-shot: n images of each category, drawn by --seed, in 22 views each').argParser(positiveInteger).conflicts('limit'))
    .addOption(new Option('--method <name>', 'memory: no training, distances to the stored features of the images').choices(['reconstruction', 'memory']).default('reconstruction'))
    .option('--memory-rows <n>', 'with --method memory: keep a random n of the images\' tokens', positiveInteger))
    .addOption(adapterOption())
    .addHelpText('after', '\nFew-shot training, the memory and the options for comparison are explained in docs/settings.md.')
    .action((options) => execute(async (context) => (await import('./commands/train.ts')).train(options, context)));

  command('pseudo', 'write made-up defects, as `train --plus` trains on, to look at; needs no GPU')
    .requiredOption('--data <dir>', 'folder of normal images')
    .requiredOption('--out <dir>', 'folder for <n>_image.png, <n>_mask.png and <n>_side_by_side.png')
    .option('--count <n>', 'how many', positiveInteger, 16)
    .option('--resize <pixels>', 'images are resized to this square', positiveInteger, 448)
    .option('--crop <pixels>', 'and their centre of this size is used', positiveInteger, 392)
    .option('--textures <dir>', 'images that defects are made of, in place of procedural ones and the images themselves')
    .option('--defects <dir>', 'real defects with masks, to be pasted')
    .option('--defect-limit <n>', 'the first n of them, kinds of defect taking turns', positiveInteger)
    .option('--seed <n>', 'same seed, same samples', nonNegativeInteger, 1)
    .action((options) => execute(async (context) => (await import('./commands/pseudo.ts')).pseudo(options, context)));

  command('inspect', 'score images and write heat-map overlays')
    .argument('<images...>', 'image files, or folders of them')
    .requiredOption(...modelOption)
    .option('--out <dir>', 'folder for the heat maps', 'heatmaps')
    .option('--threshold <t>', 'score above which an image is defective, in place of the calibrated one', finiteNumber)
    .addOption(new Option('--category <name>', 'what the images show: its threshold and heat scale, of a model that knows several categories').conflicts('zeroShot'))
    .option(...zeroShotOption)
    .option(...tileOption)
    .addOption(overlapOption())
    .option('--prototypes', 'also write what the model compared each image with: NAME.prototypes.png and prototypes.html')
    .addOption(new Option('--compare <file>', 'show the prototypes of this model beside those of --model; repeatable').argParser((file: string, others: string[] = []) => [...others, file]))
    .option(...encoderOfModel)
    .addOption(batchOption())
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addHelpText('after', '\nAn image that cannot be read is reported and skipped; the exit code is then 1, with the results of the others in place.\nA defective image is a result, not a failure: it does not change the exit code.')
    .action((images, options) => execute(async (context) => (await import('./commands/inspect.ts')).inspect(images, options, context)));

  command('evaluate', 'measure a model on a category or a data set: the metrics of the papers, and how its threshold does')
    .requiredOption('--model <file>', 'model file that `train` wrote, or the folder of models that `train --setting single` wrote')
    .addOption(dataOption('category or data set with test images (layouts: docs/data.md)'))
    .addOption(categoriesOption())
    .option('--csv <file>', 'write the numbers of each category, and their mean, as CSV')
    .option('--html <file>', 'write a report: metrics, score histograms, ROC and precision-recall curves, the worst mistakes')
    .option('--limit-per-class <n>', 'only the first n images, in name order, of each kind (good, each defect)', positiveInteger)
    .option('--threshold <t>', 'judge this threshold in place of the calibrated one', finiteNumber)
    .option(...zeroShotOption)
    .option(...tileOption)
    .addOption(overlapOption())
    .option('--skip-unreadable', 'leave out images that cannot be read, instead of stopping')
    .option(...encoderOfModel)
    .addOption(batchOption())
    .addOption(precisionOption())
    .addOption(adapterOption())
    .action((options) => execute(async (context) => (await import('./commands/evaluate.ts')).evaluate(options, context)));

  command('ablate', 'train variants of the detector on a data set with tests, and show what each part is worth there')
    .requiredOption('--data <dir>', 'category or data set with test images (layouts: docs/data.md)')
    .option('--out <dir>', 'folder for ablation.json, ablation.csv and the models', 'ablation')
    .option('--variants <names>', 'which, separated by commas: all by default (docs/settings.md lists them)')
    .option('--encoder <name|path>', 'frozen encoder', DEFAULT_ENCODER)
    .option('--resize <pixels>', 'images are resized to this square', positiveInteger, 448)
    .option('--crop <pixels>', 'and their centre of this size is used; a multiple of the patch size 14', positiveInteger, 392)
    .option('--steps <n>', 'optimiser steps of each variant', positiveInteger, 200)
    .option('--warmup <n>', 'steps until the learning rate is full', nonNegativeInteger)
    .option('--batch-size <n>', 'images a step', positiveInteger, 16)
    .option('--limit <n>', 'train on the first n images in name order', positiveInteger)
    .option('--limit-per-class <n>', 'only the first n images, in name order, of each test folder', positiveInteger)
    .option('--seed <n>', 'the same for all variants', nonNegativeInteger, 1)
    .addOption(adapterOption())
    .action((options) => execute(async (context) => (await import('./commands/ablate.ts')).ablate(options, context)));

  command('benchmark', 'run a published protocol on a data set and print the result beside the paper\'s')
    .argument('[train-options...]', 'after --: further options for `train`, e.g. -- --plus')
    .addOption(new Option('--dataset <dir>', 'root of the data set; repeat it for super-multi').argParser(collect).makeOptionMandatory())
    .addOption(new Option('--setting <name>', 'multi, single, super-multi, few-1, few-2, few-4, or zero').argParser(protocolSetting).makeOptionMandatory())
    .requiredOption('--out <dir>', 'folder for models and results; the same command goes on from what is there')
    .addOption(new Option('--train-on <dir>', 'zero: train on this data set instead of on the other categories; repeat it for several').argParser(collect))
    .addOption(categoriesOption())
    .option('--encoder <name|path>', 'frozen encoder', 'dinov2-base-with-registers')
    .option('--resize <pixels>', 'images are resized to this square', positiveInteger, 448)
    .option('--crop <pixels>', 'and their centre of this size is used', positiveInteger, 392)
    .option('--batch-size <n>', 'images a training step', positiveInteger, 16)
    .option('--epochs <n>', 'passes through the training images', positiveInteger, 200)
    .option('--steps <n>', 'optimiser steps, in place of --epochs', positiveInteger)
    .option('--limit <n>', 'train on the first n images of each category', positiveInteger)
    .option('--limit-per-class <n>', 'test on the first n images of each kind', positiveInteger)
    .option('--seed <n>', 'seed of the training', nonNegativeInteger, 1)
    .addOption(adapterOption())
    .addHelpText('after', '\nThe defaults are the papers\': hours on a GPU. Without one, take --encoder tiny, a smaller --resize and --crop, and --steps.')
    .action((trainOptions, options) => execute(async (context) => (await import('./commands/benchmark.ts')).benchmark(trainOptions, options, context, runCli)));

  command('export', 'write a model, with its encoder and the scoring, as one file for other runtimes; needs no GPU')
    .requiredOption(...modelOption)
    .requiredOption('--out <file>', 'file to write')
    .addOption(new Option('--format <name>', 'what to write').choices(['onnx']).default('onnx'))
    .option('--batch-size <n>', 'fix the number of images a run, for runtimes that need it; it is open otherwise', positiveInteger)
    .option(...encoderOfModel)
    .action((options) => execute(async (context) => (await import('./commands/export.ts')).exportModel(options, context)));

  command('plan', 'what a run would cost: kernels, operations, memory; needs no GPU')
    .option('--encoder <name|path>', 'encoder: tiny, dinov2-small, -base, -large, each also -with-registers, or a file', DEFAULT_ENCODER)
    .option('--crop <size>', 'side of the images, or WIDTHxHEIGHT', imageSize, 392)
    .option('--batch-size <n>', 'images at a time', positiveInteger, 1)
    .option('--train', 'a training step instead of an inspection')
    .addOption(adapterOption().hideHelp())
    .action((options) => execute(async (context) => (await import('./commands/plan.ts')).plan(options, context)));

  command('serve', 'the inspection page, in this machine\'s browser: teach, inspect, live camera')
    .option('--port <n>', 'where; 0 for any free one', nonNegativeInteger, 8420)
    .option('--host <name>', 'on which of the machine\'s addresses', '127.0.0.1')
    .addHelpText('after', '\nThe page runs in the browser alone: pictures and models stay there. Built by `npm run app:build`; the published package has it.')
    .action((options) => execute(async (context) => (await import('./commands/serve.ts')).serve(options, context)));

  command('info', 'the adapter, its limits and what speed to expect; what to do where there is none')
    .addOption(adapterOption())
    .action((options: CommonOptions) => execute(async (context) => (await import('./commands/info.ts')).info(options, context)));

  return program;
}

function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...previous ?? [], value];
}

function protocolSetting(text: string): string {
  if (!/^(multi|single|super-multi|zero|few-[1-9]\d{0,2})$/.test(text)) throw new InvalidArgumentError('It must be multi, single, super-multi, zero or few-<shots>, e.g. few-4.');
  return text;
}

function commaSeparated(text: string): string[] {
  const names = text.split(',').map((name) => name.trim()).filter((name) => name !== '');
  if (names.length === 0) throw new InvalidArgumentError('It must be names, separated by commas.');
  return names;
}

function positiveInteger(text: string): number {
  const value = nonNegativeInteger(text);
  if (value === 0) throw new InvalidArgumentError('It must be at least 1.');
  return value;
}

function nonNegativeInteger(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

function countOrFresh(text: string): number | 'fresh' {
  return text === 'fresh' ? text : positiveInteger(text);
}

/** A square's side, or WIDTHxHEIGHT. */
function imageSize(text: string): Size {
  if (/^\d+$/.test(text)) return positiveInteger(text);
  const sides = text.split(/[xX]/);
  if (sides.length !== 2) throw new InvalidArgumentError('It must be a whole number, or two as WIDTHxHEIGHT, e.g. 602x252.');
  const [width, height] = sides.map(positiveInteger) as [number, number];
  return { width, height };
}

function finiteNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number.');
  return value;
}
