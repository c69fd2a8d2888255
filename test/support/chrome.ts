/**
 * Headless Chrome with a page of the test's own: the user's Chrome where CHROME_PATH or PUPPETEER_EXECUTABLE_PATH names
 * one, else the Chromium that the npm package @sparticuz/chromium brings (with SwiftShader), else the system's Chrome.
 * The page comes from 127.0.0.1 under a policy that allows no eval, no inline script and no other host, as careful
 * embedders have it. Page and test hand each other bytes through `files`, and everything else as JSON.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { build } from 'esbuild';
import type { Browser, LaunchOptions, Page } from 'puppeteer';
import { launchChrome } from './launch-chrome.ts';

const policy = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const html = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>inp-former-webgpu test page</title><script type="module" src="/page.js"></script></head></html>';

export class ChromePage {
  /** What the page can GET at /files/NAME, and what it has PUT there. */
  readonly files: Map<string, Uint8Array>;
  /** Uncaught errors, refused resources and console errors of the page. */
  readonly problems: string[];
  private readonly browser: Browser;
  private readonly page: Page;
  private readonly server: Server;

  private constructor(browser: Browser, page: Page, server: Server, files: Map<string, Uint8Array>, problems: string[]) {
    this.browser = browser;
    this.page = page;
    this.server = server;
    this.files = files;
    this.problems = problems;
  }

  /** @param script the page's script; it offers its functions as `globalThis.pageTests` */
  static async open(script: string): Promise<ChromePage> {
    const files = new Map<string, Uint8Array>();
    const server = await serve(await bundle(script), files);
    let browser: Browser | undefined;
    try {
      browser = await launch();
      const page = await browser.newPage();
      const problems: string[] = [];
      page.on('pageerror', (error) => problems.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error') problems.push(message.text());
      });
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      await page.waitForFunction('globalThis.pageTests !== undefined', { timeout: 30_000 });
      return new ChromePage(browser, page, server, files, problems);
    } catch (error) {
      await browser?.close();
      server.close();
      throw error;
    }
  }

  /** Calls one of the page's functions; argument and result go through JSON. */
  async call<T>(name: string, argument?: unknown): Promise<T> {
    return await this.page.evaluate((f, a) => (globalThis as unknown as { pageTests: Record<string, (a: unknown) => unknown> }).pageTests[f]!(a), name, argument) as T;
  }

  /** A file that the page has PUT. */
  received(name: string): Uint8Array {
    const bytes = this.files.get(name);
    if (!bytes) throw new Error(`The page has sent no ${name}; there are ${[...this.files.keys()].join(', ')}.`);
    return bytes;
  }

  version(): Promise<string> {
    return this.browser.version();
  }

  crashGpu(): Promise<void> {
    return crashGpuOf(this.browser);
  }

  async close(): Promise<void> {
    await this.browser.close();
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** Ends Chrome's GPU process, as a driver's crash would. */
export async function crashGpuOf(browser: Browser): Promise<void> {
  const session = await browser.target().createCDPSession();
  // The command ends the process that would answer it.
  await Promise.race([session.send('Browser.crashGpuProcess').catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 1000))]);
  await session.detach().catch(() => undefined);
}

/** The user's own Chrome where it is named; else, where it is there, the packaged one, which is the same everywhere. */
export function launch(flags: readonly string[] = [], options: LaunchOptions = {}): Promise<Browser> {
  const isNamed = process.env['CHROME_PATH'] !== undefined || process.env['PUPPETEER_EXECUTABLE_PATH'] !== undefined;
  return launchChrome(isNamed || process.platform !== 'linux' || process.arch !== 'x64' ? 'auto' : 'swiftshader', flags, options);
}

async function bundle(script: string): Promise<Uint8Array> {
  // Modules are imported both at once and when they are needed; with them in one file, the package's own promise to have no side effects
  // makes esbuild forget to run some of the former.
  const result = await build({ entryPoints: [script], bundle: true, write: false, format: 'esm', platform: 'browser', target: 'chrome113', logLevel: 'silent', ignoreAnnotations: true });
  return result.outputFiles[0]!.contents;
}

async function serve(script: Uint8Array, files: Map<string, Uint8Array>): Promise<Server> {
  const server = createServer((request, response) => {
    const respond = (status: number, type: string, body: string | Uint8Array = ''): void => {
      response.writeHead(status, { 'content-type': type, 'content-security-policy': policy, 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' }).end(body);
    };
    const path = request.url ?? '/';
    const name = path.startsWith('/files/') ? decodeURIComponent(path.slice('/files/'.length)) : undefined;
    if (path === '/') respond(200, 'text/html', html);
    else if (path === '/page.js') respond(200, 'text/javascript', script);
    else if (path === '/favicon.ico') respond(204, 'text/plain');
    else if (name !== undefined && request.method === 'PUT') {
      const parts: Uint8Array[] = [];
      request.on('data', (part: Uint8Array) => parts.push(part));
      request.on('end', () => {
        files.set(name, new Uint8Array(Buffer.concat(parts)));
        respond(204, 'text/plain');
      });
    } else if (name !== undefined && files.has(name)) respond(200, 'application/octet-stream', files.get(name)!);
    else respond(404, 'text/plain', `There is no ${path}.`);
  });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return server;
}
