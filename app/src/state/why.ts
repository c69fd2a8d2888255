/** "See why": the chosen result, inspected again with its details while the view is open. Only the newest is asked for and kept. */
import { computed, effect, signal } from '@preact/signals';
import { engine } from '../engine-client.ts';
import type { Explanation } from '../protocol.ts';
import { messageOf, remember, remembered } from './app.ts';
import { live, selected } from './inspect.ts';

export const whyOpen = signal(false);
/** How strong the prototypes' colours are over the picture. */
export const layerOpacity = signal(Number(remembered('layer opacity') ?? 0.5));
effect(() => remember('layer opacity', String(layerOpacity.value)));

type Shown = { readonly resultId: string } & ({ readonly explanation: Explanation } | { readonly error: string });

const shown = signal<Shown | undefined>(undefined);
const wanted = computed(() => (whyOpen.value && !live.value ? selected.value : undefined));
/** Of the chosen result; undefined while it is in work. */
export const why = computed(() => (shown.value?.resultId === wanted.value?.id ? shown.value : undefined));

let working = false;

async function work(): Promise<void> {
  if (working) return;
  working = true;
  try {
    for (let result = wanted.peek(); result && shown.peek()?.resultId !== result.id; result = wanted.peek()) {
      const { id: resultId, modelId, name, image } = result;
      let next: Shown;
      try {
        next = { resultId, explanation: await engine.call('explain', { modelId, image: { name, image } }) };
      } catch (error) {
        next = { resultId, error: messageOf(error) };
      }
      replace(next);
    }
    if (!wanted.peek()) replace(undefined);
  } finally {
    working = false;
  }
}

/** Pictures in the browser's memory are given back at once, not when the collector finds them. */
function replace(next: Shown | undefined): void {
  const before = shown.peek();
  shown.value = next;
  const prototypes = before && 'explanation' in before ? before.explanation.prototypes : undefined;
  if (prototypes) for (const bitmap of [prototypes.layer, ...prototypes.similarities, ...prototypes.legend.map(({ exemplar }) => exemplar)]) bitmap.close();
}

effect(() => {
  void wanted.value;
  void work();
});

export function tryAgain(): void {
  replace(undefined);
  void work();
}
