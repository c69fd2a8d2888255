/** How a detector scores: INP-Former's cosines, or what INP-Former++ adds to them, which is loaded only where it is needed. */
import { isPlus, type DetectorConfig } from './config.ts';
import { scoreCosines, type ScoreFunction } from './scoring.ts';

export async function scoringOf(config: DetectorConfig): Promise<ScoreFunction> {
  return isPlus(config) ? (await import('./fused-scoring.ts')).scoreFused : scoreCosines;
}
