/**
 * `npm run bench`: installs what is missing, bundles the benchmark's program, its Node process and its page, and starts the
 * program. Built-in modules only, until the installation is there.
 */
import { join } from 'node:path';
import { root, setUp } from '../bin/setup.mjs';

setUp({ bench: true });
const { build } = await import('esbuild');
const dist = join(root, 'bench/dist');
const common = { bundle: true, ignoreAnnotations: true, format: 'esm', target: 'es2022', sourcemap: 'linked', outdir: dist, logLevel: 'error', absWorkingDir: root };
await Promise.all([
  build({ ...common, entryPoints: { cli: 'bench/cli.ts', worker: 'bench/runtimes/worker.ts' }, platform: 'node', packages: 'external', outExtension: { '.js': '.mjs' } }),
  build({ ...common, entryPoints: { page: 'bench/runtimes/page.ts' }, platform: 'browser', target: 'chrome113', sourcemap: false }),
]);
const { main } = await import(new URL('./dist/cli.mjs', import.meta.url).href);
process.exitCode = await main(process.argv.slice(2), root, { out: (text) => console.log(text), err: (text) => console.error(text) });
