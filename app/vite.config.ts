/**
 * The page's build: static files with relative paths, so that they work under any path of any server, without inline
 * script or style. The service worker is a file of its own beside index.html, and learns here what belongs to the page.
 */
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const weights = 'weights/tiny_vit14.safetensors';
const weightsFile = path('../weights/tiny/tiny_vit14.safetensors');
const digest = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex').slice(0, 16);

/** The embedded encoder, served and built with the page. */
function embeddedEncoder(): Plugin {
  return {
    name: 'embedded-encoder',
    generateBundle() {
      this.emitFile({ type: 'asset', fileName: weights, source: readFileSync(weightsFile) });
    },
    configureServer(server) {
      server.middlewares.use(`/${weights}`, (_, response) => { response.end(readFileSync(weightsFile)); });
    },
  };
}

/** Puts into the service worker which files to keep, each with a hash of its content. */
function offlineFiles(): Plugin {
  return {
    name: 'offline-files',
    enforce: 'post',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const files = new Map(readdirSync(path('public')).map((name) => [name, digest(readFileSync(path(`public/${name}`)))]));
        for (const item of Object.values(bundle)) {
          if (item.fileName === 'service-worker.js' || item.fileName.endsWith('.map')) continue;
          files.set(item.fileName, digest(item.type === 'chunk' ? item.code : item.source));
        }
        const worker = bundle['service-worker.js'];
        if (worker?.type !== 'chunk') throw new Error('The build made no service-worker.js.');
        const list = JSON.stringify([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
        worker.code = worker.code.replace('PAGE_FILES', () => list);
        if (!worker.code.includes(list)) throw new Error('The service worker has no place for the list of files.');
      },
    },
  };
}

/** The development server injects styles and code as it likes, which the page's policy forbids. */
function policyOfBuildOnly(): Plugin {
  return { name: 'policy-of-build-only', apply: 'serve', transformIndexHtml: (html) => html.replace(/<meta http-equiv="Content-Security-Policy"[^>]*>/, '') };
}

export default defineConfig({
  root: path('.'),
  base: './',
  plugins: [embeddedEncoder(), offlineFiles(), policyOfBuildOnly()],
  worker: { format: 'es' },
  build: {
    outDir: path('../dist/app'),
    emptyOutDir: true,
    target: 'chrome113',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      input: { index: path('index.html'), 'service-worker': path('src/service-worker.ts') },
      output: {
        entryFileNames: (chunk) => (chunk.name === 'service-worker' ? '[name].js' : 'assets/[name]-[hash].js'),
      },
    },
  },
});
