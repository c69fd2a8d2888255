/** Inspection: pictures wait in a queue, each becomes a result; what the results mean follows the threshold. */
import { computed, effect, signal } from '@preact/signals';
import { engine } from '../engine-client.ts';
import { download, sortFiles } from '../files.ts';
import { plural } from '../format.ts';
import { verdictOf } from '../judge.ts';
import type { ExportRequest, MapPlace, Picture } from '../protocol.ts';
import { messageOf, notify, remember, remembered, report } from './app.ts';
import { importModel, model, threshold } from './models.ts';

export interface Result {
  readonly id: string;
  readonly modelId: string;
  readonly name: string;
  /** Files stay on disk; a map does as well, once the browser finds that it is large. */
  readonly image: Blob;
  readonly map: Blob;
  readonly place: MapPlace;
  readonly score: number;
  readonly thumbnailUrl: string;
  /** In which they came. */
  readonly order: number;
}

export const results = signal<readonly Result[]>([]);
export const selectedId = signal<string | undefined>(undefined);
export const selected = computed(() => results.value.find(({ id }) => id === selectedId.value));
export const queue = signal<{ done: number; total: number } | undefined>(undefined);
export const opacity = signal(Number(remembered('opacity') ?? 0.75));
effect(() => remember('opacity', String(opacity.value)));
export const live = signal(false);

const waiting: Picture[] = [];
let taken = 0;
let order = 0;

export function enqueue(pictures: readonly Picture[]): void {
  if (!model.value) {
    notify('error', 'There is no model to inspect with: teach one first, or open a model file.');
    return;
  }
  waiting.push(...pictures);
  if (!queue.value) void work();
  else queue.value = { done: taken, total: taken + waiting.length };
}

export function stopQueue(): void {
  waiting.length = 0;
}

async function work(): Promise<void> {
  const failures: string[] = [];
  taken = 0;
  let first: string | undefined;
  while (waiting.length > 0 && model.value) {
    queue.value = { done: taken, total: taken + waiting.length };
    const image = waiting.shift()!;
    try {
      const result = await inspectOne(image, model.value.id);
      results.value = [...results.value, result];
      first ??= result.id;
      if (first === result.id) selectedId.value = first;
    } catch (error) {
      failures.push(messageOf(error));
    }
    taken++;
  }
  queue.value = undefined;
  if (failures.length > 0) notify('error', failures.length === 1 ? failures[0]! : `${failures.length} pictures could not be inspected. ${failures[0]}`);
}

async function inspectOne(image: Picture, modelId: string): Promise<Result> {
  const { score, map, place, thumbnail } = await engine.call('inspect', { modelId, image });
  return {
    id: crypto.randomUUID(), modelId, name: image.name, image: image.image, map: new Blob([map]), place, score,
    thumbnailUrl: URL.createObjectURL(thumbnail), order: order++,
  };
}

export async function inspectFiles(files: Iterable<File>): Promise<void> {
  const { images, weights, others } = sortFiles(files);
  for (const file of weights) await importModel(file);
  if (images.length > 0) enqueue(images.map((image) => ({ name: image.name, image })));
  if (images.length + weights.length === 0) {
    notify('error', others.length === 0 ? 'There are no files in it.' : `${plural(others.length, 'file')}, but none is a picture or a model: give PNG, JPEG or WebP, or a .safetensors model.`);
  }
}

export function clearResults(): void {
  stopQueue();
  for (const { thumbnailUrl } of results.value) URL.revokeObjectURL(thumbnailUrl);
  results.value = [];
  selectedId.value = undefined;
}

// Scores of one model mean nothing to another.
let shownModel: string | undefined;
effect(() => {
  const id = model.value?.id;
  if (shownModel !== undefined && id !== shownModel) queueMicrotask(clearResults);
  shownModel = id;
});

// The table

export type Column = 'order' | 'name' | 'score';
export const sorting = signal<{ column: Column; descending: boolean }>({ column: 'order', descending: false });
export const filter = signal<'all' | 'good' | 'defective'>('all');
export const search = signal('');

export const table = computed(() => {
  const { column, descending } = sorting.value;
  const text = search.value.trim().toLowerCase();
  return results.value
    .filter(({ score, name }) => (filter.value === 'all' || verdictOf(score, threshold.value) === filter.value) && name.toLowerCase().includes(text))
    .sort((a, b) => (column === 'name' ? a.name.localeCompare(b.name, undefined, { numeric: true }) : a[column] - b[column]) * (descending ? -1 : 1));
});

export const counts = computed(() => {
  const defective = results.value.filter(({ score }) => score > threshold.value).length;
  return { all: results.value.length, good: results.value.length - defective, defective };
});

export function sortBy(column: Column): void {
  const now = sorting.value;
  sorting.value = { column, descending: now.column === column ? !now.descending : column === 'score' };
}

export function selectNext(by: 1 | -1): void {
  const rows = table.value;
  const next = rows[rows.findIndex(({ id }) => id === selectedId.value) + by];
  if (next) selectedId.value = next.id;
}

export const exporting = signal<{ done: number; total: number } | undefined>(undefined);

/** What the table shows, in its order. */
export async function exportResults(format: ExportRequest['format']): Promise<void> {
  const of = model.value;
  if (!of) return;
  const rows = table.value.map(({ name, image, map, score, place }) => ({ name, image, map, score, place }));
  const stop = engine.listen((event) => { if (event.kind === 'exported') exporting.value = event; });
  exporting.value = { done: 0, total: rows.length };
  try {
    download(await engine.call('exportResults', { modelId: of.id, threshold: threshold.value, format, opacity: opacity.value, rows }), `inspection.${format}`);
  } catch (error) {
    report(error);
  } finally {
    stop();
    exporting.value = undefined;
  }
}
