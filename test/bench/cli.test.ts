import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { main } from '../../bench/cli.ts';
import { projectRoot } from '../support/modules.ts';
import { changed, results } from './fixture.ts';

const folder = mkdtempSync(join(tmpdir(), 'inp-former-bench-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const text = { out: '', err: '' };
  const code = await main(argv, projectRoot, { out: (line) => { text.out += `${line}\n`; }, err: (line) => { text.err += `${line}\n`; } });
  return { code, ...text };
}

const before = file('before.json', results());
const slower = file('slower.json', results({ measurements: changed({ 'peers/decoder-block/ours': { samples: [0.2] } }) }));

describe('npm run bench', () => {
  test('--help lists the options', async () => {
    const { code, out } = await run('--help');
    expect(code).toBe(0);
    for (const option of ['--runtime', '--adapter', '--suite', '--json', '--html', '--quick', '--compare', '--threshold', '--reuse-peers', '--table']) expect(out).toContain(option);
  });

  test('--compare: 0 without a regression, 1 with one, by the threshold', async () => {
    expect(await run('--compare', before, before)).toMatchObject({ code: 0 });
    const { code, out } = await run('--compare', before, slower);
    expect(code).toBe(1);
    expect(out).toMatch(/peers\/decoder-block\/ours +100 ms +200 ms +2\.000 +slower/);
    expect(await run('--compare', before, slower, '--threshold', '1.5')).toMatchObject({ code: 0 });
  });

  test('--table prints Markdown', async () => {
    const { code, out } = await run('--table', before);
    expect(code).toBe(0);
    expect(out).toContain('| tiny 224 | 1.00 s |');
  });

  test.each<[string, string[], number, RegExp]>([
    ['an unknown suite', ['--suite', 'nonsense'], 2, /nonsense.*kernels, model, train, peers, all/],
    ['an unknown option', ['--fast'], 2, /--fast/],
    ['a stray word', ['kernels'], 2, /kernels is not an option/],
    ['lavapipe in Chrome', ['--adapter', 'lavapipe'], 2, /add --runtime node/],
    ['one file to compare', ['--compare', before], 2, /two results files, got 1/],
    ['a threshold that is no number', ['--compare', before, before, '--threshold', 'x'], 2, /above 0/],
    ['a file that is not there', ['--compare', before, join(folder, 'none.json')], 1, /none\.json can't be read: there is no such file/],
    ['a file that is no results file', ['--table', file('other.json', '{}')], 1, /other\.json is not a results file/],
    ['a folder that is not there', ['--json', join(folder, 'none/x.json')], 1, /its folder does not exist/],
  ])('%s is told', async (_, argv, code, message) => {
    const result = await run(...argv);
    expect(result.code).toBe(code);
    expect(result.err).toMatch(message);
  });
});
