/**
 * Sessions in headless Chrome: a browser each with one page, which comes from 127.0.0.1. The page is isolated (its clock is
 * then fine enough to time the CPU), and the GPU's timestamps are not rounded.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { launchChrome, type ChromeAdapter } from '../../test/support/launch-chrome.ts';
import type { Task, TaskResult } from '../tasks.ts';
import { filePath, type Session, type SessionOptions } from './session.ts';

const flags = ['--enable-webgpu-developer-features', '--disable-gpu-watchdog', '--disable-dawn-features=timestamp_quantization'];
const html = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Benchmark</title><script type="module" src="/page.js"></script></head></html>';
const mediaTypes: Readonly<Record<string, string>> = { js: 'text/javascript', mjs: 'text/javascript', wasm: 'application/wasm' };

export async function openChromeSession(options: SessionOptions): Promise<Session> {
  const server = await serve(options);
  try {
    const browser = await launchChrome(options.adapter as ChromeAdapter, flags, { protocolTimeout: 4 * 3600 * 1000 });
    try {
      const page = await browser.newPage();
      page.on('pageerror', (error) => options.onEvent({ kind: 'log', text: `The page reports: ${String(error)}` }));
      await page.exposeFunction('benchEvent', options.onEvent);
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      await page.waitForFunction('globalThis.benchTask !== undefined', { timeout: 60_000 });
      const crashed = new Promise<never>((_, reject) => {
        page.once('error', (error) => reject(new Error(`The page crashed: ${error.message}`)));
        browser.once('disconnected', () => reject(new Error('The browser ended.')));
      });
      // A session that is closed disconnects as well.
      crashed.catch(() => undefined);
      return {
        version: (await browser.version()).replace(/^HeadlessChrome\//, 'Chrome '),
        run: (task) => Promise.race([
          page.evaluate((t) => (globalThis as unknown as { benchTask(task: Task): Promise<TaskResult> }).benchTask(t), task), crashed,
        ]),
        async close() {
          await browser.close();
          server.closeAllConnections();
          server.close();
        },
      };
    } catch (error) {
      await browser.close();
      throw error;
    }
  } catch (error) {
    server.close();
    throw error;
  }
}

async function serve(options: SessionOptions): Promise<Server> {
  const { root } = options;
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent((request.url ?? '/').split('?')[0]!);
    const respond = (status: number, type: string, body: string | Uint8Array = ''): void => {
      response.writeHead(status, {
        'content-type': type, 'cache-control': 'no-store', 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp', 'cross-origin-resource-policy': 'same-origin',
      }).end(body);
    };
    if (path === '/') return respond(200, 'text/html', html);
    const library = /^\/onnxruntime\/([\w.-]+)$/.exec(path)?.[1];
    const file = path === '/page.js' ? join(root, 'bench/dist/page.js')
      : library !== undefined ? join(root, 'bench/node_modules/onnxruntime-web/dist', library)
        : filePath(options, path.replace(/^\/files\//, ''));
    const bytes = file === undefined ? undefined : await readFile(file).catch(() => undefined);
    if (!file || !bytes) return respond(404, 'text/plain', `There is no ${path}.`);
    return respond(200, mediaTypes[file.split('.').at(-1)!] ?? 'application/octet-stream', bytes);
  });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}
