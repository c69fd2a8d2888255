/**
 * The inspection page in headless Chrome, as `inp-former serve` serves it, driven as a person would: by the names that
 * buttons and fields have for screen readers. It is built first where it is out of date.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, ElementHandle, HTTPRequest, Page } from 'puppeteer';
import { servePage, type PageServer } from '../../src/node/page-server.ts';
import { crashGpuOf, launch } from './chrome.ts';
import { projectRoot } from './modules.ts';

export const builtPage = join(projectRoot, 'dist/app');

export function buildPage(): void {
  execFileSync(process.execPath, [join(projectRoot, 'app/run.mjs'), 'up-to-date'], { cwd: projectRoot, stdio: ['ignore', 'ignore', 'inherit'] });
}

export interface AppPageOptions {
  /** A .y4m file that plays as the camera, again and again. */
  readonly camera?: string;
  readonly flags?: readonly string[];
}

/** Far more than anything takes: a software adapter on a machine that has other work may be thirty times slower than on an idle one. */
export const patience = 10 * 60_000;

/** What the page has done, for tests that come later than it happened. */
interface PageRecords {
  /** Messages that were shown. */
  noticesTold: string[];
  mostFramesAtWork: number;
}

const pause = <T>(milliseconds: number, value?: T): Promise<T> => new Promise((resolve) => { setTimeout(() => resolve(value as T), milliseconds); });

/** Runs in the page before its own script. */
function keepRecords(): void {
  const records = Object.assign(globalThis as unknown as PageRecords, { noticesTold: [], mostFramesAtWork: 0 });
  const seen = new WeakSet<HTMLElement>();
  new MutationObserver(() => {
    for (const notice of document.querySelectorAll<HTMLElement>('.notice')) {
      if (!seen.has(notice)) records.noticesTold.push(notice.innerText);
      seen.add(notice);
    }
  }).observe(document, { childList: true, subtree: true });
  const frames = new Set<number>();
  const watched = new Set<Worker>();
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (this: Worker, message: { call: number; name: string }, ...rest: unknown[]): void {
    if (message.name === 'inspectFrame') {
      if (!watched.has(this)) this.addEventListener('message', ({ data }: MessageEvent<{ call: number }>) => { frames.delete(data.call); });
      watched.add(this);
      records.mostFramesAtWork = Math.max(records.mostFramesAtWork, frames.add(message.call).size);
    }
    (post as (...all: unknown[]) => void).call(this, message, ...rest);
  };
}

/** A path of its own, because a page that is built must work under any. */
const path = '/any/sub-path/';

export class AppPage {
  readonly url: string;
  /** Uncaught errors and console errors, policy violations among them. */
  readonly problems: string[] = [];
  readonly requests: { url: string; method: string; body: string | undefined }[] = [];
  private readonly server: PageServer;
  private readonly flags: readonly string[];
  /** The browser's profile, which outlives it, and what it downloads. */
  private readonly folder = mkdtempSync(join(tmpdir(), 'inp-former-page-'));
  private readonly downloads = join(this.folder, 'downloads');
  /** How many messages of which load of the page were asked for, or passed over. */
  private heard = { page: 0, count: 0 };
  private session: { readonly browser: Browser; readonly page: Page } | undefined;

  private constructor(server: PageServer, flags: readonly string[]) {
    this.server = server;
    this.url = server.url;
    this.flags = flags;
    mkdirSync(this.downloads);
  }

  static async open({ camera, flags = [] }: AppPageOptions = {}): Promise<AppPage> {
    buildPage();
    const app = new AppPage(await servePage({ path }), [
      // An odd language of the machine's is no fault of the page.
      '--accept-lang=en-US',
      ...(camera === undefined ? [] : ['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', `--use-file-for-fake-video-capture=${camera}`]),
      ...flags,
    ]);
    try {
      await app.visit();
      return app;
    } catch (error) {
      await app.close();
      throw error;
    }
  }

  get browser(): Browser {
    return this.session!.browser;
  }

  /** The tab of the visit. */
  get page(): Page {
    return this.session!.page;
  }

  /**
   * Opens the page in a browser that has just been started, on the profile of the visit before, whose browser is closed.
   * Not in a new tab: that, and the service worker, run in the process of the tab before, which Chromium may end with a
   * segmentation fault of its own where the tab's worker has used WebGPU.
   */
  async visit({ offline = false } = {}): Promise<void> {
    await this.session?.browser.close();
    this.session = undefined;
    const browser = await launch(this.flags, { protocolTimeout: patience, userDataDir: join(this.folder, 'profile') });
    const page = await browser.newPage();
    this.session = { browser, page };
    const downloading = await browser.target().createCDPSession();
    await downloading.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: this.downloads });
    await page.setViewport({ width: 1200, height: 900 });
    page.setDefaultTimeout(patience);
    page.on('pageerror', (error) => this.problems.push(String(error)));
    // A tab that has crashed answers nothing any more: without this, the test would wait for it.
    page.on('error', (error) => {
      this.problems.push(String(error));
      void browser.close();
    });
    page.on('console', (message) => { if (message.type() === 'error') this.problems.push(message.text()); });
    page.on('request', (request: HTTPRequest) => this.requests.push({ url: request.url(), method: request.method(), body: request.postData() }));
    await page.evaluateOnNewDocument(keepRecords);
    await page.setOfflineMode(offline);
    await page.goto(this.url);
    await this.ready();
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.ready();
  }

  private async ready(): Promise<void> {
    await this.page.waitForSelector('html[data-ready]');
  }

  /** By role and accessible name. */
  find(name: string, role = 'button'): Promise<ElementHandle> {
    return this.page.waitForSelector(`::-p-aria([name="${name}"][role="${role}"])`) as Promise<ElementHandle>;
  }

  /** Waits until it can be used. */
  async enabled(name: string, role = 'button'): Promise<ElementHandle> {
    const element = await this.find(name, role);
    await this.page.waitForFunction((node) => !(node as HTMLButtonElement).disabled, { polling: 'mutation' }, element);
    return element;
  }

  async click(name: string, role = 'button'): Promise<void> {
    await (await this.enabled(name, role)).evaluate((node) => (node as unknown as { click(): void }).click());
  }

  /** Clicks a button in the very moment in which the page's text fits: what passes quickly is not missed. */
  async clickWhen(pattern: RegExp, button: string): Promise<void> {
    await this.page.waitForFunction((source, name) => {
      if (!new RegExp(source).test(document.body.innerText)) return false;
      [...document.querySelectorAll('button')].find(({ innerText }) => innerText === name)!.click();
      return true;
    }, { polling: 50 }, pattern.source, button);
  }

  async fill(name: string, text: string, role: string): Promise<void> {
    const element = await this.find(name, role);
    await element.evaluate((node, value) => {
      const input = node as unknown as { value: string; dispatchEvent(event: Event): void };
      input.value = value;
      input.dispatchEvent(new Event('input', { bubbles: true }));
      input.dispatchEvent(new Event('change', { bubbles: true }));
    }, text);
  }

  /** Through the file dialogue's input that belongs to a button. */
  async giveFiles(button: string, files: readonly string[]): Promise<void> {
    const input = await this.page.waitForSelector(`input[type="file"][aria-label="${button}"]`);
    await (input as ElementHandle<HTMLInputElement>).uploadFile(...files);
  }

  text(): Promise<string> {
    return this.page.evaluate(() => document.body.innerText);
  }

  /** Waits until the page's text fits; a failure says what was there, messages of the page's included. */
  expectText(pattern: RegExp, timeout = patience): Promise<string> {
    return this.expectIn(() => this.text(), pattern, timeout);
  }

  /** Waits for a message, which may have gone from the page meanwhile; asks only for what came after the last one asked for. */
  expectNotice(pattern: RegExp): Promise<string> {
    return this.expectIn(async () => {
      const { page, told } = await this.page.evaluate(() => ({ page: performance.timeOrigin, told: (globalThis as unknown as PageRecords).noticesTold }));
      if (this.heard.page !== page) this.heard = { page, count: 0 };
      const news = told.slice(this.heard.count);
      const found = news.findIndex((text) => pattern.test(text));
      this.heard.count += found + 1;
      return (found < 0 ? news : news.slice(found, found + 1)).join('\n');
    }, pattern);
  }

  private async expectIn(read: () => Promise<string>, pattern: RegExp, timeout = patience): Promise<string> {
    let text = '';
    for (const end = Date.now() + timeout; ;) {
      // Chrome sometimes owes an answer for ever that was asked for while its GPU process ended: then it is asked again.
      text = await Promise.race([read(), pause(20_000, text)]);
      const found = pattern.exec(text);
      if (found) return found[0];
      if (Date.now() > end) throw new Error(`Waited for ${pattern}; found:\n${text}\nThe page says:\n${await this.text()}`);
      await pause(100);
    }
  }

  /** Of the frames that the page has given to its worker, the most that were there at one time. */
  mostFramesAtWork(): Promise<number> {
    return this.page.evaluate(() => (globalThis as unknown as PageRecords).mostFramesAtWork);
  }

  async view(name: 'Teach' | 'Inspect' | 'Models'): Promise<void> {
    await this.click(name, 'link');
  }

  /** Rows of the results: picture, score as shown, verdict. */
  results(): Promise<{ name: string; score: number; verdict: string }[]> {
    return this.page.$$eval('tbody tr', (rows) => rows.map((row) => {
      const [, name, score, verdict] = [...row.cells].map((cell) => cell.innerText.trim());
      return { name: name!, score: Number(score), verdict: verdict!.replace(/^\W+/, '') };
    }));
  }

  /** What is stored under a key, or all of a store; blobs as SHA-256. */
  stored<T>(store: string): Promise<T[]> {
    return this.page.evaluate(async (name) => {
      const db = await new Promise<IDBDatabase>((resolve, reject) => {
        const request = indexedDB.open('inspection');
        request.addEventListener('success', () => resolve(request.result));
        request.addEventListener('error', () => reject(request.error));
      });
      const values = await new Promise<object[]>((resolve) => {
        const request = db.transaction(name).objectStore(name).getAll();
        request.addEventListener('success', () => resolve(request.result as object[]));
      });
      db.close();
      const hashed = async (value: unknown): Promise<unknown> => (value instanceof Blob
        ? [...new Uint8Array(await crypto.subtle.digest('SHA-256', await value.arrayBuffer()))].map((b) => b.toString(16).padStart(2, '0')).join('')
        : value);
      return Promise.all(values.map(async (value) => Object.fromEntries(await Promise.all(Object.entries(value).map(async ([key, of]) => [key, await hashed(of)])))));
    }, store) as Promise<T[]>;
  }

  /** Does what starts a download, and waits for the file. */
  async downloaded(start: () => Promise<void>, name: RegExp): Promise<string> {
    for (const file of readdirSync(this.downloads)) if (name.test(file)) rmSync(join(this.downloads, file));
    await start();
    for (const end = Date.now() + patience; Date.now() < end;) {
      const file = readdirSync(this.downloads).find((other) => name.test(other) && !other.endsWith('.crdownload'));
      if (file !== undefined) return join(this.downloads, file);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`No file ${name} was downloaded; there are ${readdirSync(this.downloads).join(', ') || 'none'}. The page says:\n${await this.text()}`);
  }

  /** Violations that axe-core finds in what is shown, light and dark, as one line each. */
  async accessibilityProblems(): Promise<string[]> {
    // As a debugger's script, which the page's policy does not concern.
    if (!await this.page.evaluate(() => 'axe' in globalThis)) await this.page.evaluate(readFileSync(join(projectRoot, 'app/node_modules/axe-core/axe.min.js'), 'utf8'));
    const problems: string[] = [];
    for (const scheme of ['light', 'dark']) {
      await this.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      problems.push(...await this.page.evaluate(async (colours) => {
        const { violations } = await (globalThis as unknown as { axe: { run(options: object): Promise<{ violations: { id: string; help: string; nodes: { html: string; failureSummary: string }[] }[] }> } }).axe
          .run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
        return violations.flatMap(({ id, help, nodes }) => nodes.map(({ html, failureSummary }) => `${colours}: ${id}: ${help}: ${html.slice(0, 200)} ${failureSummary.replaceAll('\n', ' ')}`));
      }, scheme));
    }
    return problems;
  }

  /** The page's longest task while something is done: milliseconds of its main thread, and of the clock, in which other processes take their share. */
  async longestTask(during: () => Promise<void>): Promise<{ thread: number; clock: number }> {
    await this.page.tracing.start({ categories: ['toplevel'] });
    try {
      await during();
    } catch (error) {
      await this.page.tracing.stop();
      throw error;
    }
    interface TraceEvent { name: string; pid: number; tid: number; dur?: number; tdur?: number; args: { name?: string } }
    const { traceEvents } = JSON.parse(Buffer.from((await this.page.tracing.stop())!).toString()) as { traceEvents: TraceEvent[] };
    const main = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
    const tasks = traceEvents.filter(({ name, pid, tid }) => name === 'ThreadControllerImpl::RunTask' && main.has(`${pid} ${tid}`));
    if (tasks.length < 10 || tasks.every(({ tdur }) => tdur === undefined)) throw new Error(`The trace has no tasks with times of their thread: ${tasks.length} tasks in ${traceEvents.length} events.`);
    const longest = (times: (number | undefined)[]): number => times.reduce<number>((most, time = 0) => Math.max(most, time), 0) / 1000;
    return { thread: longest(tasks.map(({ tdur }) => tdur)), clock: longest(tasks.map(({ dur }) => dur)) };
  }

  crashGpu(): Promise<void> {
    return crashGpuOf(this.browser);
  }

  stopServer(): Promise<void> {
    return this.server.close();
  }

  async close(): Promise<void> {
    await this.session?.browser.close();
    await this.server.close();
    // Chrome's other processes may still be writing to the profile.
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}
