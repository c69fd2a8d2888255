/**
 * The settings of the table and what each needs of `train` and `evaluate`. All evaluate the same test images: real defects
 * that one setting trains on are taken out for all.
 */
export interface Figures {
  readonly steps: number;
  /** Of the segmentation head, where a setting has one; by default what `train` does. */
  readonly headSteps: number | undefined;
  readonly seed: number;
}

/** A model to train, and how to evaluate it on a category. */
export interface Job {
  /** The model's file; jobs with the same one share the training. */
  readonly model: string;
  /** Categories that are trained on. */
  readonly trainOn: readonly string[];
  readonly train: readonly string[];
  /** Trained first, and gone on from. */
  readonly from?: Job;
  readonly evaluate: readonly string[];
}

export interface Setting {
  readonly id: string;
  readonly title: string;
  /** Undefined where the setting makes no sense for the category. */
  job(category: string, all: readonly string[], figures: Figures, defectsOf: (category: string) => string): Job | undefined;
}

const single = (id: string, title: string, more: readonly string[] = []): Setting => ({
  id, title,
  job: (category, _all, { steps }) => ({ model: `${id}-${category}`, trainOn: [category], train: ['--steps', String(steps), ...more], evaluate: [] }),
});

const plus = ({ headSteps }: Figures): string[] => ['--plus', ...(headSteps === undefined ? [] : ['--head-steps', String(headSteps)])];

/** The segmentation head on a trained detector, which stays as it is: with `train --plus` of both at once it would be the same. */
const headOn = (detector: Setting, id: string, title: string, more: (category: string, defectsOf: (category: string) => string) => readonly string[] = () => []): Setting => ({
  id, title,
  job: (category, all, figures, defectsOf) => ({
    model: `${id}-${category}`, trainOn: [category], from: detector.job(category, all, figures, defectsOf)!, train: [...plus(figures), ...more(category, defectsOf)], evaluate: [],
  }),
});

const base = single('base', 'single-class');
const plusLosses = single('plus-losses', 'losses of INP-Former++ without its head', ['--plus', '--no-head']);

/** A memory is not trained, so that it takes no steps. */
const memory: Setting = {
  id: 'memory-1', title: 'training-free memory, 1 shot',
  job: (category) => ({ model: `memory-1-${category}`, trainOn: [category], train: ['--method', 'memory', '--shots', '1'], evaluate: [] }),
};

/** The category behind this one, around the list. */
const other = (category: string, all: readonly string[]): string | undefined => (all.length < 2 ? undefined : all[(all.indexOf(category) + 1) % all.length]);

export const settings: readonly Setting[] = [
  base,
  headOn(base, 'head', 'single-class with the head of INP-Former++'),
  headOn(base, 'head-defects', 'single-class with the head, 5 real defects', (category, defectsOf) => ['--defects', defectsOf(category)]),
  plusLosses,
  headOn(plusLosses, 'plus', 'INP-Former++'),
  headOn(plusLosses, 'plus-defects', 'INP-Former++, 5 real defects', (category, defectsOf) => ['--defects', defectsOf(category)]),
  single('shots-1', '1 shot', ['--shots', '1']),
  single('shots-2', '2 shots', ['--shots', '2']),
  single('shots-4', '4 shots', ['--shots', '4']),
  memory,
  {
    id: 'zero-shot', title: 'zero-shot, from another category',
    job: (category, all, { steps }) => {
      const source = other(category, all);
      return source === undefined ? undefined : { model: `base-${source}`, trainOn: [source], train: ['--steps', String(steps)], evaluate: ['--zero-shot'] };
    },
  },
  single('no-prototypes', 'self-attention decoder, no prototypes', ['--decoder', 'self-attention']),
  {
    id: 'multi', title: 'multi-class, equal steps per category',
    job: (_category, all, { steps }) => (all.length < 2 ? undefined : { model: 'multi', trainOn: all, train: ['--steps', String(steps * all.length)], evaluate: [] }),
  },
];
