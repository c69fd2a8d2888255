// "See why" in headless Chrome: prototypes, the point's report by keyboard and pointer, the groups' maps, and what a model that
// has no prototypes says instead. The models' weights are random, so that nothing has to be trained first.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { renderSample } from '../../src/data/procedural.ts';
import { encodePng } from '../../src/node/images.ts';
import { loadEncoderWeights } from '../../src/weights/encoder.ts';
import { AppPage } from '../support/app-page.ts';
import { randomModel } from '../support/model-file.ts';
import { projectRoot } from '../support/modules.ts';

const minutes = (count: number): number => count * 60_000;
const folder = mkdtempSync(join(tmpdir(), 'inp-former-why-'));
const at = (name: string): string => join(folder, name);

let app: AppPage;

beforeAll(async () => {
  const encoder = await loadEncoderWeights(readFileSync(join(projectRoot, 'weights/tiny/tiny_vit14.safetensors')), { name: 'tiny_vit14' });
  const size = { resize: 56, crop: 56, mapSize: 64 };
  writeFileSync(at('prototypes.safetensors'), randomModel(encoder, { ...size, numPrototypes: 3 }));
  writeFileSync(at('memory.safetensors'), randomModel(encoder, { ...size, method: 'memory', memoryRows: 20 }));
  for (const seed of ['first', 'second']) {
    writeFileSync(at(`${seed}.png`), await encodePng(renderSample({ texture: 'leather', seed, size: 120, defect: { kind: 'hole', strength: 1, extent: 1 } }).image));
  }
  app = await AppPage.open();
  await app.view('Inspect');
}, minutes(5));

afterAll(async () => {
  await app?.close();
  rmSync(folder, { recursive: true, force: true });
});

const inspect = async (...pictures: string[]): Promise<void> => {
  await app.giveFiles('Choose pictures', pictures.map(at));
  await app.expectText(new RegExp(`${pictures.length} defective of ${pictures.length}\\b`), minutes(2));
};
const texts = (selector: string): Promise<string[]> => app.page.$$eval(selector, (elements) => elements.map((element) => (element as HTMLElement).innerText.replaceAll(/\s+/g, ' ').trim()));
/** Of the groups, in the order of the page. */
const figure = async (title: string): Promise<number[]> => (await texts('.why figcaption .figures > div')).filter((text) => text.startsWith(title)).map((text) => Number(text.slice(title.length)));
const pressed = (): Promise<number> => app.page.$$eval('.prototype', (buttons) => buttons.findIndex((button) => button.getAttribute('aria-pressed') === 'true'));
/** Bytes of what a map shows as its layer, as a text that two pictures don't share. */
const layer = (): Promise<string> => app.page.$eval('.map .layer', (canvas) => (canvas as HTMLCanvasElement).toDataURL());

describe('see why', () => {
  test('the picture is inspected again, and its prototypes are a list that sums up to the picture', async () => {
    await app.giveFiles('Open a model file', [at('prototypes.safetensors')]);
    await app.expectText(/prototypes is opened and kept/);
    await inspect('first.png', 'second.png');
    await (await app.page.waitForSelector('.map'))!.click();
    await app.expectText(/Value here: [\d.e-]+\s+Which prototype/);
    await app.click('Which prototype was it compared with?');
    await app.expectText(/What each patch was compared with/, minutes(2));
    const legend = await texts('.prototypes li');
    expect(legend.map((text) => /^Prototype (\d)/.exec(text)?.[1])).toEqual(['1', '2', '3']);
    const shares = legend.map((text) => Number(/(\d+) % of the picture/.exec(text)?.[1] ?? 0));
    expect(Math.abs(shares.reduce((a, b) => a + b, 0) - 100)).toBeLessThanOrEqual(2);
    expect(await app.page.evaluate(() => document.activeElement?.textContent)).toBe('Why defective?');
    // One patch each, that is not blank.
    const exemplars = await app.page.$$eval('.exemplar canvas', (canvases) => canvases.map((canvas) => (canvas as HTMLCanvasElement).toDataURL().length));
    expect(exemplars).toHaveLength(3);
    expect(Math.min(...exemplars)).toBeGreaterThan(500);
  }, minutes(3));

  test('choosing a prototype shows what is like it, and choosing it again all of them', async () => {
    const all = await layer();
    await app.page.$$eval('.prototype', (buttons) => { (buttons[1] as HTMLButtonElement).click(); });
    await app.expectText(/unlike prototype 2/);
    expect(await pressed()).toBe(1);
    const second = await layer();
    expect(second).not.toBe(all);
    await app.page.$$eval('.prototype', (buttons) => { (buttons[1] as HTMLButtonElement).click(); });
    await app.expectText(/Each patch in the colour of its prototype/);
    expect(await layer()).toBe(all);
  });

  test('arrow keys move the point, and its report: value, prototype, likeness to each', async () => {
    const report = async () => {
      const [readout] = await texts('.readout');
      const similarities = (await texts('.point .bars li')).map((text) => Number(/[−\d.]+$/.exec(text)![0].replace('−', '-')));
      return { readout: readout!, similarities, own: Number(/prototype (\d)/.exec(readout!)![1]) - 1 };
    };
    await app.page.focus('.why .map');
    const seen = new Set<string>();
    for (const key of ['ArrowLeft', 'ArrowUp', 'ArrowRight', 'ArrowDown', 'ArrowLeft', 'ArrowLeft', 'ArrowLeft'] as const) {
      for (let i = 0; i < 3; i++) await app.page.keyboard.press(key);
      const { readout, similarities, own } = await report();
      expect(readout).toMatch(/^Value here: [\d.e-]+, compared with prototype [123]$/);
      expect(similarities).toHaveLength(3);
      expect(similarities[own]).toBe(Math.max(...similarities));
      seen.add(JSON.stringify([readout, similarities]));
    }
    expect(seen.size).toBeGreaterThan(3);
    const [before] = await texts('.readout');
    await (await app.page.$('.why-maps .map'))!.click({ offset: { x: 12, y: 12 } });
    expect(await texts('.readout')).not.toEqual([before]);
  });

  test('the groups have a map each, and their errors where the score is taken have the score as their mean', async () => {
    expect(await texts('.why-maps figcaption > b')).toEqual(['Earlier layers', 'Later layers']);
    expect(await app.page.$$eval('.why-maps .heat', (canvases) => new Set(canvases.map((canvas) => (canvas as HTMLCanvasElement).toDataURL())).size)).toBe(2);
    const [earlier, later] = await figure('In the score') as [number, number];
    const score = Number(/score ([\d.]+)/.exec((await texts('.verdict'))[0]!)![1]);
    expect(Math.abs((earlier + later) / 2 - score)).toBeLessThan(0.01 * score);
    const [means, worst] = [await figure('Mean error'), await figure('Worst 1 %')];
    means.forEach((mean, g) => expect(mean).toBeLessThan(worst[g]!));
  });

  test('it follows to the next picture, and axe-core finds nothing to mend in it', async () => {
    const first = await texts('.prototypes li');
    await app.page.$$eval('.pick', (buttons) => { (buttons[1] as HTMLButtonElement).click(); });
    await app.page.waitForSelector('.viewer[aria-label="Inspection of second.png"] .prototypes');
    expect(await texts('.prototypes li')).not.toEqual(first);
    expect((await app.accessibilityProblems()).join('\n')).toBe('');
    // Narrow, nothing is wider than the page.
    await app.page.setViewport({ width: 360, height: 740 });
    expect(await app.page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    await app.page.setViewport({ width: 1200, height: 900 });
  }, minutes(2));

  test('a memory says that it has no prototypes, and shows its groups', async () => {
    await app.view('Models');
    await app.giveFiles('Open a model file', [at('memory.safetensors')]);
    await app.expectText(/memory is opened and kept/);
    await app.view('Inspect');
    await inspect('first.png');
    await app.expectText(/This model has no prototypes\. It is a memory/, minutes(2));
    expect(await texts('.prototypes li')).toEqual([]);
    expect(await figure('Mean distance')).toHaveLength(2);
    await app.click('Close the explanation');
    await app.expectText(/Value here: [\d.e-]+\s+See why/);
    expect(app.problems.join('\n')).toBe('');
  }, minutes(3));
});
