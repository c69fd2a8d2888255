// The report is one file that needs nothing beside itself, and no name in it can become markup.
import { describe, expect, it } from 'vitest';
import { imageUri, renderReport, type Report, type ReportImage } from '../../src/node/report.ts';

const picture = { width: 4, height: 3, channels: 3, data: new Uint8Array(36).fill(90) } as const;

async function example(): Promise<Report> {
  const uri = await imageUri(picture);
  const image = (name: string, score: number, verdict: ReportImage['verdict'], truth?: string): ReportImage => ({ name, score, verdict, truth, source: uri, overlay: uri });
  return {
    title: 'Cloth & <metal>',
    subtitle: 'a "report"',
    figures: [{ label: 'Image AUROC', value: '0.990', note: 'a note' }],
    sections: [{
      title: 'cloth',
      description: 'described',
      metrics: { imageAuroc: 0.9876, imageAp: 1, imageF1Max: 0.5, pixelAuroc: null, pixelAp: 0.25, pixelF1Max: 0.3, aupro: 0.4 },
      threshold: 0.5,
      thresholdRule: 'a rule',
      phases: [{ name: 'training', seconds: 12.34 }, { name: 'inspecting', seconds: 1 }],
      images: [
        image('hit.png', 0.9, 'defective', 'scratch'),
        image('<script>alert(1)</script>', 0.2, 'good', 'good'),
        image('missed.png', 0.3, 'good', 'stain'),
        image('unknown.png', 0.6, 'defective'),
      ],
    }],
    details: [['Adapter', 'A & B']],
  };
}

describe('renderReport', () => {
  it('shows figures, metrics, times, the histogram and every image with its outcome', async () => {
    const html = renderReport(await example());
    for (const text of ['0.988', '12.3 s', '13.3 s', 'a rule', '2 of 3 verdicts are right', '>missed<', '>right<', 'Scores of 4 images']) expect(html).toContain(text);
    expect(html).toContain('<td>–</td>');
    expect(html.match(/<li[ >]/g)).toHaveLength(4);
    expect(html.match(/<rect/g)!.length).toBeGreaterThanOrEqual(4);
    // The wrong verdict comes first.
    expect(html.indexOf('missed.png')).toBeLessThan(html.indexOf('hit.png'));
  });

  it('escapes all text', async () => {
    const html = renderReport(await example());
    expect(html).not.toContain('<script');
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(html).toContain('<title>Cloth &amp; &lt;metal&gt;</title>');
    expect(html).toContain('a &quot;report&quot;');
  });

  it('loads nothing from anywhere, and knows dark and light', async () => {
    const html = renderReport(await example());
    expect(html).not.toMatch(/https?:|url\(|@import|<link/);
    for (const [, source] of html.matchAll(/src="([^"]*)"/g)) expect(source).toMatch(/^data:image\/jpeg;base64,/);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html.startsWith('<!doctype html>')).toBe(true);
  });

  it('survives no images, equal scores and no metrics', async () => {
    const report = await example();
    const [section] = report.sections;
    const empty = renderReport({ ...report, sections: [{ ...section!, images: [], metrics: undefined, phases: [] }] });
    expect(empty).not.toMatch(/NaN|undefined/);
    const equal = renderReport({ ...report, sections: [{ ...section!, threshold: 0.2, images: [section!.images[1]!] }] });
    expect(equal).not.toMatch(/NaN|undefined|Infinity/);
  });
});
