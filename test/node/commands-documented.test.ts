// docs/commands.md as a user would try it: every example, one after another, on drawn pictures, with the real engine.
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli } from '../../src/node/cli.ts';
import { writeProceduralSet } from '../../src/node/procedural-files.ts';
import { documentedCommands } from '../support/documented-commands.ts';
import { testAdapter, testGpu } from '../support/gpu.ts';

const commands = documentedCommands().filter(({ argv: [name] }) => name !== 'serve'); // until it is stopped: page-server.test.ts
const home = process.cwd();
const isSoftware = testAdapter() !== 'gpu';
let folder: string;
let canF16: boolean;

beforeAll(async () => {
  const adapter = await (await testGpu()).requestAdapter();
  canF16 = adapter!.features.has('shader-f16');
  folder = await mkdtemp(join(tmpdir(), 'inp-former-commands-'));
  for (const texture of ['leather', 'brushed-metal']) {
    await writeProceduralSet(join(folder, 'out/demo/data', texture), { texture, seed: 1, size: 112, train: 12, testGood: 2, testDefective: 8 });
  }
  process.chdir(folder);
});

afterAll(async () => {
  process.chdir(home);
  await rm(folder, { recursive: true, force: true });
});

describe('docs/commands.md', { timeout: 600_000 }, () => {
  it.each(commands)('$line', async ({ argv, line }) => {
    const computes = ['train', 'inspect', 'evaluate', 'ablate', 'benchmark', 'info'].includes(argv[0]!);
    // Measuring takes minutes on a CPU; test/graph/autotune.test.ts does it on small plans.
    const given = argv.filter((part, i) => part !== '--adapter' && argv[i - 1] !== '--adapter' && !(part === '--tune' && isSoftware)).map((part) => (part === 'f16' && !canF16 ? 'f32' : part));
    const end = given.includes('--') ? given.indexOf('--') : given.length;
    const asked = [...given.slice(0, end), ...(computes ? ['--adapter', testAdapter()] : []), ...given.slice(end)];
    let [stdout, stderr] = ['', ''];
    const code = await runCli(asked, { stdout: { write: (text) => { stdout += text; } }, stderr: { write: (text) => { stderr += text; } } });
    expect(code, `${line}\n${stderr}`).toBe(0);
    if (argv.includes('--json')) expect(JSON.parse(stdout.trimEnd().split('\n').at(-1)!)).toMatchObject({ command: argv[0] });
    for (const option of ['--out', '--csv', '--html']) if (argv.includes(option)) expect(existsSync(argv[argv.indexOf(option) + 1]!), option).toBe(true);
  });
});
