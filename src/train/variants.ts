/** What the settings for comparison change of the objective, and which of them go together. Loaded where one is given. */
import { UsageError } from '../errors.ts';
import type { ObjectiveOptions } from '../model/graphs.ts';
import type { TrainOptions } from './train.ts';

/** @throws UsageError for an unknown coherence loss, or settings that INP-Former++ has no place for */
export async function objectiveOptionsOf({ plus, method = 'reconstruction', decoder = 'prototypes', coherence = 'min', mining = true }: TrainOptions): Promise<ObjectiveOptions> {
  if (!['min', 'soft', 'none'].includes(coherence)) throw new UsageError(`coherence must be min, soft or none, got ${String(coherence)}.`);
  if (plus && !(method === 'reconstruction' && decoder === 'prototypes' && coherence === 'min' && mining)) {
    throw new UsageError('INP-Former++ has losses of its own and needs prototypes: leave out method, decoder, coherence and mining, or plus.');
  }
  return {
    ...(coherence === 'none' && { coherenceWeight: 0 }),
    ...(coherence === 'soft' && { coherenceLoss: (await import('../ops/soft-coherence.ts')).softCoherenceLoss }),
    ...(!mining && { miningPower: 0 }),
  };
}
