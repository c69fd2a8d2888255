/**
 * What lies on the device, in one IndexedDB that page and worker share: taught parts, the training that runs with its
 * checkpoint, models, encoders, and how fast this device has trained. What belongs together is written in one
 * transaction, so that a crash at any moment leaves either the old or the new state.
 */
import { openDB, type DBSchema, type IDBPDatabase } from 'idb';
import type { ModelMetadata } from '../../src/browser/index.ts';

/** A good part that was taught. */
export interface Part {
  readonly id: string;
  readonly name: string;
  /** The image file as it was given. */
  readonly image: Blob;
  readonly thumbnail: Blob;
  readonly origin: 'file' | 'camera' | 'sample';
  /** For the order of arrival. */
  readonly added: number;
}

export interface TrainingSettings {
  /** SHA-256 of a stored encoder, or 'tiny' for the one that comes with the page. */
  readonly encoder: string;
  readonly encoderName: string;
  /** Side of the square that images are resized to, pixels. */
  readonly size: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
}

/** The training that runs, or ran when the page went away. */
export interface StoredTraining {
  readonly id: string;
  readonly name: string;
  readonly started: number;
  readonly settings: TrainingSettings;
  readonly partIds: readonly string[];
  readonly fromSamples: boolean;
  /** The image whose map is shown meanwhile. */
  readonly watched: { readonly name: string; readonly image: Blob };
  /** As of the checkpoint; 0 and none before the first. */
  readonly step: number;
  readonly losses: readonly number[];
}

export interface StoredModel {
  readonly id: string;
  readonly name: string;
  readonly created: number;
  readonly metadata: ModelMetadata;
  /** The model file. */
  readonly file: Blob;
  /** As the user has set it; the calibrated one lies in `metadata`. */
  readonly threshold: number;
  readonly thumbnails: readonly Blob[];
  readonly fromSamples: boolean;
}

export interface StoredEncoder {
  readonly sha256: string;
  readonly name: string;
  readonly added: number;
  readonly file: Blob;
}

interface Schema extends DBSchema {
  parts: { key: string; value: Part };
  training: { key: 'current'; value: StoredTraining };
  checkpoint: { key: 'current'; value: Blob };
  models: { key: string; value: StoredModel };
  encoders: { key: string; value: StoredEncoder };
  /** Seconds per floating-point operation of training, by adapter. */
  speeds: { key: string; value: number };
}

export class StorageFullError extends Error {
  readonly code = 'storage-full';
  override readonly name = 'StorageFullError';
}

let database: Promise<IDBPDatabase<Schema>> | undefined;

function open(): Promise<IDBPDatabase<Schema>> {
  database ??= openDB<Schema>('inspection', 1, {
    upgrade(db) {
      for (const store of ['parts', 'models'] as const) db.createObjectStore(store, { keyPath: 'id' });
      db.createObjectStore('encoders', { keyPath: 'sha256' });
      for (const store of ['training', 'checkpoint', 'speeds'] as const) db.createObjectStore(store);
    },
    terminated() { database = undefined; },
  });
  // A refusal now need not be one later.
  database.catch(() => { database = undefined; });
  return database;
}

/** Runs a write; a full disk becomes an error that says what to do. */
async function writing<T>(what: string, body: (db: IDBPDatabase<Schema>) => Promise<T>): Promise<T> {
  try {
    return await body(await open());
  } catch (error) {
    if (!(error instanceof DOMException) || !(error.name === 'QuotaExceededError' || (error.inner ?? error).name === 'QuotaExceededError')) throw error;
    const { used, quota } = await storageUse();
    const figures = quota > 0 ? ` (${megabytes(used)} used of the ${megabytes(quota)} that the browser gives this page)` : '';
    throw new StorageFullError(`There is no room on this device to keep ${what}${figures}. Delete models or encoders under Models, remove parts, or free disk space.`, { cause: error });
  }
}

declare global {
  interface DOMException { readonly inner?: DOMException }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

export async function storageUse(): Promise<{ used: number; quota: number }> {
  try {
    const { usage = 0, quota = 0 } = await navigator.storage.estimate();
    return { used: usage, quota };
  } catch {
    return { used: 0, quota: 0 };
  }
}

export const storage = {
  async parts(): Promise<Part[]> {
    return (await (await open()).getAll('parts')).sort((a, b) => a.added - b.added);
  },
  addPart: (part: Part) => writing('this part', (db) => db.put('parts', part)),
  async removeParts(ids: readonly string[]): Promise<void> {
    const transaction = (await open()).transaction('parts', 'readwrite');
    await Promise.all([...ids.map((id) => transaction.store.delete(id)), transaction.done]);
  },

  async training(): Promise<StoredTraining | undefined> {
    return (await open()).get('training', 'current');
  },
  /** A new training: what an earlier one has left goes. */
  beginTraining: (training: StoredTraining) => writing('the training', async (db) => {
    const transaction = db.transaction(['training', 'checkpoint'], 'readwrite');
    await Promise.all([transaction.objectStore('training').put(training, 'current'), transaction.objectStore('checkpoint').delete('current'), transaction.done]);
  }),
  saveCheckpoint: (training: StoredTraining, bytes: Uint8Array) => writing('the checkpoint', async (db) => {
    const transaction = db.transaction(['training', 'checkpoint'], 'readwrite');
    await Promise.all([
      transaction.objectStore('training').put(training, 'current'),
      transaction.objectStore('checkpoint').put(new Blob([bytes as Uint8Array<ArrayBuffer>]), 'current'),
      transaction.done,
    ]);
  }),
  async checkpoint(): Promise<Uint8Array | undefined> {
    const blob = await (await open()).get('checkpoint', 'current');
    return blob && new Uint8Array(await blob.arrayBuffer());
  },
  async endTraining(): Promise<void> {
    const transaction = (await open()).transaction(['training', 'checkpoint'], 'readwrite');
    await Promise.all([transaction.objectStore('training').delete('current'), transaction.objectStore('checkpoint').delete('current'), transaction.done]);
  },
  /** The trained model takes the place of the training that made it. */
  finishTraining: (model: StoredModel) => writing('the model', async (db) => {
    const transaction = db.transaction(['training', 'checkpoint', 'models'], 'readwrite');
    await Promise.all([
      transaction.objectStore('models').put(model),
      transaction.objectStore('training').delete('current'), transaction.objectStore('checkpoint').delete('current'),
      transaction.done,
    ]);
  }),

  async models(): Promise<StoredModel[]> {
    return (await (await open()).getAll('models')).sort((a, b) => b.created - a.created);
  },
  async model(id: string): Promise<StoredModel | undefined> {
    return (await open()).get('models', id);
  },
  saveModel: (model: StoredModel) => writing('the model', (db) => db.put('models', model)),
  async deleteModel(id: string): Promise<void> {
    await (await open()).delete('models', id);
  },

  async encoders(): Promise<StoredEncoder[]> {
    return (await (await open()).getAll('encoders')).sort((a, b) => a.added - b.added);
  },
  async encoder(sha256: string): Promise<StoredEncoder | undefined> {
    return (await open()).get('encoders', sha256);
  },
  saveEncoder: (encoder: StoredEncoder) => writing('the encoder', (db) => db.put('encoders', encoder)),
  async deleteEncoder(sha256: string): Promise<void> {
    await (await open()).delete('encoders', sha256);
  },

  async speed(adapter: string): Promise<number | undefined> {
    return (await open()).get('speeds', adapter);
  },
  saveSpeed: (adapter: string, secondsPerFlop: number) => writing('this device\'s speed', (db) => db.put('speeds', secondsPerFlop, adapter)),
};
