/** Results as files: a table as CSV or JSON, and a ZIP with both and an overlay of every picture. */
import { strToU8, Zip, ZipPassThrough } from 'fflate';
import { decodeImageBlob, overlay } from '../../../src/browser/index.ts';
import { judge, type Judgement } from '../judge.ts';
import type { ExportRequest, ExportRow } from '../protocol.ts';
import { storage, type StoredModel } from '../storage.ts';
import { tell } from './events.ts';
import { pngOf } from './pictures.ts';

/** As on the page and on the command line. */
const outline = [0, 229, 255] as const;

export async function exportResults({ modelId, threshold, format, opacity, rows }: ExportRequest): Promise<Blob> {
  const model = (await storage.model(modelId))!;
  const judged: { row: ExportRow; judgement: Judgement; map: Float32Array }[] = [];
  const files = new ZipFile();
  for (const [i, row] of rows.entries()) {
    const map = new Float32Array(await row.map.arrayBuffer());
    const judgement = judge(row.score, map, model.metadata, threshold, row.place);
    if (format === 'zip') await files.add(`overlays/${overlayName(row.name, i)}`, await overlayOf(row, map, judgement, model, opacity));
    judged.push({ row, judgement, map: format === 'zip' ? new Float32Array() : map });
    tell({ kind: 'exported', done: i + 1, total: rows.length });
  }
  const table = judged.map(({ row: { name, score, place: { width, height } }, judgement: { verdict, regions } }) => ({
    name, score, threshold, verdict, width, height, regions: regions.map(({ source, peak }) => ({ ...source, peak })),
  }));
  const json = `${JSON.stringify({ model: model.name, encoder: model.metadata.encoder.name, threshold, results: table }, undefined, 2)}\n`;
  const csv = [
    'name,score,threshold,verdict,width,height,regions',
    ...table.map((r) => [quoted(r.name), r.score, r.threshold, r.verdict, r.width, r.height, quoted(r.regions.map(({ x, y, width, height }) => `${x} ${y} ${width} ${height}`).join('; '))].join(',')),
  ].join('\r\n') + '\r\n';
  if (format === 'csv') return new Blob([csv], { type: 'text/csv' });
  if (format === 'json') return new Blob([json], { type: 'application/json' });
  await files.add('results.csv', new Blob([csv]));
  await files.add('results.json', new Blob([json]));
  return files.end();
}

async function overlayOf({ image, name, place }: ExportRow, map: Float32Array, { mask }: Judgement, { metadata }: StoredModel, opacity: number): Promise<Blob> {
  const { calibration } = metadata;
  return pngOf(overlay(await decodeImageBlob(image, name), map, {
    mapWidth: place.mapWidth, mapHeight: place.mapHeight, placement: place, opacity, scale: { low: calibration.scaleLow, high: calibration.scaleHigh }, outlines: [{ mask, colour: outline }],
  }));
}

/** A number first, so that two pictures of one name stay two. */
const overlayName = (name: string, index: number): string => `${String(index + 1).padStart(4, '0')} ${name.replaceAll(/[\\/:*?"<>|]/g, '_').replace(/\.\w+$/, '')}.png`;

const quoted = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The pictures are compressed already. Parts go into a Blob as they come, so that they need not lie in memory all at once. */
class ZipFile {
  private blob = new Blob([]);
  private parts: Uint8Array<ArrayBuffer>[] = [];
  private readonly zip = new Zip((error, part) => {
    if (error) throw error;
    this.parts.push(part as Uint8Array<ArrayBuffer>);
  });

  async add(name: string, content: Blob | string): Promise<void> {
    const file = new ZipPassThrough(name);
    this.zip.add(file);
    file.push(typeof content === 'string' ? strToU8(content) : new Uint8Array(await content.arrayBuffer()), true);
    this.blob = new Blob([this.blob, ...this.parts.splice(0)]);
  }

  end(): Blob {
    this.zip.end();
    return new Blob([this.blob, ...this.parts], { type: 'application/zip' });
  }
}
