// The command line's contract: exit codes, what goes to stdout and what to stderr, suggestions, and error texts. Nothing
// here reaches the engine.
import { readFileSync } from 'node:fs';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli } from '../../src/node/cli.ts';
import { byteSize, duration, table, withPrefix } from '../../src/node/commands/context.ts';
import { documentedCommands } from '../support/documented-commands.ts';

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await runCli(argv, {
    stdout: { write: (text) => { stdout += text; } },
    stderr: { write: (text) => { stderr += text; } },
  });
  return { code, stdout, stderr };
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('help', () => {
  it('lists the commands, on stdout, with exit code 0', async () => {
    const { code, stdout, stderr } = await run('--help');
    expect(code).toBe(0);
    expect(stderr).toBe('');
    for (const command of ['train', 'inspect', 'evaluate', 'benchmark', 'ablate', 'export', 'plan', 'info', 'Exit codes: 0 done, 1 failed', '--json']) expect(stdout).toContain(command);
  });

  it('of each command names its options', async () => {
    const options: Record<string, string[]> = {
      train: ['--data', '--out', '--encoder', '--resize', '--crop', '--keep-aspect', '--tile', '--tiles-per-image', '--steps', '--epochs', '--warmup', '--batch-size', '--limit', '--seed', '--resume', '--tune', '--skip-unreadable', '--adapter', '--json',
        '--plus', '--textures', '--defects', '--defect-limit', '--head-steps', '--head-epochs', '--pseudo-anomalies', '--no-head', '--from',
        '--setting', '--categories', '--no-hold-out', '--shots', '--method', '--memory-rows', '--prototypes', '--decoder', '--neighbourhood', '--residual', '--coherence', '--no-mining'],
      pseudo: ['--data', '--out', '--count', '--resize', '--crop', '--textures', '--defects', '--defect-limit', '--seed', '--json'],
      benchmark: ['--dataset', '--setting', '--out', '--train-on', '--categories', '--encoder', '--resize', '--crop', '--batch-size', '--epochs', '--steps', '--limit', '--limit-per-class', '--seed', '--adapter', '--json', '[train-options...]'],
      ablate: ['--data', '--out', '--variants', '--encoder', '--resize', '--crop', '--steps', '--warmup', '--batch-size', '--limit', '--limit-per-class', '--seed', '--adapter', '--json'],
      inspect: ['--model', '--out', '--threshold', '--category', '--tile', '--tile-overlap', '--prototypes', '--compare', '--zero-shot', '--precision', '--encoder', '--adapter', '--json', '<images...>'],
      evaluate: ['--model', '--data', '--categories', '--csv', '--html', '--tile', '--tile-overlap', '--zero-shot', '--precision', '--limit-per-class', '--encoder', '--skip-unreadable', '--adapter', '--json'],
      export: ['--model', '--out', '--format', '--batch-size', '--encoder', '--json'],
      plan: ['--encoder', '--crop', '--batch-size', '--train', '--json'],
      info: ['--adapter', '--json'],
    };
    for (const [command, names] of Object.entries(options)) {
      const { code, stdout } = await run(command, '--help');
      expect(code).toBe(0);
      for (const name of names) expect(stdout, `${command} ${name}`).toContain(name);
    }
  });

  it('has no option without an example in docs/commands.md, and a place in a program', async () => {
    const { stdout: top } = await run('--help');
    const commands = [...top.slice(top.indexOf('Commands:')).matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!).filter((name) => name !== 'help');
    expect(commands.length).toBeGreaterThan(9);
    const examples = documentedCommands();
    const text = readFileSync('docs/commands.md', 'utf8');
    const missing: string[] = [];
    for (const command of commands) {
      const { stdout } = await run(command, '--help');
      const options = [...stdout.matchAll(/^ +(?:-\w, )?(--[a-z][a-z-]*)/gm)].map(([, name]) => name!).filter((name) => name !== '--help');
      expect(options.length, command).toBeGreaterThan(0);
      const shown = examples.filter(({ argv }) => argv[0] === command).flatMap(({ argv }) => argv);
      missing.push(...options.filter((name) => !shown.includes(name)).map((name) => `${command} ${name}: no example`));
      if (!['train', 'inspect', 'evaluate'].includes(command)) continue;
      // The tables of the command's chapter; what all commands have is above.
      const tables = text.split(/^## /m).find((chapter) => chapter.startsWith(`${command}\n`))!.split('\n').filter((line) => line.startsWith('| `--')).join('\n');
      missing.push(...options.filter((name) => !['--json', '--adapter'].includes(name) && !tables.includes(`\`${name}\``)).map((name) => `${command} ${name}: not in a table`));
    }
    expect(missing).toEqual([]);
  });

  it('prints the version', async () => {
    const { code, stdout } = await run('--version');
    expect([code, /^\d+\.\d+\.\d+\n$/.test(stdout)]).toEqual([0, true]);
  });
});

describe('wrong usage ends with 2, a reason on stderr and nothing on stdout', () => {
  const cases: [string, string[], RegExp][] = [
    ['no command', [], /Usage: inp-former/],
    ['an unknown command', ['trian'], /unknown command 'trian'[^]*Did you mean train/],
    ['a flag of INP-Former++ alone', ['train', '--data', 'x', '--out', 'y', '--textures', 'z'], /--textures belongs to INP-Former\+\+: add --plus/],
    ['no head of what has none', ['train', '--data', 'x', '--out', 'y', '--no-head'], /--no-head belongs to INP-Former\+\+/],
    ['steps for a detector that is there', ['train', '--data', 'x', '--out', 'y', '--plus', '--from', 'z', '--steps', '3'], /--steps is for training the detector/],
    ['a number that is none', ['train', '--data', 'x', '--out', 'y', '--plus', '--pseudo-anomalies', 'stale'], /whole number/],
    ['a limit of nothing', ['pseudo', '--data', 'x', '--out', 'y', '--defect-limit', '3'], /--defect-limit says how many of the --defects are used: give both/],
    ['an unknown option', ['train', '--data', 'x', '--out', 'y', '--epoch', '3'], /unknown option '--epoch'[^]*Did you mean --epochs/],
    ['a missing option', ['train', '--data', 'x'], /required option '--out <file>' not specified/],
    ['a missing value', ['train', '--data', 'x', '--out'], /argument missing/],
    ['not a number', ['train', '--data', 'x', '--out', 'y', '--steps', 'many'], /whole number/],
    ['zero', ['train', '--data', 'x', '--out', 'y', '--batch-size', '0'], /at least 1/],
    ['a fraction', ['evaluate', '--data', 'x', '--model', 'y', '--limit-per-class', '2.5'], /whole number/],
    ['a threshold that is none', ['inspect', '--model', 'y', 'x.png', '--threshold', 'high'], /must be a number/],
    ['both steps and epochs', ['train', '--data', 'x', '--out', 'y', '--steps', '3', '--epochs', '3'], /cannot be used with/],
    ['an unknown adapter', ['info', '--adapter', 'voodoo'], /auto, gpu, swiftshader, lavapipe/],
    ['no images', ['inspect', '--model', 'y'], /missing required argument 'images'/],
    ['too much', ['info', 'please'], /too many arguments/],
  ];
  it.each(cases)('%s', async (_, argv, text) => {
    const { code, stdout, stderr } = await run(...argv);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(text);
  });

  it('with --json the error is the one line on stdout', async () => {
    const { code, stdout, stderr } = await run('train', '--json', '--data', 'x');
    expect(code).toBe(2);
    expect(stdout.trimEnd().split('\n')).toHaveLength(1);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'usage', message: expect.stringContaining('--out') } });
    expect(stderr).toContain('--out');
  });
});

describe('bad input ends with 1 and names the file', () => {
  it('a data folder that is missing, empty, a file, or without images', async () => {
    await mkdir(join(folder, 'empty'));
    await mkdir(join(folder, 'texts'));
    await writeFile(join(folder, 'texts', 'notes.txt'), 'x');
    for (const [data, text] of [['missing', /no such folder/], ['empty', /the folder is empty/], ['texts/notes.txt', /this is a file/], ['texts', /none of its 1 files is an image/]] as const) {
      const path = join(folder, data);
      const { code, stdout, stderr } = await run('train', '--data', path, '--out', join(folder, 'model'), '--json');
      expect(code).toBe(1);
      expect(stderr).toMatch(text);
      expect(JSON.parse(stdout).error).toMatchObject({ file: path });
    }
  });

  it('a place that can not be written, before anything else', async () => {
    await writeFile(join(folder, 'file'), '');
    const intoFile = await run('train', '--data', folder, '--out', join(folder, 'file', 'model'));
    expect([intoFile.code, intoFile.stderr.includes(join(folder, 'file'))]).toEqual([1, true]);
    const ontoFolder = await run('train', '--data', folder, '--out', folder);
    expect(ontoFolder.code).toBe(1);
    expect(ontoFolder.stderr).toMatch(/this is a folder; --out names the model file/);
  });

  it('--resume without a checkpoint', async () => {
    const { code, stderr } = await run('train', '--data', folder, '--out', join(folder, 'm'), '--resume');
    expect(code).toBe(1);
    expect(stderr).toContain(`${join(folder, 'm')}.checkpoint: there is no checkpoint`);
  });

  it('a crop that does not fit is wrong usage', async () => {
    const { code, stderr } = await run('train', '--data', folder, '--out', join(folder, 'm'), '--resize', '224');
    expect(code).toBe(2);
    expect(stderr).toContain('--crop 392 x 392 does not fit into --resize 224 x 224');
  });

  it.each([
    [['--keep-aspect', '--tile'], '--keep-aspect and --tile exclude each other'], [['--tile', '500', '--resize', '448'], '--resize and --tile exclude each other'],
    [['--tiles-per-image', '3'], '--tiles-per-image is of --tile'], [['--crop', '392x'], 'It must be a whole number'], [['--crop', '1x2x3'], 'two as WIDTHxHEIGHT'],
    [['--resize', '300x600', '--crop', '400x500'], '--crop 400 x 500 does not fit into --resize 300 x 600'],
  ])('%o are wrong usage', async (options, message) => {
    const { code, stderr } = await run('train', '--data', folder, '--out', join(folder, 'm'), ...options);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  it('a model that is missing', async () => {
    const { code, stderr, stdout } = await run('inspect', '--model', join(folder, 'none'), join(folder, 'x.png'), '--out', join(folder, 'o'));
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(join(folder, 'none'));
  });

  it('an encoder that nobody knows', async () => {
    const { code, stderr } = await run('plan', '--encoder', 'dinov2-smal');
    expect(code).toBe(1);
    expect(stderr).toContain('Did you mean "dinov2-small"');
  });
});

describe('words and numbers', () => {
  it('are short', () => {
    expect([duration(0.04), duration(8.26), duration(45.2), duration(125), duration(3725)]).toEqual(['0.0 s', '8.3 s', '45 s', '2 min 05 s', '1 h 02 min']);
    expect([byteSize(12), byteSize(7_423_008), byteSize(999_999)]).toEqual(['12 B', '7.42 MB', '1.00 MB']);
    expect(withPrefix(107.5e9, 'FLOP')).toBe('108 GFLOP');
    expect(table(['a', 'b'], [['xx', '1'], ['y', '22']], [1])).toBe('a    b\nxx   1\ny   22');
  });
});
