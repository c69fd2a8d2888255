// The inspection page in headless Chrome, from the sample set to a live camera, through reloads, a full disk, crashes of the
// GPU process and a network that is gone. Everything is done as a person does it, by the names that screen readers read.
// It is one visit: each test goes on from what the one before has left, and what takes long serves as many of them as it can.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { unzipSync } from 'fflate';
import type { CDPSession, HTTPRequest } from 'puppeteer';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFailed, test, vi } from 'vitest';
import { renderSample } from '../../src/data/procedural.ts';
import { Inspector } from '../../src/index.ts';
import { runCli } from '../../src/node/cli.ts';
import { encodePng } from '../../src/node/images.ts';
import { AppPage, buildPage, builtPage, patience } from '../support/app-page.ts';
import { writeCameraFile } from '../support/camera-file.ts';
import { projectRoot } from '../support/modules.ts';

vi.setConfig({ testTimeout: 3 * patience, hookTimeout: patience });

const folder = mkdtempSync(join(tmpdir(), 'inp-former-app-'));
const texture = 'brushed-metal';
const camera = join(folder, 'camera.y4m');
/** The camera's film: the good part for so long, then the scratched one, and again. */
const film = { seconds: 5, framesPerSecond: 20 };
const tinyWeights = join(projectRoot, 'weights/tiny/tiny_vit14.safetensors');

let app: AppPage;
/** The model file as the page has exported it. */
let modelFile: string;
/** Pictures on disk, for page and command line. */
let pictures: { name: string; path: string }[];
/** Views that axe-core has looked at, and what it has found. */
const looked: string[] = [];
const accessibilityProblems: string[] = [];
let failed: string | undefined;

beforeAll(async () => {
  const part = (defective: boolean) => renderSample({ texture, seed: 'camera', size: 112, defect: defective ? { kind: 'scratch', strength: 1, extent: 1 } : 'none' }).image;
  writeCameraFile(camera, [part(false), part(true)], { framesPerSecond: film.framesPerSecond, repeat: film.seconds * film.framesPerSecond });
  pictures = await Promise.all((['none', 'scratch', 'stain'] as const).map(async (kind) => {
    const path = join(folder, `${kind}.png`);
    writeFileSync(path, await encodePng(renderSample({ texture, seed: 'files', size: 224, defect: kind === 'none' ? 'none' : { kind, strength: 1, extent: 1 } }).image));
    return { name: `${kind}.png`, path };
  }));
  app = await AppPage.open({ camera });
});

afterAll(async () => {
  await app?.close();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(({ task }) => {
  if (failed !== undefined) throw new Error(`“${failed}” has failed, and this test goes on from where it should have left the page.`);
  onTestFailed(() => { failed = task.name; });
});

test('the first load takes less than 400 kB, gzipped, without the weights', () => {
  buildPage();
  const files = readdirSync(builtPage, { recursive: true, encoding: 'utf8' }).filter((file) => /\.(html|js|css|svg|webmanifest)$/.test(file));
  const bytes = files.reduce((sum, file) => sum + gzipSync(readFileSync(join(builtPage, file))).length, 0);
  expect(bytes).toBeGreaterThan(50_000);
  expect(bytes).toBeLessThan(400_000);
});

/** Settings so small that a processor trains in seconds. The same for all but one training: what was compiled once serves again. */
const small = { Size: 56, Steps: 12 };
const fieldNames = { Size: 'Size pixels; multiples of 14. Larger finds smaller defects.', Steps: 'Steps of training' };

async function beginTraining(name: string, settings: Partial<typeof small>, parts = 20): Promise<void> {
  await app.view('Teach');
  await app.fill('Name', name, 'textbox');
  await app.page.$eval('details', (details) => { details.open = true; });
  for (const [field, value] of Object.entries(settings)) await app.fill(fieldNames[field as keyof typeof small], String(value), 'spinbutton');
  await app.click(`Train on ${parts} parts`);
}

const finished = async (name: string): Promise<void> => { await app.expectText(new RegExp(`“${name}” is ready`)); };

const storedModel = async (name: string): Promise<{ id: string; file: string }> => (await app.stored<{ name: string; id: string; file: string }>('models')).find((model) => model.name === name)!;

async function inspectWith(name: string): Promise<void> {
  await app.view('Inspect');
  await app.page.waitForSelector('main select');
  await app.page.select('main select', (await storedModel(name)).id);
}

async function lookAt(view: string): Promise<void> {
  looked.push(view);
  accessibilityProblems.push(...(await app.accessibilityProblems()).map((problem) => `${view}, ${problem}`));
}

describe('teach, train, inspect', () => {
  test('the sample set is one button away', async () => {
    expect(await app.text()).toContain('Show it good parts. It finds the bad ones.');
    await lookAt('Welcome');
    await app.click('Load the sample set');
    await app.expectText(/20 parts/);
    await app.enabled('Train on 20 parts');
    await app.expectText(/about .*about .*about/s);
    await lookAt('Teach');
  });

  test('training shows its loss and a map, and never blocks the page for 100 ms', async () => {
    await app.page.evaluate(() => {
      const globals = globalThis as unknown as { longTasks: number[] };
      globals.longTasks = [];
      new PerformanceObserver((list) => { globals.longTasks.push(...list.getEntries().map(({ duration }) => duration)); }).observe({ type: 'longtask' });
    });
    const longest = await app.longestTask(async () => {
      await beginTraining('Metal', {});
      await app.expectText(/After [1-9]\d* steps?\./);
      await finished('Metal');
    });
    const longTasks = await app.page.evaluate(() => (globalThis as unknown as { longTasks: number[] }).longTasks);
    console.log(`The page's longest task during training took ${longest.thread.toFixed(0)} ms of its main thread, ${longest.clock.toFixed(0)} ms by the clock; long tasks by the clock: ${longTasks.length === 0 ? 'none' : longTasks.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`);
    // By the thread's own time: on a machine whose cores are all taken by the software adapter the clock says little.
    expect(longest.thread).toBeLessThan(100);
    await lookAt('Teach, trained');
  });

  test('good sample parts are good, defective ones are defective', async () => {
    await app.click('Inspect the sample parts');
    await app.expectText(/\d+ defective of 15\b/);
    const results = await app.results();
    expect(results.map(({ name, verdict }) => `${name} ${verdict}`)).toEqual(results.map(({ name }) => `${name} ${name.startsWith('good') ? 'Good' : 'Defective'}`));
  });

  test('the threshold moves every verdict, and goes back to the calibrated one', async () => {
    const before = await app.results();
    const slider = await app.page.waitForSelector('.histogram input[type="range"]');
    const [low, high] = await slider!.evaluate((input) => [(input as HTMLInputElement).min, (input as HTMLInputElement).max]);
    const move = (to: string) => slider!.evaluate((input, value) => {
      (input as HTMLInputElement).value = value;
      input.dispatchEvent(new Event('input', { bubbles: true }));
    }, to);
    await move(low!);
    await app.expectText(/15 defective of 15/);
    await move(high!);
    expect((await app.results()).filter(({ verdict }) => verdict === 'Defective').length).toBeLessThan(10);
    await app.page.$eval('.histogram button', (button) => button.click());
    expect(await app.results()).toEqual(before);
  });

  test('the value of a point is told', async () => {
    await (await app.page.waitForSelector('.map'))!.click();
    await app.expectText(/Value here: [\d.e-]+/);
    await lookAt('Inspect');
  });

  test('results are sorted, filtered and exported', async () => {
    await app.page.$$eval('th button', (buttons) => (buttons[2] as HTMLButtonElement).click());
    const scores = (await app.results()).map(({ score }) => score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    await app.page.$$eval('.segmented input', (inputs) => (inputs[2] as HTMLInputElement).click());
    expect((await app.results()).map(({ verdict }) => verdict)).toEqual(Array.from({ length: 10 }, () => 'Defective'));
    const zip = unzipSync(readFileSync(await app.downloaded(() => app.click('ZIP of overlays'), /^inspection\.zip$/)));
    expect(Object.keys(zip).filter((name) => name.startsWith('overlays/'))).toHaveLength(10);
    const csv = new TextDecoder().decode(zip['results.csv']).trim().split('\r\n');
    expect(csv[0]).toBe('name,score,threshold,verdict,width,height,regions');
    expect(csv.slice(1).every((line) => line.includes(',defective,224,224,'))).toBe(true);
    const json = JSON.parse(readFileSync(await app.downloaded(() => app.click('JSON'), /^inspection\.json$/), 'utf8')) as { results: { regions: object[] }[] };
    expect(json.results.every(({ regions }) => regions.length > 0)).toBe(true);
    await app.page.$$eval('.segmented input', (inputs) => (inputs[0] as HTMLInputElement).click());
    await app.click('Clear');
  });
});

test('an exported model opens again, and the command line gives the same scores with that very file', async () => {
  await app.view('Models');
  modelFile = await app.downloaded(() => app.click('Export'), /^Metal\.safetensors$/);
  expect(Inspector.readMetadata(readFileSync(modelFile)).training.steps).toBe(40);
  await app.giveFiles('Open a model file', [modelFile]);
  await app.expectNotice(/Metal is opened and kept/);
  expect(await app.stored('models')).toHaveLength(2);

  await app.view('Inspect');
  await app.giveFiles('Choose pictures', pictures.map(({ path }) => path));
  await app.expectText(/\d defective of 3\b/);
  const exported = JSON.parse(readFileSync(await app.downloaded(() => app.click('JSON'), /^inspection\.json$/), 'utf8')) as { results: { name: string; score: number; verdict: string }[] };
  const lines: string[] = [];
  const io = { stdout: { write: (text: string) => lines.push(text) }, stderr: { write: () => true }, signal: new AbortController().signal };
  expect(await runCli(['inspect', '--model', modelFile, '--adapter', 'swiftshader', '--json', '--out', join(folder, 'heat'), ...pictures.map(({ path }) => path)], io as never)).toBe(0);
  const told = (JSON.parse(lines.join('').trim().split('\n').at(-1)!) as { images: { file: string; score: number; verdict: string }[] }).images;
  for (const { path, name } of pictures) {
    const onPage = exported.results.find((result) => result.name === name)!;
    const onCommandLine = told.find(({ file }) => file === path)!;
    expect(Math.abs(onPage.score - onCommandLine.score), name).toBeLessThan(1e-5);
    expect(onPage.verdict).toBe(onCommandLine.verdict);
  }
});

test('the whole way goes by keyboard alone', async () => {
  const { keyboard } = app.page;
  const focused = () => app.page.evaluate(() => {
    const element = document.activeElement as HTMLElement & { labels?: NodeListOf<HTMLLabelElement> };
    return { name: element.getAttribute('aria-label') ?? element.labels?.[0]?.innerText ?? element.innerText, visible: element.matches(':focus-visible') };
  });
  /** Tabs forward until the focus is on the control of that name, and shown there. */
  const tabTo = async (name: RegExp): Promise<void> => {
    for (let i = 0; i < 150; i++) {
      const { name: now, visible } = await focused();
      if (visible && name.test(now)) return;
      await keyboard.press('Tab');
    }
    throw new Error(`Tab does not lead to ${name}; the page says:\n${await app.text()}`);
  };
  const press = async (name: RegExp): Promise<void> => {
    await tabTo(name);
    await keyboard.press('Enter');
  };
  await press(/^Teach/);
  await press(/^Remove all/);
  await app.expectText(/Drop pictures or a folder here/);
  await press(/^Load the sample set/);
  await app.enabled('Train on 20 parts');
  await tabTo(/^Name/);
  await keyboard.down('Control');
  await keyboard.press('a');
  await keyboard.up('Control');
  await keyboard.type('By keyboard');
  await press(/^More settings/);
  for (const [field, value] of Object.entries(small)) {
    await tabTo(new RegExp(`^${field}`));
    await keyboard.type(String(value));
  }
  await press(/^Train on 20 parts/);
  await finished('By keyboard');
  await press(/^Inspect the sample parts/);
  await app.expectText(/\d+ defective of 15\b/);
  await tabTo(/^Choose pictures/);
  const dialogue = app.page.waitForFileChooser();
  // Keys take another way into the page than the debugger's requests: now it knows that the test is the dialogue.
  await focused();
  await keyboard.press('Enter');
  await (await dialogue).accept([pictures[1]!.path]);
  await app.expectText(/\d+ defective of 16\b/);
  await press(/^scratch\.png/);
  await app.find('Inspection of scratch.png', 'region');
  await tabTo(/anomaly map/);
  await keyboard.press('ArrowDown');
  const value = await app.expectText(/Value here: [\d.e-]+/);
  for (let i = 0; i < 6; i++) await keyboard.press('ArrowDown');
  expect(await app.expectText(/Value here: [\d.e-]+/)).not.toBe(value);
  await tabTo(/^Threshold/);
  const threshold = (await focused()).name;
  for (let i = 0; i < 5; i++) await keyboard.press('ArrowLeft');
  expect((await focused()).name).not.toBe(threshold);
  await tabTo(/^CSV/);
  expect(readFileSync(await app.downloaded(() => keyboard.press('Enter'), /^inspection\.csv$/), 'utf8').trim().split('\r\n')).toHaveLength(17);
  await press(/^Models/);
  await tabTo(/^Export/);
  await app.downloaded(() => keyboard.press('Enter'), /^By keyboard\.safetensors$/);
});

describe('what befalls a training', () => {
  test('a reload and a crash of the GPU process each go on from the last save, to the same model bit for bit', async () => {
    await beginTraining('Interrupted', small);
    await app.clickWhen(/Training: [2-4] of 12 steps/, 'Pause');
    const saved = Number(/\d+/.exec(await app.expectText(/Saved at step\s+\d+/)));
    await lookAt('Training');

    await app.reload();
    await app.expectText(/A training was interrupted/);
    await lookAt('Teach, interrupted');
    await app.click(`Go on from step ${saved}`);
    const later = Array.from({ length: 12 - saved }, (_, i) => saved + 1 + i);
    await app.expectText(new RegExp(`Training: (${later.join('|')}) of 12 steps`));

    await app.crashGpu();
    await app.expectNotice(/The GPU was lost: .* Getting it back/);
    await app.expectNotice(/The GPU was lost, and is back/);
    await finished('Interrupted');
    const [interrupted, undisturbed] = [await storedModel('Interrupted'), await storedModel('By keyboard')];
    expect(interrupted.file).toBe(undisturbed.file);
    expect(interrupted.id).not.toBe(undisturbed.id);
  });

  test('cancelled, it can be gone on with or discarded', async () => {
    await beginTraining('Cancelled', small);
    await app.clickWhen(/Training: \d+ of 12 steps/, 'Cancel');
    await app.expectText(/A training was interrupted/);
    expect(await app.stored('training')).toHaveLength(1);
    await app.click('Discard it');
    await vi.waitFor(async () => { expect([...await app.stored('training'), ...await app.stored('checkpoint')]).toEqual([]); }, { timeout: patience });
  });

  test('a full disk is told, with what to do', async () => {
    const session = await app.page.createCDPSession();
    const origin = new URL(app.url).origin;
    const [used, parts] = await app.page.evaluate(async () => [(await navigator.storage.estimate()).usage!, document.querySelectorAll('.thumbnails li').length] as const);
    await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: used + 2000 });
    try {
      // Chrome remembers for a while how much room there was.
      for (let taken = 0, refused = false; !refused; taken++) {
        await app.giveFiles('Choose pictures', [pictures[0]!.path]);
        refused = await (await app.page.waitForFunction((count) => {
          if (document.querySelector('.notice')?.textContent.includes('There is no room')) return 'yes';
          return document.querySelectorAll('.thumbnails li').length > count && 'no';
        }, { polling: 100 }, parts + taken)).jsonValue() === 'yes';
        if (!refused) await new Promise((resolve) => setTimeout(resolve, 2000));
      }
      await app.expectNotice(/There is no room on this device to keep this part.*Delete models/);
    } finally {
      await session.send('Storage.overrideQuotaForOrigin', { origin });
      await session.detach();
    }
    await app.page.$$eval(`button[aria-label="Remove ${pictures[0]!.name}"]`, (buttons) => { for (const button of buttons) button.click(); });
    await app.find('Train on 20 parts');
  });
});

describe('the camera', () => {
  const counters = () => app.page.$eval('#live-rate', (element) => ({ ...(element as HTMLElement).dataset }));
  /** Until the live view has inspected so many. */
  const framesDone = async (count: number): Promise<void> => {
    await app.page.waitForFunction((least) => Number(document.querySelector<HTMLElement>('#live-rate')?.dataset['done']) >= least, { polling: 200 }, count);
  };

  test('a good part is taken with the space bar', async () => {
    await app.view('Teach');
    await app.click('Use the camera');
    await app.enabled('Take one space');
    await app.page.waitForFunction(() => document.querySelector('video')!.readyState >= 2);
    await lookAt('Teach, camera');
    await app.page.keyboard.press('Space');
    await app.expectText(/21 parts/);
    await app.click('Close the camera');
    await app.page.$$eval('.thumbnails button', (buttons) => { buttons.at(-1)!.click(); });
    await app.find('Train on 20 parts');
  });

  test('a defect that enters the picture flips the verdict, there and back', async () => {
    await inspectWith('Metal');
    await app.click('Go live');
    for (const verdict of ['Good', 'Defective', 'Good']) await app.expectText(new RegExp(`${verdict}\\s+score`));
  });

  test('a crash of the GPU process is told and survived', async () => {
    await app.crashGpu();
    await app.expectNotice(/The GPU was lost: .* Getting it back/);
    await app.expectNotice(/The GPU was lost, and is back/);
    await framesDone(Number((await counters())['done']) + 3);
    for (const verdict of ['Defective', 'Good']) await app.expectText(new RegExp(`${verdict}\\s+score`));
  });

  test('it can freeze on a defect, and a frame be kept', async () => {
    await app.click('Freeze on a defect', 'checkbox');
    await app.expectText(/Frozen/);
    expect(await app.text()).toMatch(/Defective\s+score/);
    await app.click('Keep this frame');
    await app.expectText(/1 defective of 1\b/);
    expect((await app.results())[0]!.name).toMatch(/^live \d{4}-.*\.png$/);
    await lookAt('Inspect, live');
    await app.click('Freeze on a defect', 'checkbox');
    await app.click('Stop');
  });

  test('over 500 frames memory stays flat, and frames that come too fast are dropped, not queued', async () => {
    await inspectWith('By keyboard');
    await app.click('Go live');
    const [worker] = app.page.workers();
    const memoryAt = async (frames: number) => {
      await framesDone(frames);
      const heapOf = async (session: CDPSession): Promise<number> => {
        await session.send('HeapProfiler.collectGarbage');
        return (await session.send('Runtime.getHeapUsage')).usedSize;
      };
      const page = await app.page.createCDPSession();
      const heap = await heapOf(page) + await heapOf(worker!.client);
      await page.detach();
      return { heap, gpu: Number((await counters())['gpuBytes']) };
    };
    const early = await memoryAt(50);
    const late = await memoryAt(550);
    const { dropped } = await counters();
    console.log(`Live view, frames 50 to 550: heap ${(early.heap / 1e6).toFixed(1)} to ${(late.heap / 1e6).toFixed(1)} MB, GPU ${(early.gpu / 1e6).toFixed(1)} to ${(late.gpu / 1e6).toFixed(1)} MB, ${dropped} frames dropped`);
    expect(late.gpu).toBe(early.gpu);
    expect(early.gpu).toBeGreaterThan(0);
    expect(late.heap).toBeLessThan(early.heap + 3e6);
    // While the model was opened at least.
    expect(Number(dropped)).toBeGreaterThan(0);
    expect(await app.mostFramesAtWork()).toBe(1);
    await app.click('Stop');
  });

  test('a crash while nothing runs is told too, and a picture gets the same score on the new device', async () => {
    const result = async () => {
      await app.giveFiles('Choose pictures', [pictures[1]!.path]);
      await app.expectText(/\d defective of 1\b/);
      return await app.results();
    };
    const before = await result();
    await app.click('Clear');
    await app.crashGpu();
    await app.expectNotice(/The GPU was lost: .* Getting it back/);
    await app.expectNotice(/The GPU was lost, and is back/);
    expect(await result()).toEqual(before);
  });

  test('a refusal is told, with what to do', async () => {
    // Headless Chrome asks nobody; an answer's policy makes it refuse all the same.
    const tab = await app.browser.newPage();
    await tab.setBypassServiceWorker(true);
    await tab.setRequestInterception(true);
    tab.on('request', async (request) => {
      if (!request.isNavigationRequest()) return request.continue();
      const answer = await fetch(app.url);
      await request.respond({ status: answer.status, headers: { ...Object.fromEntries(answer.headers), 'permissions-policy': 'camera=()' }, body: await answer.text() });
    });
    await tab.goto(`${app.url}#inspect`);
    await tab.locator('::-p-aria(Go live)').setTimeout(patience).click();
    const told = await tab.waitForFunction(() => document.querySelector<HTMLElement>('.note.error')?.innerText, { polling: 100, timeout: patience });
    expect(await told.jsonValue()).toContain('The camera was refused. Allow it for this page');
    await tab.close();
  });
});

test('of few pictures it learns by few-shot training, and says so', async () => {
  await app.view('Teach');
  await app.click('Remove all');
  await app.giveFiles('Choose pictures', [pictures[0]!.path, pictures[0]!.path]);
  await app.expectText(/2 parts: this will be few-shot training/);
  await beginTraining('Few', { ...small, Steps: 3 }, 2);
  await app.expectText(/Trained on 2 pictures in 44 views \(few-shot\), 3 steps/);
});

describe('nothing leaves the device', () => {
  test('every request was for a file of the page, and carried nothing', () => {
    expect(app.requests.length).toBeGreaterThan(5);
    const own = new URL(app.url).href;
    expect(app.requests.filter(({ url, method, body }) => !(method === 'GET' && body === undefined && (url.startsWith(own) && !url.includes('?') || url.startsWith('blob:'))))).toEqual([]);
  });

  test('the policy refuses eval, inline script and style, and other hosts, in the page and in its worker', async () => {
    const attempts = async (): Promise<string[]> => {
      const allowed: string[] = [];
      // In a task of the page's own: what the debugger calls may evaluate.
      await new Promise((resolve) => { setTimeout(resolve); });
      await fetch('https://example.org/').then(() => allowed.push('another host'), () => undefined);
      try {
        // eslint-disable-next-line no-new-func
        if (new Function('return 1')() === 1) allowed.push('eval');
      } catch { /* refused */ }
      return allowed;
    };
    const before = app.problems.length;
    expect(await app.page.evaluate(() => {
      const element = document.createElement('script');
      element.textContent = 'globalThis.wasInline = true';
      document.head.append(element);
      return (globalThis as { wasInline?: boolean }).wasInline === true;
    })).toBe(false);
    expect(await app.page.evaluate(attempts)).toEqual([]);
    expect(await app.page.workers()[0]!.evaluate(attempts)).toEqual([]);
    // What was refused is in the console; nothing else may be there.
    const refused = app.problems.splice(before);
    expect(refused.length).toBeGreaterThan(0);
  });

  test('the console has shown no error all the while', () => {
    expect(app.problems.join('\n')).toBe('');
  });
});

describe('encoders', () => {
  test('what is downloaded is held to its hash', async () => {
    const asked: string[] = [];
    await app.page.setRequestInterception(true);
    const answer = (request: HTTPRequest): void => {
      if (new URL(request.url()).origin === new URL(app.url).origin) return void request.continue();
      asked.push(`${request.method()} ${request.url()} ${request.postData() ?? ''}`.trim());
      return void request.respond({ status: 200, headers: { 'access-control-allow-origin': '*', 'content-type': 'application/octet-stream' }, body: readFileSync(tinyWeights) });
    };
    app.page.on('request', answer);
    await app.view('Teach');
    await app.click('Download dinov2-small (88 MB, once)');
    await app.expectText(/what was downloaded has the SHA-256 7d4dc42c0cc9…, expected ae1e99fcefd5…\. It is not kept/);
    app.page.off('request', answer);
    await app.page.setRequestInterception(false);
    expect(asked).toEqual(['GET https://huggingface.co/facebook/dinov2-small/resolve/main/model.safetensors']);
    expect(await app.stored('encoders')).toEqual([]);
  });

  test('a weights file is opened and kept; one that is none is told', async () => {
    await app.giveFiles('Open a weights file', [tinyWeights]);
    await app.expectText(/The encoder tiny_vit14 is on this device now/);
    expect((await app.stored<{ name: string }>('encoders')).map(({ name }) => name)).toEqual(['tiny_vit14']);
    await app.giveFiles('Open a weights file', [modelFile]);
    await app.expectText(/Metal\.safetensors has no tensor "embeddings/);
    await lookAt('Models');
  });
});

test('axe-core has found nothing to mend in any view, light or dark', () => {
  expect(accessibilityProblems.join('\n')).toBe('');
  expect(looked).toHaveLength(9);
});

test('the second visit works without a network', async () => {
  await app.page.evaluate(() => navigator.serviceWorker.ready);
  await app.stopServer();
  await app.visit({ offline: true });
  await inspectWith('Metal');
  await app.giveFiles('Choose pictures', [pictures[2]!.path]);
  await app.expectText(/1 defective of 1\b/);
});
