/** Teaching: the good parts, the settings, and the training from start over pause, reload and lost devices to the model. */
import { computed, effect, signal, untracked } from '@preact/signals';
import { encoderCatalog } from '../../../src/browser/index.ts';
import { engine } from '../engine-client.ts';
import { sortFiles } from '../files.ts';
import { plural } from '../format.ts';
import { fewShotMost, type EngineEvent, type Picture } from '../protocol.ts';
import { storage, type Part, type StoredEncoder, type StoredTraining, type TrainingSettings } from '../storage.ts';
import { adapter, codeOf, isSoftware, keepAwake, messageOf, notify, report, show } from './app.ts';
import { chooseModel, loadModels, offerSamples } from './models.ts';

export interface ShownPart extends Part {
  readonly url: string;
}

export const parts = signal<readonly ShownPart[]>([]);
/** What is being read, e.g. a folder. */
export const adding = signal<{ what: string; done: number; total: number } | undefined>(undefined);

const shown = (part: Part): ShownPart => ({ ...part, url: URL.createObjectURL(part.thumbnail) });

export const isFewShot = computed(() => parts.value.length >= 1 && parts.value.length <= fewShotMost);

export async function loadTeaching(): Promise<void> {
  parts.value = (await storage.parts()).map(shown);
  encoders.value = await storage.encoders();
  resumable.value = await storage.training();
}

async function addPart(picture: Picture, origin: Part['origin']): Promise<void> {
  const { thumbnail } = await engine.call('thumbnail', picture);
  // Monotonic, also for several in one millisecond.
  const added = Math.max(Date.now(), (parts.value.at(-1)?.added ?? 0) + 1);
  const part: Part = { id: crypto.randomUUID(), name: picture.name, image: picture.image, thumbnail, origin, added };
  await storage.addPart(part);
  parts.value = [...parts.value, shown(part)];
}

async function addAll(pictures: readonly Picture[], origin: Part['origin']): Promise<void> {
  const failures: string[] = [];
  void navigator.storage?.persist?.();
  try {
    for (const [i, picture] of pictures.entries()) {
      adding.value = { what: 'Reading pictures', done: i, total: pictures.length };
      try {
        await addPart(picture, origin);
      } catch (error) {
        if (codeOf(error) === 'storage-full') throw error;
        failures.push(messageOf(error));
      }
    }
  } catch (error) {
    report(error);
  } finally {
    adding.value = undefined;
  }
  if (failures.length > 0) notify('error', failures.length === 1 ? failures[0]! : `${failures.length} files could not be read. ${failures[0]}`);
}

export async function addFiles(files: Iterable<File>): Promise<void> {
  const { images, weights, others } = sortFiles(files);
  for (const file of weights) await addEncoderFile(file);
  if (images.length > 0) await addAll(images.map((image) => ({ name: image.name, image })), 'file');
  if (images.length + weights.length === 0) {
    notify('error', others.length === 0 ? 'There are no files in it.' : `${plural(others.length, 'file')}, but none is a picture: give PNG, JPEG or WebP.`);
  }
}

export async function addFrame(frame: ImageBitmap, name: string): Promise<void> {
  try {
    await addPart({ name, image: await engine.call('encodeFrame', frame, [frame]) }, 'camera');
  } catch (error) {
    report(error);
  }
}

export async function removeParts(ids: readonly string[]): Promise<void> {
  const gone = new Set(ids);
  for (const part of parts.value) if (gone.has(part.id)) URL.revokeObjectURL(part.url);
  parts.value = parts.value.filter(({ id }) => !gone.has(id));
  await storage.removeParts(ids).catch(report);
}

export async function loadSamples(): Promise<void> {
  const stop = engine.listen((event) => {
    if (event.kind === 'samples') adding.value = { what: 'Drawing sample parts', done: event.done, total: event.total };
  });
  adding.value = { what: 'Drawing sample parts', done: 0, total: 1 };
  try {
    const { good, test } = await engine.call('samples');
    await removeParts(parts.value.filter(({ origin }) => origin === 'sample').map(({ id }) => id));
    await addAll(good, 'sample');
    offerSamples(test);
    watched.value = test.find(({ name }) => !name.startsWith('good'));
    if (parts.value.every(({ origin }) => origin === 'sample')) {
      quality.value = 'quick';
      name.value = 'Sample parts';
    }
  } catch (error) {
    report(error);
  } finally {
    stop();
    adding.value = undefined;
  }
}

// Settings

export type Quality = 'quick' | 'normal' | 'thorough';
type Effort = Pick<TrainingSettings, 'size' | 'steps' | 'batchSize'>;
const onGpu: Readonly<Record<Quality, Effort>> = {
  quick: { size: 224, steps: 100, batchSize: 8 },
  normal: { size: 280, steps: 300, batchSize: 8 },
  thorough: { size: 392, steps: 1000, batchSize: 16 },
};
/** A processor does in minutes what a GPU does in seconds. */
const onProcessor: Readonly<Record<Quality, Effort>> = {
  quick: { size: 112, steps: 40, batchSize: 4 },
  normal: { size: 168, steps: 80, batchSize: 4 },
  thorough: { size: 224, steps: 200, batchSize: 8 },
};
export const qualityNames: readonly Quality[] = ['quick', 'normal', 'thorough'];

export const name = signal('');
export const quality = signal<Quality>('normal');
/** What the user has set in place of the quality's own figures. */
export const own = signal<Partial<Effort>>({});
export const encoder = signal<string>('tiny');
export const encoders = signal<readonly StoredEncoder[]>([]);
export const watched = signal<Picture | undefined>(undefined);

let qualityChosen = false;
export function chooseQuality(next: Quality): void {
  qualityChosen = true;
  own.value = {};
  quality.value = next;
}
effect(() => {
  if (adapter.value.status === 'ready' && adapter.value.isSoftware && !qualityChosen) quality.value = 'quick';
});

function settingsFor(of: Quality): TrainingSettings {
  const stored = encoders.value.find(({ sha256 }) => sha256 === encoder.value);
  return { encoder: stored?.sha256 ?? 'tiny', encoderName: stored?.name ?? 'tiny', ...(isSoftware() ? onProcessor : onGpu)[of], ...own.value, seed: 1 };
}
export const settings = computed(() => settingsFor(quality.value));

/** Seconds, by quality. */
export const estimates = signal<Partial<Record<Quality, number>>>({});
let estimating = 0;
effect(() => {
  const count = parts.value.length;
  const wanted = qualityNames.map((of) => [of, settingsFor(of)] as const);
  if (count === 0 || adapter.value.status !== 'ready' || training.value) return;
  const turn = ++estimating;
  setTimeout(async () => {
    for (const [of, settings] of wanted) {
      if (turn !== estimating || training.value) return;
      try {
        const seconds = await engine.call('estimate', { settings, images: count });
        if (turn === estimating) estimates.value = { ...untracked(() => estimates.value), [of]: seconds };
      } catch {
        // Training will say what is wrong; an estimate is not worth a message.
      }
    }
  }, 300);
});

// Encoders

export const downloadable = encoderCatalog.get('dinov2-small')!;
const downloadSource = downloadable.sources.find((source) => source.kind === 'http')!;
export const downloadBytes = 88e6;
export const downloading = signal<{ received: number; total: number; controller: AbortController } | undefined>(undefined);

export async function downloadEncoder(): Promise<void> {
  const controller = new AbortController();
  downloading.value = { received: 0, total: downloadBytes, controller };
  try {
    const { url, sha256 } = downloadSource as { url: string; sha256: string };
    const response = await fetch(url, { signal: controller.signal, referrerPolicy: 'no-referrer', credentials: 'omit' });
    if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}`);
    const total = Number(response.headers.get('content-length')) || downloadBytes;
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let received = 0;
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      received += value.length;
      downloading.value = { received, total, controller };
    }
    const added = await engine.call('addEncoder', { file: { name: `${downloadable.name}.safetensors`, image: new Blob(chunks) }, expectedSha256: sha256 });
    encoders.value = await storage.encoders();
    encoder.value = added.sha256;
    notify('info', `${downloadable.name} is on this device now.`);
  } catch (error) {
    if (!controller.signal.aborted) {
      notify('error', codeOf(error) ? messageOf(error) : `${downloadable.name} could not be downloaded (${messageOf(error)}). It needs the network this once; a weights file can be dropped in as well.`);
    }
  } finally {
    downloading.value = undefined;
  }
}

export async function addEncoderFile(file: File): Promise<void> {
  try {
    const { sha256, name } = await engine.call('addEncoder', { file: { name: file.name, image: file } });
    encoders.value = await storage.encoders();
    encoder.value = sha256;
    notify('info', `The encoder ${name} is on this device now.`);
  } catch (error) {
    report(error);
  }
}

export async function deleteEncoder(sha256: string): Promise<void> {
  if (encoder.value === sha256) encoder.value = 'tiny';
  await storage.deleteEncoder(sha256).catch(report);
  encoders.value = await storage.encoders();
}

// Training

type TrainingEvent = Extract<EngineEvent, { kind: 'training' }>;

export interface RunningTraining {
  readonly name: string;
  readonly settings: TrainingSettings;
  readonly images: number;
  readonly progress: TrainingEvent | undefined;
  readonly losses: readonly number[];
  readonly paused: boolean;
  /** Step of the last checkpoint. */
  readonly saved: number;
}

export const training = signal<RunningTraining | undefined>(undefined);
export const preview = signal<{ step: number; map: Float32Array; mapWidth: number; mapHeight: number; url: string } | undefined>(undefined);
/** A training that a reload, a crash or a cancellation has left. */
export const resumable = signal<StoredTraining | undefined>(undefined);
/** What to tell about the training that was done last. */
export const finished = signal<{ modelId: string; skipped: readonly string[]; outliers: readonly string[] } | undefined>(undefined);

export async function startTraining(): Promise<void> {
  const chosen = parts.value;
  const stored: StoredTraining = {
    id: crypto.randomUUID(),
    name: name.value.trim() || `Parts of ${new Date().toLocaleDateString()}`,
    started: Date.now(),
    settings: settings.value,
    partIds: chosen.map(({ id }) => id),
    fromSamples: chosen.length > 0 && chosen.every(({ origin }) => origin === 'sample'),
    watched: watched.value ?? { name: chosen[0]!.name, image: chosen[0]!.image },
    step: 0,
    losses: [],
  };
  try {
    await storage.beginTraining(stored);
  } catch (error) {
    report(error);
    return;
  }
  await run(stored);
}

export async function resumeTraining(): Promise<void> {
  if (resumable.value) await run(resumable.value);
}

export async function discardTraining(): Promise<void> {
  resumable.value = undefined;
  await storage.endTraining().catch(report);
}

async function run(stored: StoredTraining): Promise<void> {
  resumable.value = undefined;
  finished.value = undefined;
  training.value = { name: stored.name, settings: stored.settings, images: stored.partIds.length, progress: undefined, losses: stored.losses, paused: false, saved: stored.step };
  const url = URL.createObjectURL(stored.watched.image);
  const stop = engine.listen((event) => {
    const now = training.value;
    if (!now) return;
    if (event.kind === 'training') {
      const losses = event.losses.length > 0 ? [...now.losses.slice(0, event.firstStep), ...event.losses] : now.losses;
      training.value = { ...now, progress: event, losses };
      document.title = `${Math.round((100 * event.done) / event.total)} % ${event.phase}`;
    } else if (event.kind === 'preview') preview.value = { step: event.step, map: event.map, mapWidth: event.mapWidth, mapHeight: event.mapHeight, url };
    else if (event.kind === 'checkpoint') training.value = { ...now, saved: event.step };
  });
  const title = document.title;
  try {
    const done = await keepAwake(() => engine.call('train'));
    finished.value = done;
    await loadModels();
    await chooseModel(done.modelId);
  } catch (error) {
    if (codeOf(error) !== 'aborted') report(error);
    resumable.value = await storage.training().catch(() => undefined);
  } finally {
    stop();
    document.title = title;
    training.value = undefined;
    preview.value = undefined;
    URL.revokeObjectURL(url);
  }
}

export function setPaused(paused: boolean): void {
  if (!training.value) return;
  training.value = { ...training.value, paused };
  void engine.call('pause', paused);
}

export function cancelTraining(): void {
  void engine.call('cancel');
}

export function inspectNow(): void {
  show('inspect');
}

