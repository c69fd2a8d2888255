// `inp-former export`: what it writes and says, and what it refuses before it does any work.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { exportOnnx } from '../../src/export/onnx.ts';
import { runCli } from '../../src/node/cli.ts';
import { resolveEncoder } from '../../src/node/encoder-store.ts';
import { randomModel } from '../support/model-file.ts';
import { smallEncoder } from '../support/small-encoder.ts';

let folder: string;
let model: string;
const path = (...parts: string[]) => join(folder, ...parts);

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await runCli(argv, { stdout: { write: (text) => { stdout += text; } }, stderr: { write: (text) => { stderr += text; } } });
  return { code, stdout, stderr };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-export-'));
  vi.stubEnv('INP_FORMER_CACHE', path('cache'));
  model = path('part.safetensors');
  await writeFile(model, randomModel(await resolveEncoder('tiny'), { resize: 64, crop: 56, decoderDepth: 2 }));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

describe('export', () => {
  it('writes the file that the API makes, finds the encoder by itself, and tells programs what is in it', async () => {
    const out = path('new', 'part.onnx');
    const { code, stdout } = await run('export', '--model', model, '--format', 'onnx', '--out', out, '--json');
    expect(code).toBe(0);
    expect(stdout.trimEnd().split('\n')).toHaveLength(1);
    const bytes = await readFile(out);
    expect(Buffer.compare(bytes, await exportOnnx({ model: await readFile(model), encoder: await resolveEncoder('tiny') }))).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      command: 'export', model, format: 'onnx', out, bytes: bytes.length, opset: 17, encoder: { name: 'tiny' }, threshold: expect.any(Number),
      input: { name: 'image', shape: ['batch', 3, 56, 56] }, outputs: [{ name: 'map', shape: ['batch', 1, 256, 256] }, { name: 'score', shape: ['batch'] }],
    });
    expect(await readdir(path('new'))).toEqual(['part.onnx']);
  });

  it('tells people the same, and fixes the batch where it is asked to', async () => {
    const { code, stdout } = await run('export', '--model', model, '--encoder', 'tiny', '--out', path('two.onnx'), '--batch-size', '2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/two\.onnx \(.* MB\), ONNX operator set 17[^]*image \[2, 3, 56, 56\][^]*map \[2, 1, 256, 256\], score \[2\]/);
  });

  it.each<[string, () => string[], number, RegExp]>([
    ['another format', () => ['--model', model, '--out', path('a'), '--format', 'tflite'], 2, /Allowed choices are onnx/],
    ['no place to write to', () => ['--model', model], 2, /--out <file>/],
    ['to write over the model', () => ['--model', model, '--out', join(folder, '.', 'part.safetensors')], 2, /is the model file itself.*part\.onnx/],
    ['a folder for the file', () => ['--model', model, '--out', folder], 1, /this is a folder; --out names the ONNX file, e\.g\. .*model\.onnx/],
    ['a place below a file', () => ['--model', model, '--out', join(model, 'x.onnx')], 1, /part\.safetensors can't be written/],
    ['a model that is not there', () => ['--model', path('none'), '--out', path('a')], 1, /none can't be read: there is no such file/],
    ['a file that is no model', () => ['--model', path('text'), '--out', path('a')], 1, /text/],
  ])('refuses %s', async (_, argv, expected, text) => {
    await writeFile(path('text'), 'no model');
    const { code, stdout, stderr } = await run('export', ...argv());
    expect([code, stdout]).toEqual([expected, '']);
    expect(stderr).toMatch(text);
    expect(existsSync(path('a'))).toBe(false);
  });

  it('refuses another encoder than the model\'s, and names one that is missing', async () => {
    const other = randomModel(await smallEncoder(), { resize: 28, crop: 28 });
    await mkdir(path('models'), { recursive: true });
    await writeFile(path('models', 'small'), other);
    const mismatched = await run('export', '--model', path('models', 'small'), '--encoder', 'tiny', '--out', path('b'), '--json');
    const missing = await run('export', '--model', path('models', 'small'), '--out', path('b'), '--json');
    expect([mismatched.code, missing.code]).toEqual([1, 1]);
    expect(missing.stderr).toMatch(/"small-encoder".*not on this machine: give its file with --encoder/);
    expect(JSON.parse(missing.stdout).error.code).toBe('weights-not-found');
    expect(mismatched.stderr).toMatch(/trained on the encoder small-encoder/);
    expect(JSON.parse(mismatched.stdout).error.code).toBe('encoder-mismatch');
    expect(existsSync(path('b'))).toBe(false);
  });
});
