/**
 * The package as others get it: packed, installed by npm into an empty folder, and used from there alone. What
 * docs/embedding.md shows is taken from it and run as it is written: in Node, in headless Chrome through an import map
 * under a strict policy, and from a bundle.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, posix, sep } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { build } from 'esbuild';
import { publint } from 'publint';
import type { Browser, ElementHandle } from 'puppeteer';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { renderSample } from '../../src/data/procedural.ts';
import { encodePng } from '../../src/node/images.ts';
import { launch } from '../support/chrome.ts';
import { filesUnder, projectRoot, readSource } from '../support/modules.ts';

const execute = promisify(execFile);
const packageJson = JSON.parse(readSource('package.json')) as { version: string; exports: Record<string, string | { types: string; default: string }>; devDependencies: Record<string, string> };
const entries = Object.entries(packageJson.exports).flatMap(([path, target]) => (typeof target === 'string' ? [] : [path.replace('.', 'inp-former-webgpu')]));
/** A file and no module: it has no types. */
const weightsEntry = './weights/tiny.safetensors';
/** SwiftShader comes as a package of its own, for this platform alone; elsewhere the machine's adapter serves. */
const hasSwiftShader = process.platform === 'linux' && process.arch === 'x64';
const adapter = hasSwiftShader ? 'swiftshader' : 'auto';
const documentation = readSource('docs/embedding.md');

let folder: string;
let tarball: string;
const installed = (...path: string[]): string => join(folder, 'node_modules/inp-former-webgpu', ...path);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'inp-former-embedding-'));
  await npm(projectRoot, 'pack', '--pack-destination', folder);
  tarball = join(folder, `inp-former-webgpu-${packageJson.version}.tgz`);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'embedder', private: true, type: 'module' }));
  const swiftShader = hasSwiftShader ? [`@sparticuz/chromium@${packageJson.devDependencies['@sparticuz/chromium']}`] : [];
  await npm(folder, 'install', '--prefer-offline', '--no-audit', '--no-fund', tarball, ...swiftShader);

  for (const [, name, code] of documentation.matchAll(/^```\w+ (\S+\.\w+)\n(.*?)^```$/gms)) writeFileSync(join(folder, name!), code!);
  for (const kind of ['good', 'parts', 'arriving', 'inbox']) mkdirSync(join(folder, kind));
  for (let i = 0; i < 6; i++) await draw(`good/${i}.png`, i);
  await draw('parts/fine.png', 100);
  await draw('parts/stained.png', 101, true);
}, 300_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function npm(cwd: string, ...args: string[]): Promise<void> {
  // The test's own NODE_ENV would reach the page's build.
  const { NODE_ENV: _, ...env } = process.env;
  await execute('npm', args, { cwd, env, shell: process.platform === 'win32', maxBuffer: 1 << 26 });
}

/** A cloth, good or with a plain stain. */
async function draw(file: string, seed: number, stained = false): Promise<void> {
  const { image } = renderSample({ texture: 'woven-cloth', seed: `embedding ${seed}`, size: 64, ...(stained && { defect: { kind: 'stain', strength: 1, extent: 1 } }) });
  writeFileSync(join(folder, file), await encodePng(image));
}

const run = (...args: string[]) => execute(process.execPath, args, { cwd: folder, maxBuffer: 1 << 26 });
/** What `npx inp-former` runs, without npx's own second. */
const command = (...args: string[]) => run(installed('bin/inp-former.js'), ...args);

describe('the packed package', () => {
  test('has nothing that publint would have otherwise, strictly', async () => {
    const bytes = readFileSync(tarball);
    const { messages } = await publint({ pack: { tarball: new Uint8Array(bytes).buffer }, strict: true });
    expect(messages).toEqual([]);
  });

  test('has types that fit what they are of, for ES modules and bundlers (attw, profile esm-only)', async () => {
    const analysis = await checkPackage(createPackageFromTarballData(new Uint8Array(readFileSync(tarball))), { excludeEntrypoints: [weightsEntry] });
    if (!analysis.types) throw new Error('attw finds no types.');
    expect(Object.keys(analysis.entrypoints).sort()).toEqual(Object.keys(packageJson.exports).filter((path) => path !== weightsEntry).sort());
    // What the profile leaves out: `require`, and resolution as it was before `exports`.
    const outside = ['node10', 'node16-cjs'];
    expect(analysis.problems.filter((problem) => !('resolutionKind' in problem && outside.includes(problem.resolutionKind)))).toEqual([]);
  });

  test('has what is built of today\'s sources, the page, the encoder once, and nothing else', () => {
    const files = readdirSync(installed(), { recursive: true, encoding: 'utf8' }).filter((path) => statSync(installed(path)).isFile()).map((path) => path.split(sep).join('/')).sort();
    const built = [...filesUnder('src'), ...filesUnder('shaders')].filter((path) => !path.endsWith('.d.ts'))
      .flatMap((path) => ['.js', '.d.ts'].map((ending) => posix.join('dist', path.replace(/\.ts$/, ending))));
    const page = files.filter((path) => path.startsWith('dist/app/'));
    expect(files.filter((path) => !page.includes(path))).toEqual([
      ...built, 'LICENSE', 'README.md', 'bin/inp-former.js', 'package.json', 'weights/README.md', 'weights/catalog.json', 'weights/tiny/README.md', 'weights/tiny/tiny_vit14.safetensors',
    ].sort());
    expect(page).toContain('dist/app/index.html');
    expect(page.filter((path) => /weights|\.map$/.test(path))).toEqual([]);
    expect(built.filter((path) => readFileSync(installed(path), 'utf8').includes('sourceMappingURL'))).toEqual([]);

    const [, packed] = /packed it has (\d+\.\d) MB/.exec(documentation)!;
    expect(statSync(tarball).size / 1e6).toBeCloseTo(Number(packed), 0);
  });

  test('has entries that Node imports, with what the documentation says of them', async () => {
    const documented = [...documentation.matchAll(/^\| `(inp-former-webgpu\S*)` \|/gm)].map((match) => match[1]!);
    expect(documented.sort()).toEqual([...entries, weightsEntry.replace('.', 'inp-former-webgpu')].sort());
    const { stdout } = await run('--input-type=module', '-e', `
      const counts = {};
      for (const entry of ${JSON.stringify(entries)}) counts[entry] = Object.values(await import(entry)).filter((value) => value !== undefined).length;
      console.log(JSON.stringify({ counts, weights: import.meta.resolve('inp-former-webgpu/weights/tiny.safetensors') }));`);
    const { counts, weights } = JSON.parse(stdout) as { counts: Record<string, number>; weights: string };
    expect(Object.entries(counts).filter(([, count]) => count === 0)).toEqual([]);
    expect(weights).toMatch(/weights\/tiny\/tiny_vit14\.safetensors$/);
  });

  test.each(['nodenext', 'esnext'])('type-checks as a dependency, its declarations included (%s)', async (module) => {
    writeFileSync(join(folder, 'entries.ts'), entries.map((entry, i) => `export * as entry${i} from '${entry}';`).join('\n'));
    const resolution = module === 'esnext' ? ['--moduleResolution', 'bundler'] : [];
    await run(join(projectRoot, 'node_modules/typescript/bin/tsc'), '--ignoreConfig', '--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2023,dom,dom.iterable', '--types', '', '--module', module, ...resolution, 'entries.ts');
  });

  test('throws only codes that the documentation explains', () => {
    const source = filesUnder('src').map(readSource).join('\n');
    const codes = new Set([...source.matchAll(/\bcode: '([a-z-]+)'|super\('([a-z-]+)'|new \w+Error\(\s*'([a-z]+(?:-[a-z]+)+)'/g)].map((match) => match[1] ?? match[2] ?? match[3]!));
    expect(codes.size).toBeGreaterThan(12);
    expect([...codes].filter((code) => !documentation.includes(`\`${code}\``))).toEqual([]);
  });
});

describe('the installed command line', { timeout: 300_000 }, () => {
  test('is what npx finds, and helps', async () => {
    const { stdout } = await execute('npx', ['--no-install', 'inp-former', '--help'], { cwd: folder, shell: process.platform === 'win32' });
    expect(stdout).toContain('Usage: inp-former');
  });

  test('trains, and inspects', async () => {
    await command('train', '--data', 'good', '--out', 'part.safetensors', '--resize', '56', '--crop', '56', '--steps', '4', '--batch-size', '3', '--adapter', adapter);
    const { stdout } = await command('inspect', '--model', 'part.safetensors', 'parts', '--out', 'heat', '--json', '--adapter', adapter);
    const { images } = JSON.parse(stdout) as { images: { file: string; verdict: string; heatmap: string }[] };
    expect(images.map(({ verdict }) => verdict)).toEqual(['good', 'defective']);
    expect(images.every(({ heatmap }) => existsSync(join(folder, heatmap)))).toBe(true);
  });

  // After the training above, whose model it uses.
  test('and a script that watches a folder: the Node example', async () => {
    const script = spawn(process.execPath, ['watch.mjs', 'part.safetensors', 'inbox'], { cwd: folder });
    const { said, ended } = listenTo(script);
    await said(/^Watching inbox on /m);
    writeFileSync(join(folder, 'inbox/notes.txt'), 'Not an image.');
    await said(/inbox.notes\.txt: not a readable image/);
    for (const [seed, name] of [[100, 'fine.png'], [101, 'stained.png']] as const) {
      await draw(`arriving/${name}`, seed, name === 'stained.png');
      renameSync(join(folder, 'arriving', name), join(folder, 'inbox', name));
      await said(new RegExp(`^${name}: ${name === 'fine.png' ? 'good' : 'defective'}, 0\\.\\d+ \\(threshold 0\\.\\d+\\), ${name === 'fine.png' ? '0 regions' : '[1-9]\\d* regions'}`, 'm'));
    }
    // Written in two halves, as a slow copy is.
    const whole = readFileSync(join(folder, 'inbox/stained.png'));
    writeFileSync(join(folder, 'inbox/slow.png'), whole.subarray(0, whole.length / 2));
    await said(/inbox.slow\.png: /);
    writeFileSync(join(folder, 'inbox/slow.png'), whole);
    await said(/^slow\.png: defective/m);
    script.kill('SIGINT');
    expect(await ended).toEqual({ code: 0, signal: null });
  });
});

/** What a process says, to be waited for, and how it ends. */
function listenTo(script: ChildProcess): { said(pattern: RegExp): Promise<void>; ended: Promise<{ code: number | null; signal: string | null }> } {
  let output = '';
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => { script.on('close', (code, signal) => resolve({ code, signal })); });
  const heard = new EventTarget();
  for (const stream of [script.stdout!, script.stderr!]) {
    stream.on('data', (bytes: Buffer) => {
      output += bytes.toString();
      heard.dispatchEvent(new Event('said'));
    });
  }
  const said = async (pattern: RegExp): Promise<void> => {
    let gone = false;
    void ended.then(() => {
      gone = true;
      heard.dispatchEvent(new Event('said'));
    });
    const timer = setTimeout(() => script.kill(), 120_000);
    while (!pattern.test(output)) {
      if (gone) throw new Error(`It never said ${pattern}, but:\n${output}`);
      await new Promise((resolve) => { heard.addEventListener('said', resolve, { once: true }); });
    }
    clearTimeout(timer);
  };
  return { said, ended };
}

test('the graph example: a kernel of one\'s own between ours, a pass of one\'s own after', async () => {
  const values = (count: number) => Array.from({ length: count }, (_, i) => Math.sin(i));
  const [tokens, prototypes] = [values(6 * 8), values(3 * 8)];
  const expected = Array.from({ length: 6 }, (_, t) => Math.max(...[0, 1, 2].map((p) => prototypes.slice(8 * p, 8 * p + 8).reduce((sum, v, c) => sum + v * tokens[8 * t + c]!, 0))) / 8);
  expect(new Set(expected.map((value) => value < 0.3)).size).toBe(2);

  expect([...readFileSync(join(folder, 'graph.mjs'), 'utf8').matchAll(/from '([^']+)'/g)].map((match) => match[1]!).filter((name) => !entries.includes(name))).toEqual([]);
  const { stdout } = await run('graph.mjs');
  const numbers = (name: string) => new RegExp(`^${name} (.*)$`, 'm').exec(stdout)![1]!.split(' ').map(Number);
  expect(stdout).toMatch(/^checked, largest error \d/m);
  numbers('similarity').forEach((value, t) => expect(value).toBeCloseTo(expected[t]!, 5));
  expect(numbers('far')).toEqual(expected.map((value) => (value < 0.3 ? 1 : 0)));
});

describe('in headless Chrome, the page example', { timeout: 300_000 }, () => {
  let browser: Browser;
  let server: Server;
  beforeAll(async () => {
    browser = await launch();
    server = createServer(answer);
    await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  });
  afterAll(async () => {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
  });

  test('through an import map, from the files as npm has put them', () => expectVerdictsOn('page.html'));

  test('from a bundle in one file', async () => {
    await bundlePage({ outfile: join(folder, 'bundled/page.js') });
    await expectVerdictsOn('bundled/page.html');
  });

  test('is split by bundlers: what it needs at once is in the bounds that the documentation gives', async () => {
    const { metafile } = await bundlePage({ outdir: join(folder, 'split'), splitting: true, minify: true });
    const entry = Object.keys(metafile!.outputs).find((name) => name.endsWith('split/page.js'))!;
    const atOnce = (name: string, seen = new Set<string>()): Set<string> => {
      if (!seen.has(name)) metafile!.outputs[seen.add(name) && name]!.imports.forEach(({ path, kind }) => { if (kind === 'import-statement') atOnce(path, seen); });
      return seen;
    };
    const scripts = [...atOnce(entry)];
    expect(scripts.length).toBeLessThan(Object.keys(metafile!.outputs).length / 2);
    const [, kilobytes] = /at most (\d+) kB, minified and gzipped/.exec(documentation)!;
    expect(gzipSync(Buffer.concat(scripts.map((name) => readFileSync(join(folder, name))))).byteLength).toBeLessThanOrEqual(1000 * Number(kilobytes));
  });

  /** Its own script, by a bundler, and a page that loads nothing else. */
  async function bundlePage(options: { outfile?: string; outdir?: string; splitting?: boolean; minify?: boolean }) {
    const html = readFileSync(join(folder, 'page.html'), 'utf8');
    const [, script] = /<script type="module">(.*?)<\/script>/s.exec(html)!;
    writeFileSync(join(folder, 'page.js'), script!.replaceAll("'./node_modules/", "'../node_modules/"));
    const result = await build({ absWorkingDir: folder, entryPoints: [join(folder, 'page.js')], bundle: true, format: 'esm', platform: 'browser', target: 'chrome113', logLevel: 'silent', metafile: true, ...options });
    expect([...result.errors, ...result.warnings]).toEqual([]);
    if (options.outfile) writeFileSync(options.outfile.replace(/\.js$/, '.html'), html.replace(/<script type="importmap">.*?<\/script>/s, '').replace(/<script type="module">.*?<\/script>/s, '<script type="module" src="page.js"></script>'));
    return result;
  }

  /** Teaches the page good parts, then shows it two. */
  async function expectVerdictsOn(path: string): Promise<void> {
    const page = await browser.newPage();
    const problems: string[] = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
    // Asked again and again, because one long question would run into the protocol's own time limit.
    const status = async (wanted: string): Promise<void> => {
      for (;;) {
        const shown = await page.evaluate(() => document.getElementById('status')!.textContent);
        if (shown === wanted) return;
        if (!/^(Loading …|Ready|[\w ]+ \d+ of \d+)$/.test(shown)) throw new Error(`The page says: ${shown}`);
        await new Promise((resolve) => { setTimeout(resolve, 100); });
      }
    };
    const give = async (id: string, files: readonly string[]) => (await page.$(`#${id}`) as ElementHandle<HTMLInputElement>).uploadFile(...files.map((file) => join(folder, file)));
    try {
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/${path}`);
      await status('Ready');
      await give('good', [0, 1, 2, 3, 4, 5].map((i) => `good/${i}.png`));
      await status('Trained');
      await give('parts', ['parts/fine.png', 'parts/stained.png']);
      await page.waitForFunction(() => document.body.innerText.includes('stained.png: '));
      expect(await page.evaluate(() => document.body.innerText)).toMatch(/fine\.png: good, 0\.\d+ \(threshold 0\.\d+\).*stained\.png: defective, 0\.\d+/s);
      // Heat covers the stain, and the good part stays as it is.
      const coloured = await page.evaluate(() => [...document.querySelectorAll('canvas')].map((canvas) => {
        const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((red, i) => i % 4 === 0 && red > data[i + 2]! + 100).length / (data.length / 4);
      }));
      expect(coloured).toHaveLength(2);
      expect(coloured[1]).toBeGreaterThan(coloured[0]! + 0.02);
    } finally {
      await page.close();
    }
    expect(problems).toEqual([]);
  }

  /** Files of the folder, under the policy of the documentation and the hashes of the page's inline scripts. */
  function answer(request: { url?: string }, response: { writeHead(status: number, headers?: Record<string, string>): { end(body?: string | Uint8Array): void } }): void {
    const path = (request.url ?? '/').slice(1);
    const file = join(folder, path);
    if (path === 'favicon.ico') return response.writeHead(204).end();
    if (path.includes('..') || !existsSync(file)) return response.writeHead(404).end();
    const body = readFileSync(file);
    const [, policy] = /^(default-src .*)$/m.exec(documentation)!;
    const hashes = [...body.toString().matchAll(/<script[^>]*>([^<].*?)<\/script>/gs)].map(([, script]) => ` 'sha256-${createHash('sha256').update(script!).digest('base64')}'`);
    const types: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript' };
    return response.writeHead(200, {
      'content-type': types[extname(file)] ?? 'application/octet-stream',
      'content-security-policy': policy!.replace("script-src 'self'", () => `script-src 'self'${extname(file) === '.html' ? hashes.join('') : ''}`),
    }).end(body);
  }
});
