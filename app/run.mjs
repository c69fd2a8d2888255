/**
 * `npm run app`: installs what is missing, builds the page where it is out of date, and serves it as `inp-former serve`
 * does (whose options it takes). `npm run app:build` only builds, into dist/app. `npm run app -- --dev` serves the
 * sources with Vite, which reloads as they change; `npm run app:screenshots` takes pictures of all views. Built-in modules only, until the installation is there.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, setUp } from '../bin/setup.mjs';

const [command, ...options] = process.argv.slice(2);
setUp({ app: true });

/** Whether the built page is newer than every source. */
function isBuilt() {
  const built = join(root, 'dist/app/index.html');
  if (!existsSync(built)) return false;
  const builtAt = statSync(built).mtimeMs;
  const sources = ['src', 'shaders', 'app/src', 'app/public'].flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((path) => join(folder, String(path))));
  return [...sources, 'app/index.html', 'app/vite.config.ts', 'app/package-lock.json', 'weights/tiny/tiny_vit14.safetensors'].every((path) => statSync(join(root, path)).mtimeMs <= builtAt);
}

async function buildPage() {
  // A test's own NODE_ENV would make it a development build.
  process.env.NODE_ENV = 'production';
  const { build } = await import('vite');
  await build({ configFile: join(root, 'app/vite.config.ts'), logLevel: 'warn' });
}

if (command === 'build') await buildPage();
else if (command === 'up-to-date') {
  if (!isBuilt()) await buildPage();
} else if (command === 'screenshots') {
  const { build } = await import('esbuild');
  const outfile = join(root, 'dist/screenshots/screenshots.mjs');
  await build({ entryPoints: [join(root, 'app/screenshots.ts')], outfile, bundle: true, format: 'esm', platform: 'node', packages: 'external', logLevel: 'error' });
  await (await import(pathToFileURL(outfile).href)).takeScreenshots(options, root);
} else if (command === 'serve' && options.includes('--dev')) {
  const { createServer } = await import('vite');
  const server = await createServer({ configFile: join(root, 'app/vite.config.ts'), server: { host: '127.0.0.1' } });
  await server.listen();
  server.printUrls();
} else {
  if (!isBuilt()) await buildPage();
  const { runCli } = await import('../dist/src/node/cli.js');
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => controller.abort());
  process.exitCode = await runCli(['serve', ...options], { stdout: process.stdout, stderr: process.stderr, signal: controller.signal });
}
