/**
 * Few-shot training: k normal images of each category, each made into many views. The views are ordinary image sources, so
 * that everything after (encoding once, the feature cache, checkpoints) takes them as it takes images.
 *
 * Source: INP_Former_Few_Shot.py and `augmentation` in utils.py of luow23/INP-Former; for the memory AnomalyDINO's rotations.
 */
import { Random } from '../data/random.ts';
import type { ImageSource, ImageView } from '../data/image.ts';
import { InputError, UsageError } from '../errors.ts';
import type { DetectorConfig, Method } from '../model/config.ts';

interface NamedView {
  readonly name: string;
  readonly view: ImageView | undefined;
}

const original: NamedView = { name: 'original', view: undefined };

/** @param turn anticlockwise, in full turns */
function rotated(name: string, turn: number): NamedView {
  // Quarter turns are exact.
  const [cosine, sine] = turn % 0.25 === 0
    ? [[1, 0], [0, 1], [-1, 0], [0, -1]][(((turn * 4) % 4) + 4) % 4] as [number, number]
    : [Math.cos(2 * Math.PI * turn), Math.sin(2 * Math.PI * turn)];
  return { name, view: { matrix: [cosine, -sine, sine, cosine] } };
}

const shifted = (x: number, y: number): NamedView => ({ name: `shifted ${x} ${y}`, view: { matrix: [1, 0, 0, 1], shift: [x, y] } });
const corners = (by: number): NamedView[] => [[by, by], [-by, by], [-by, -by], [by, -by]].map(([x, y]) => shifted(x!, y!));

/** The 22 views that the reference makes of a shot: rotations by n pi/16, shifts in halves of the side, flip, grey, quarter turns. */
export const fewShotViews: readonly NamedView[] = [
  original,
  ...[-4, -3, -2, -1, 1, 2, 3, 4].map((n) => rotated(`rotated ${n}/32`, n / 32)),
  ...corners(0.2), ...corners(0.1),
  { name: 'flipped', view: { matrix: [-1, 0, 0, 1] } },
  { name: 'grey', view: { matrix: [1, 0, 0, 1], grey: true } },
  ...[1, 2, 3].map((n) => rotated(`rotated ${n}/4`, n / 4)),
];

/** The memory's views of a shot, AnomalyDINO's: rotations by multiples of 45 degrees. */
export const memoryViews: readonly NamedView[] = [original, ...[1, 2, 3, 4, 5, 6, 7].map((n) => rotated(`rotated ${n}/8`, n / 8))];

/** Views for the threshold that neither of these has: between their rotations and between their shifts. */
const calibrationViews: readonly NamedView[] = [
  ...[-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5].map((n) => rotated(`rotated ${n}/32`, n / 32)), ...corners(0.15), ...corners(0.05),
];

function viewsOf(source: ImageSource, views: readonly NamedView[]): ImageSource[] {
  return views.map(({ name, view }) => (view
    ? { ...source, name: `${source.name} (${name})`, load: async () => ({ ...await source.load(), view }) }
    : source));
}

/**
 * `shots` images of each category, drawn by the seed; their order, and what is drawn in one category, do not depend on the
 * others.
 * @throws UsageError for a number that is not positive, InputError where a category has fewer images
 */
export function chooseShots(images: readonly ImageSource[], shots: number, seed: number): ImageSource[] {
  if (!(Number.isInteger(shots) && shots > 0)) throw new UsageError(`The number of shots must be a positive integer, got ${shots}.`);
  return [...byCategory(images)].flatMap(([category, all]) => {
    if (all.length < shots) {
      throw new InputError(`${category === '' ? 'There are' : `The category ${category} has`} only ${all.length} normal images, and ${shots} shots were asked for: ask for at most ${all.length}, or give more images.`, { code: 'no-images' });
    }
    return new Random(`${seed}/shots of ${category}`).shuffle([...all.keys()]).slice(0, shots).map((i) => all[i]!);
  });
}

function byCategory(images: readonly ImageSource[]): Map<string, ImageSource[]> {
  const categories = new Map<string, ImageSource[]>();
  for (const image of images) {
    const { category = '' } = image;
    categories.set(category, [...(categories.get(category) ?? []), image]);
  }
  return categories;
}

export interface FewShotSources {
  /** What to train on, shot by shot. */
  readonly images: ImageSource[];
  /** Views of the same shots for the threshold that are not trained on, at most {@link mostCalibrationViews}. */
  readonly calibrationImages: ImageSource[];
  /** Images of a shot in `images`. */
  readonly viewsPerShot: number;
  readonly shots: readonly ImageSource[];
}

const mostCalibrationViews = 64;

/** The image sources of a few-shot training: views of `shots` images of each category, and other views of them for the threshold. */
export function fewShotSources(images: readonly ImageSource[], shots: number, seed: number, method: Method = 'reconstruction'): FewShotSources {
  const views = method === 'memory' ? memoryViews : fewShotViews;
  const chosen = chooseShots(images, shots, seed);
  // Of many shots a few views each, and not the same of all.
  const each = Math.max(1, Math.min(calibrationViews.length, Math.floor(mostCalibrationViews / chosen.length)));
  return {
    images: chosen.flatMap((shot) => viewsOf(shot, views)),
    calibrationImages: chosen.flatMap((shot, s) => viewsOf(shot, Array.from({ length: each }, (_, i) => calibrationViews[(s * each + i * 5) % calibrationViews.length]!))),
    viewsPerShot: views.length,
    shots: chosen,
  };
}

/**
 * Which shots to leave out together, so that each is judged without itself: one of every category at a time. Empty where a
 * category has a single shot.
 */
export function leaveOneOut(shots: readonly ImageSource[], most = 8): number[][] {
  const categories = [...byCategory(shots).values()];
  const smallest = Math.min(...categories.map((all) => all.length));
  if (smallest < 2) return [];
  const folds: number[][] = Array.from({ length: Math.min(most, smallest) }, () => []);
  for (const all of categories) all.forEach((shot, i) => folds[i % folds.length]!.push(shots.indexOf(shot)));
  return folds;
}

export interface CalibratedDetector {
  readonly config: DetectorConfig;
  readonly values: ReadonlyMap<string, Float32Array>;
}

/** What a threshold comes from. */
export interface CalibrationSet {
  /** Detectors, one after another, and what each of them judges. */
  readonly rounds: readonly (() => Promise<CalibratedDetector & { readonly sources: readonly ImageSource[] }>)[];
  /** Images in all. */
  readonly total: number;
  readonly heldOut: boolean;
  readonly what?: string;
}

/**
 * Each shot judged by a memory without it, where a category has several; or else views that were not trained on.
 * @param origins for each row of the cache the one of `images` that it comes from
 */
export function fewShotCalibration(
  { images, calibrationImages, shots, viewsPerShot }: FewShotSources, trained: CalibratedDetector, origins: readonly ImageSource[], remember: (indices: readonly number[]) => Promise<CalibratedDetector>,
): CalibrationSet {
  const isMemory = trained.config.method === 'memory';
  const folds = isMemory ? leaveOneOut(shots) : [];
  if (folds.length > 0) {
    const shotOf = new Map(images.map(({ name }, i) => [name, Math.floor(i / viewsPerShot)]));
    const rounds = folds.map((fold) => async () => ({
      ...await remember([...origins.keys()].filter((i) => !fold.includes(shotOf.get(origins[i]!.name)!))), sources: fold.map((shot) => shots[shot]!),
    }));
    return { rounds, total: shots.length, heldOut: true, what: 'shots, each judged by a memory without it' };
  }
  const of = shots.length === 1 ? 'the one shot' : `the ${shots.length} shots`;
  return {
    rounds: [async () => ({ ...trained, sources: calibrationImages })], total: calibrationImages.length, heldOut: false,
    what: `views of ${of} that were not ${isMemory ? 'stored' : 'trained on'}${shots.length === 1 ? ', which say little of other images' : ''}`,
  };
}
