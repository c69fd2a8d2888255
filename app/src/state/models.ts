/** Models on this device, and the one in use. */
import { computed, signal } from '@preact/signals';
import { engine } from '../engine-client.ts';
import { download } from '../files.ts';
import type { Picture } from '../protocol.ts';
import { storage, storageUse, type StoredModel } from '../storage.ts';
import { notify, remember, remembered, report } from './app.ts';

export const models = signal<readonly StoredModel[]>([]);
const chosenId = signal<string | undefined>(remembered('model'));
export const model = computed(() => models.value.find(({ id }) => id === chosenId.value));
/** Of the model in use, as the slider stands. */
export const threshold = signal(0);
export const usage = signal({ used: 0, quota: 0 });

/** Sample parts to inspect, once the sample set was loaded. */
export const samples = signal<readonly Picture[]>([]);
export const offerSamples = (pictures: readonly Picture[]): void => { samples.value = pictures; };

export async function loadModels(): Promise<void> {
  models.value = await storage.models();
  if (!model.value && models.value.length > 0) chosenId.value = models.value[0]!.id;
  threshold.value = model.value?.threshold ?? 0;
  usage.value = await storageUse();
}

export async function chooseModel(id: string): Promise<void> {
  chosenId.value = id;
  remember('model', id);
  threshold.value = model.value?.threshold ?? 0;
}

let saving: ReturnType<typeof setTimeout> | undefined;

/** Shown at once, and kept when the slider comes to rest. */
export function moveThreshold(next: number): void {
  threshold.value = next;
  const of = model.value;
  clearTimeout(saving);
  if (of) saving = setTimeout(() => { void change(of.id, { threshold: next }); }, 300);
}

async function change(id: string, what: Partial<Pick<StoredModel, 'name' | 'threshold'>>): Promise<void> {
  const stored = models.value.find((other) => other.id === id);
  if (!stored) return;
  const changed = { ...stored, ...what };
  models.value = models.value.map((other) => (other.id === id ? changed : other));
  await storage.saveModel(changed).catch(report);
}

export const renameModel = (id: string, name: string): Promise<void> => change(id, { name });

export async function deleteModel(id: string): Promise<void> {
  await storage.deleteModel(id).catch(report);
  await loadModels();
}

export async function exportModel({ id, name }: StoredModel): Promise<void> {
  try {
    download(await engine.call('exportModel', id), `${name.replaceAll(/[\\/:*?"<>|]/g, '_')}.safetensors`);
  } catch (error) {
    report(error);
  }
}

export async function importModel(file: File): Promise<void> {
  try {
    const id = await engine.call('importModel', { name: file.name, image: file });
    await loadModels();
    await chooseModel(id);
    notify('info', `${model.value?.name ?? file.name} is opened and kept on this device.`);
  } catch (error) {
    report(error);
  }
}
