// docs/commands.md as a user would try it: every example, one after another, on drawn pictures, with the real engine.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { proceduralSet } from '../../src/data/procedural.ts';
import { runCli } from '../../src/node/cli.ts';
import { encodePng } from '../../src/node/images.ts';
import { documentedCommands } from '../support/documented-commands.ts';
import { testAdapter, testGpu } from '../support/gpu.ts';

const commands = documentedCommands().filter(({ argv: [name] }) => name !== 'serve'); // until it is stopped: page-server.test.ts
const home = process.cwd();
let folder: string;
let canF16: boolean;
let isSoftware: boolean;

beforeAll(async () => {
  const adapter = await (await testGpu()).requestAdapter();
  canF16 = adapter!.features.has('shader-f16');
  isSoftware = testAdapter() !== 'gpu';
  folder = await mkdtemp(join(tmpdir(), 'inp-former-commands-'));
  for (const texture of ['leather', 'brushed-metal']) {
    for (const { path, maskPath, render } of proceduralSet({ texture, seed: 1, size: 112, train: 12, testGood: 2, testDefective: 8 })) {
      const { image, mask } = render();
      const write = async (to: string, picture: Parameters<typeof encodePng>[0]): Promise<void> => {
        const file = join(folder, 'out/demo/data', texture, to);
        await mkdir(dirname(file), { recursive: true });
        await writeFile(file, await encodePng(picture));
      };
      await write(path, image);
      if (maskPath !== undefined) await write(maskPath, { width: image.width, height: image.height, channels: 1, data: mask });
    }
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
