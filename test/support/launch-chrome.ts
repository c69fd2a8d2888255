/**
 * Chrome for the tests and the benchmark. `gpu` is the user's own (CHROME_PATH or PUPPETEER_EXECUTABLE_PATH names it, else
 * the installed one), or the packaged Chromium of @sparticuz/chromium where a graphics device is in sight; `swiftshader` is
 * the packaged one, or the user's with the software adapter; `auto` is the first of these that has an adapter.
 */
import { existsSync } from 'node:fs';
import puppeteer, { type Browser, type LaunchOptions } from 'puppeteer';

export type ChromeAdapter = 'auto' | 'gpu' | 'swiftshader';

/** As a user's browser has them, but for what a machine without a GPU and a crash on purpose need. */
const commonFlags = ['--enable-unsafe-webgpu', '--disable-quic', '--no-first-run', '--disable-gpu-process-crash-limit', '--disable-domain-blocking-for-3d-apis'];
const softwareFlags = ['--use-webgpu-adapter=swiftshader'];
/** Headless Chrome on Linux leaves the GPU alone unless it is told to use it. */
const linuxGpuFlags = process.platform === 'linux' ? ['--enable-features=Vulkan', '--use-angle=vulkan', '--ignore-gpu-blocklist'] : [];
const advice = 'Install Chrome, or name its program in CHROME_PATH; on Linux x64 the npm package @sparticuz/chromium brings one with a software adapter.';

/** @param flags further ones; @throws Error: what was looked for and what to do */
export async function launchChrome(adapter: ChromeAdapter, flags: readonly string[] = [], options: LaunchOptions = {}): Promise<Browser> {
  const named = process.env['CHROME_PATH'] ?? process.env['PUPPETEER_EXECUTABLE_PATH'];
  const own: LaunchOptions = named ? { executablePath: named, args: ['--no-sandbox'] } : { channel: 'chrome', args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] };
  const hasPackaged = process.platform === 'linux' && process.arch === 'x64';
  const packaged = async (): Promise<LaunchOptions> => {
    const { default: chromium } = await import('@sparticuz/chromium');
    return { executablePath: await chromium.executablePath(), headless: 'shell', args: ['--no-sandbox'] };
  };
  const launch = (base: LaunchOptions, more: readonly string[]) => puppeteer.launch({ ...options, ...base, args: [...base.args!, ...commonFlags, ...more, ...flags] });

  const found: string[] = [];
  if (adapter !== 'swiftshader') {
    const candidates: (() => Promise<LaunchOptions>)[] = [async () => own];
    if (hasPackaged && !named && (existsSync('/dev/dri') || existsSync('/dev/nvidia0'))) candidates.push(packaged);
    for (const candidate of candidates) {
      try {
        const browser = await launch(await candidate(), linuxGpuFlags);
        const name = await adapterName(browser);
        if (name !== undefined && !/swiftshader|llvmpipe|software/i.test(name)) return browser;
        found.push(name ?? 'a browser without a WebGPU adapter');
        await browser.close();
      } catch (error) {
        found.push(String(error).split('\n')[0]!);
      }
    }
    if (adapter === 'gpu') throw new Error(`No Chrome with a GPU; found: ${found.join('; ')}. ${advice}`);
  }
  try {
    return await launch(named || !hasPackaged ? own : await packaged(), softwareFlags);
  } catch (cause) {
    throw new Error(`No Chrome could be started: ${String(cause).split('\n')[0]}. ${advice}`, { cause });
  }
}

/** What WebGPU calls the adapter; undefined where there is none. */
async function adapterName(browser: Browser): Promise<string | undefined> {
  const page = await browser.newPage();
  try {
    // chrome: pages are a secure context, without a server.
    await page.goto('chrome://version');
    return await page.evaluate(async () => {
      const adapter = await navigator.gpu?.requestAdapter();
      return adapter ? `${adapter.info.vendor} ${adapter.info.architecture} ${adapter.info.description}` : undefined;
    });
  } finally {
    await page.close();
  }
}
