/**
 * Which images each step takes, and the learning rate of each step: linspace(0, base, warmupSteps), then a cosine from base to final over the rest.
 * As in the reference, the very first step has rate 0 and base occurs twice, at the end of the one and the start of the other.
 */
import { Random } from '../data/random.ts';

export interface LearningRateSchedule {
  /** Rate at the end of the warm-up; INP-Former 1e-3, INP-Former++ 5e-4. */
  readonly base: number;
  /** Rate that the cosine ends at, and from then on; INP-Former 1e-4. */
  readonly final: number;
  /** Steps of the warm-up; INP-Former 100. */
  readonly warmupSteps: number;
  /** Steps of the whole training; where they end inside the warm-up, the rate just keeps rising. */
  readonly totalSteps: number;
}

/** @param step from 0 */
export function learningRateAt(step: number, { base, final, warmupSteps, totalSteps }: LearningRateSchedule): number {
  if (step < warmupSteps) return warmupSteps === 1 ? 0 : (base * step) / (warmupSteps - 1);
  if (step >= totalSteps) return final;
  const progress = (step - warmupSteps) / (totalSteps - warmupSteps);
  return final + ((base - final) / 2) * (1 + Math.cos(Math.PI * progress));
}

export interface StepSchedule {
  readonly steps: number;
  readonly warmupSteps: number;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
}

/** Indices of the images of a step: each epoch is a shuffle of its own, its last incomplete batch dropped. */
export function batchAt(step: number, { stepsPerEpoch, batchSize }: Pick<StepSchedule, 'stepsPerEpoch' | 'batchSize'>, images: number, seed: number | string): number[] {
  const epoch = Math.floor(step / stepsPerEpoch);
  const order = new Random(`${seed}/epoch ${epoch}`).shuffle(Array.from({ length: images }, (_, i) => i));
  const begin = (step % stepsPerEpoch) * batchSize;
  return order.slice(begin, begin + batchSize);
}
