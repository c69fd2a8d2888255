/**
 * The memory's search beside a matrix product of the same size: the same multiply-adds, but a running maximum in place of the
 * product's values.
 */
import { nearestNeighbour } from '../../src/ops/nearest-neighbour.ts';
import { collect, errorText } from '../measurement.ts';
import type { GemmProblem, Variant } from '../peers/peer.ts';
import { idle, type Bench } from './bench.ts';
import { gemmProblem, gemmRacer, gemmTolerance, layouts } from './gemm.ts';
import { timeDispatch } from './peaks.ts';

const sampledRows = 16;

/** Distances of some rows in f64. The memory's rows are not of norm 1 here, which the search takes as they are. */
function sampleDistances({ rows, columns, depth, a, b }: GemmProblem, variant: Variant): ReadonlyMap<number, number> {
  return new Map(Array.from({ length: Math.min(sampledRows, rows) }, (_, n) => {
    const row = Math.floor((n * (rows - 1)) / Math.max(1, sampledRows - 1));
    const x = a[variant].subarray(row * depth, (row + 1) * depth);
    const norm = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
    let best = -Infinity;
    for (let r = 0; r < columns; r++) best = Math.max(best, x.reduce((sum, v, k) => sum + v * b[r * depth + k]!, 0));
    return [row, Math.max(0, 1 - best / norm)] as const;
  }));
}

export async function nearest(bench: Bench): Promise<void> {
  const { platform, settings, engine } = bench;
  const sizes = [{ rows: 768, columns: 1536, depth: 384 }, ...(engine.adapter.isSoftware ? [] : [{ rows: 4096, columns: 4096, depth: 4096 }])];
  for (const { rows, columns, depth } of sizes) {
    const name = `${rows}x${columns}x${depth}`;
    const measurement = { id: `kernels/nearest/${name}`, suite: 'kernels' as const, group: 'Matrix products', title: `nearest of ${columns}, ${rows}x${depth}`, contender: 'ours', flops: 2 * rows * columns * depth, check: 'f64 distances of sampled rows' };
    try {
      const problem = gemmProblem(rows, columns, depth);
      // A scale at which no distance is at its floor.
      problem.b.forEach((v, i) => { problem.b[i] = v / Math.sqrt(depth); });
      const racer = await gemmRacer(bench, problem, layouts.NT, (a, b) => nearestNeighbour(a, [b]));
      const expected = ([0, 1] as const).map((variant) => sampleDistances(problem, variant));
      try {
        await racer.run(0, 1);
        let failure: string | undefined;
        let round = 0;
        const samples = await collect(settings.sampling, async () => {
          const variant = (round++ % 2) as Variant;
          racer.load(variant);
          await idle(engine);
          const seconds = await timeDispatch(engine, racer.executable, {});
          const [distances] = await racer.read();
          const wrong = [...expected[variant]!].find(([row, distance]) => !(Math.abs(distances![row]! - distance) <= gemmTolerance * Math.sqrt(depth)));
          if (wrong) failure ??= `Wrong result: the distance of row ${wrong[0]} is ${distances![wrong[0]]}, expected ${wrong[1].toPrecision(6)}.`;
          return seconds;
        });
        const hasTimestamps = engine.context.device.features.has('timestamp-query');
        platform.report({ ...measurement, clock: hasTimestamps ? 'gpu' : 'wall', samples, bytes: racer.executable.plan.report.bytes, ...(failure !== undefined && { failure }) });
      } finally {
        racer.dispose();
      }
    } catch (error) {
      platform.report({ ...measurement, clock: 'wall', samples: [], failure: errorText(error) });
    }
  }
}
