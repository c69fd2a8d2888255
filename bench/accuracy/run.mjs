/**
 * `npm run accuracy -- --data DIR …`: what each setting is worth, on one's own data and on drawn surfaces. Builds what is
 * missing and starts main.ts. Built-in modules only, until the installation is there.
 */
import { join } from 'node:path';
import { root, setUp } from '../../bin/setup.mjs';

setUp();
const { build } = await import('esbuild');
await build({
  entryPoints: { accuracy: 'bench/accuracy/main.ts' }, outdir: join(root, 'bench/dist'), outExtension: { '.js': '.mjs' },
  bundle: true, format: 'esm', target: 'es2022', platform: 'node', packages: 'external', logLevel: 'error', absWorkingDir: root,
});
const { main } = await import(new URL('../dist/accuracy.mjs', import.meta.url).href);
process.exitCode = await main(process.argv.slice(2), root);
