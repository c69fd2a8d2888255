/**
 * `npm run app:screenshots`: the page's views as pictures, light and dark, 360, 820 and 1440 pixels wide, in out/screenshots.
 * It teaches the sample set to have something to show; `--steps N` and `--size N` make that quicker or better.
 */
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { renderSample } from '../src/data/procedural.ts';
import { AppPage } from '../test/support/app-page.ts';
import { writeCameraFile } from '../test/support/camera-file.ts';

const widths = [360, 820, 1440];
const schemes = ['light', 'dark'];

export async function takeScreenshots(argv: readonly string[], root: string): Promise<void> {
  const { values } = parseArgs({ args: [...argv], options: { out: { type: 'string', default: join(root, 'out/screenshots') }, steps: { type: 'string', default: '40' }, size: { type: 'string', default: '112' } } });
  mkdirSync(values.out, { recursive: true });
  const camera = join(mkdtempSync(join(tmpdir(), 'inp-former-camera-')), 'camera.y4m');
  writeCameraFile(camera, [renderSample({ texture: 'brushed-metal', seed: 'live', size: 480, defect: { kind: 'scratch', strength: 1, extent: 1 } }).image], { framesPerSecond: 10, repeat: 2 });
  const app = await AppPage.open({ camera });
  const { page } = app;

  const shoot = async (name: string): Promise<void> => {
    for (const scheme of schemes) {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      for (const width of widths) {
        await page.setViewport({ width, height: width < 500 ? 740 : 900 });
        // The header sticks to the top of what is in sight.
        await page.evaluate(() => scrollTo(0, 0));
        // Charts follow the width a moment later.
        await new Promise((resolve) => setTimeout(resolve, 400));
        await page.screenshot({ path: join(values.out, `${name}-${scheme}-${width}.png`), fullPage: true });
      }
    }
    console.log(name);
  };

  try {
    await shoot('welcome');
    await app.click('Load the sample set');
    await app.expectText(/20 parts/);
    await app.expectText(/about .*about .*about/s);
    await shoot('teach');
    await app.click('Use the camera');
    await app.page.waitForFunction(() => (document.querySelector('video')?.readyState ?? 0) >= 2);
    await shoot('camera');
    await app.click('Close the camera');
    await page.$eval('details', (details) => { details.open = true; });
    await app.fill('Size pixels; multiples of 14. Larger finds smaller defects.', values.size, 'spinbutton');
    await app.fill('Steps of training', values.steps, 'spinbutton');
    await app.click('Train on 20 parts');
    await app.expectText(new RegExp(`Training: ${Math.ceil(Number(values.steps) / 2)} of`));
    await app.click('Pause');
    await app.expectText(/Saved at step\s+\d/);
    await shoot('training');
    await app.click('Go on');
    await app.expectText(/is ready/);
    await shoot('trained');
    await app.click('Inspect the sample parts');
    await app.expectText(/\d+ defective of 15\b/);
    await page.$$eval('.pick', (buttons) => (buttons[5] as HTMLButtonElement).click());
    await page.waitForSelector('.heat');
    await shoot('inspect');
    await app.click('See why');
    await page.waitForSelector('.prototypes', { timeout: 600_000 });
    await shoot('why');
    await page.$$eval('.prototype', (buttons) => (buttons[1] as HTMLButtonElement).click());
    await shoot('why-one');
    await app.click('Close the explanation');
    await app.click('Go live');
    await app.expectText(/frames\/s; [3-9]/);
    await app.click('Freeze');
    await shoot('live');
    await app.click('Stop');
    await app.view('Models');
    await shoot('models');
  } finally {
    await app.close();
  }
}
