/** Numbers that need no GPU: what a page ships, and what the plans need in memory. */
import { gzipSync } from 'node:zlib';
import { build, type Plugin } from 'esbuild';
import { planReport } from '../src/train/plan-report.ts';
import { findEncoder } from '../src/weights/catalog.ts';
import type { Figure } from './results.ts';

/** What a page loads that trains on a device and inspects there; training itself is a module that it loads when training begins. */
const page = `export { createBrowserEngine, decodeImageBlob } from './src/browser/index.ts';
export { colorize, findEncoder, Inspector, loadEncoderWeights, overlay, splitForCalibration } from './src/index.ts';
export { trainInspector } from './src/train/train.ts';`;

/**
 * Bytes that a page loads, core and shaders, to train INP-Former and to inspect with it: minified modules in one, raw and
 * gzipped. What is loaded for other settings or on few adapters alone (INP-Former++, few-shot views, matrix units, ..) is
 * not in it, as it is not for such a page.
 */
export async function shippedBytes(root: string): Promise<{ raw: number; gzip: number }> {
  const { outputFiles } = await build({
    stdin: { contents: page, resolveDir: root, loader: 'ts' }, bundle: true, write: false, minify: true, format: 'esm', platform: 'browser', target: 'chrome113',
    treeShaking: true, logLevel: 'silent', external: ['pbf'], plugins: [lazyModulesApart],
  });
  const code = outputFiles[0]!.contents;
  return { raw: code.byteLength, gzip: gzipSync(code, { level: 9 }).byteLength };
}

const lazyModulesApart: Plugin = {
  name: 'lazy modules apart',
  setup: ({ onResolve }) => {
    onResolve({ filter: /^\./ }, ({ kind, path }) => (kind === 'dynamic-import' ? { path, external: true } : undefined));
  },
};

export async function figures(root: string): Promise<Figure[]> {
  const { raw, gzip } = await shippedBytes(root);
  const plan = (encoder: string, crop: number, batchSize: number, train: boolean): Figure[] => {
    const { peakBytes, kernels } = planReport({ ...findEncoder(encoder), crop, batchSize, train });
    const what = `${train ? 'train' : 'inspect'}/${encoder}-${crop}/batch-${batchSize}`;
    return [
      { id: `peak/${what}`, title: `${what}: memory with the limits that every adapter has`, value: peakBytes, unit: 'bytes' },
      { id: `kernels/${what}`, title: `${what}: kernels`, value: kernels, unit: 'kernels' },
    ];
  };
  return [
    { id: 'shipped/raw', title: 'core and shaders, minified', value: raw, unit: 'bytes' },
    { id: 'shipped/gzip', title: 'core and shaders, minified and gzipped', value: gzip, unit: 'bytes' },
    ...plan('dinov2-small', 392, 1, false), ...plan('dinov2-base', 392, 1, false),
    ...plan('tiny', 224, 8, true), ...plan('dinov2-base', 392, 16, true),
  ];
}
