/**
 * What page and worker say to each other. The engine lives in the worker; the page asks by calling a function of
 * {@link EngineApi}, and the worker tells what happens meanwhile by {@link EngineEvent}s. Large arrays are handed over, not copied.
 */
import type { HeatScale, Inspection, TrainProgress } from '../../src/browser/index.ts';
import type { GroupSummary } from '../../src/inspect/prototypes.ts';
import type { TrainingSettings } from './storage.ts';
import type { LegendFigures, Rectangle } from './why.ts';

export interface AdapterInfo {
  readonly name: string;
  /** Computes on the processor: correct, but slow. */
  readonly isSoftware: boolean;
}

/** A score and a map; what they mean under a threshold is judged where they are shown (judge.ts). */
export interface Measured {
  readonly score: number;
  readonly map: Float32Array<ArrayBuffer>;
  readonly place: MapPlace;
}

/** A map's size, and where it lies on its picture. */
export interface MapPlace {
  /** Of the picture, in its pixels. */
  readonly width: number;
  readonly height: number;
  /** Of the map, row-major. */
  readonly mapWidth: number;
  readonly mapHeight: number;
  /** Edge coordinates: picture x = `x` + map x * `scaleX`. */
  readonly x: number;
  readonly y: number;
  readonly scaleX: number;
  readonly scaleY: number;
  /** Views that the map is blended of: more than one, where the picture was inspected in tiles. */
  readonly views: number;
}

/** What a picture was compared with, and where the map comes from. */
export interface Explanation {
  readonly score: number;
  /** Of models that make any. Bitmaps lie over the whole picture. */
  readonly prototypes?: {
    /** What a point's report is made from. */
    readonly found: Pick<Inspection, 'prototypes' | 'tiles'>;
    readonly legend: readonly (Omit<LegendFigures, 'exemplar'> & {
      /** The patch that is most like it with its neighbours, and where the patch lies in that, as shares of its sides. */
      readonly exemplar: ImageBitmap;
      readonly patch: Rectangle;
    })[];
    /** Of cosine similarity, for maps and bars. */
    readonly scale: HeatScale;
    readonly layer: ImageBitmap;
    /** How similar each part is to each prototype. */
    readonly similarities: readonly ImageBitmap[];
  };
  readonly groups: readonly (GroupSummary & { readonly map: Float32Array<ArrayBuffer> })[];
}

/** Up to so many parts the engine learns by few-shot training: each is also turned, shifted and mirrored. */
export const fewShotMost = 8;
/** What becomes of one of them. */
export const fewShotViews = 22;

export interface Picture {
  readonly name: string;
  readonly image: Blob;
}

export interface SampleSet {
  readonly good: readonly Picture[];
  /** Named after what is on them: `good 01.png`, `scratch 02.png`. */
  readonly test: readonly Picture[];
}

/** One row of an export. */
export interface ExportRow {
  readonly name: string;
  readonly image: Blob;
  readonly map: Blob;
  readonly score: number;
  readonly place: MapPlace;
}

export interface ExportRequest {
  readonly modelId: string;
  readonly threshold: number;
  readonly format: 'csv' | 'json' | 'zip';
  /** Of the heat in the ZIP's overlays, 0 to 1. */
  readonly opacity: number;
  readonly rows: readonly ExportRow[];
}

export interface EngineApi {
  /** Makes the device, if there is none. */
  start(): AdapterInfo;
  /** A small JPEG of a picture; refuses what is no image. */
  thumbnail(picture: Picture): { thumbnail: Blob; width: number; height: number };
  /** A camera's picture as PNG. */
  encodeFrame(frame: ImageBitmap): Blob;
  samples(): SampleSet;
  /** Seconds that a training will take on this device. */
  estimate(request: { settings: TrainingSettings; images: number }): number;
  /** Runs, or goes on with, the training that storage holds; the new model's id. */
  train(): { modelId: string; skipped: readonly string[]; outliers: readonly string[] };
  pause(paused: boolean): void;
  cancel(): void;
  inspect(request: { modelId: string; image: Picture }): Measured & { thumbnail: Blob };
  /** The same again with its details, which takes a plan of its own. */
  explain(request: { modelId: string; image: Picture }): Explanation;
  inspectFrame(request: { modelId: string; frame: ImageBitmap }): Measured;
  /** Reads a model file and keeps it; its id. */
  importModel(file: Picture): string;
  /** The model file with the threshold as the user has set it. */
  exportModel(modelId: string): Blob;
  exportResults(request: ExportRequest): Blob;
  /** Reads an encoder's weights and keeps them; their hash. */
  addEncoder(request: { file: Picture; expectedSha256?: string }): { sha256: string; name: string };
  /** Bytes that the engine holds on the GPU. */
  gpuBytes(): number;
}

export type EngineEvent =
  | { readonly kind: 'gpu'; readonly state: 'lost' | 'recovered' }
  | { readonly kind: 'samples'; readonly done: number; readonly total: number }
  | { readonly kind: 'exported'; readonly done: number; readonly total: number }
  | {
    readonly kind: 'training';
    readonly phase: 'preparing' | TrainProgress['phase'] | 'saving';
    readonly done: number;
    readonly total: number;
    readonly imagesPerSecond: number;
    readonly secondsLeft: number;
    /** Of the steps from `firstStep` on; those of an attempt that was cut off may come again. */
    readonly firstStep: number;
    readonly losses: readonly number[];
  }
  | { readonly kind: 'preview'; readonly step: number; readonly map: Float32Array<ArrayBuffer>; readonly mapWidth: number; readonly mapHeight: number }
  | { readonly kind: 'checkpoint'; readonly step: number }
  /** Something that does not stop the work. */
  | { readonly kind: 'warning'; readonly message: string };

export type EngineCall = { [Name in keyof EngineApi]: { readonly call: number; readonly name: Name; readonly argument: Parameters<EngineApi[Name]>[0] } }[keyof EngineApi];

export interface ErrorRecord {
  /** As the package's errors have it; 'unexpected' for others. */
  readonly code: string;
  readonly message: string;
}

export type EngineAnswer =
  | { readonly call: number; readonly result: unknown }
  | { readonly call: number; readonly error: ErrorRecord }
  | { readonly event: EngineEvent };
