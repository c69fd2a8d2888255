/**
 * `inp-former plan`: what a run would cost, from the compiled plan and without a GPU: kernels, submits, floating-point
 * operations, bytes moved, peak memory, and the same node by node.
 */
import { existsSync } from 'node:fs';
import { sizeInWords, type Size } from '../../data/preprocess.ts';
import { planReport, type PlanReport } from '../../train/plan-report.ts';
import { encoderCatalog, findEncoder, type EncoderEntry } from '../../weights/catalog.ts';
import { resolveEncoder } from '../encoder-store.ts';
import { byteSize, table, withPrefix, type CommandContext } from './context.ts';

export interface PlanCommandOptions {
  readonly encoder: string;
  readonly crop: Size;
  readonly batchSize: number;
  readonly train?: boolean;
}

export async function plan({ encoder, crop, batchSize, train = false }: PlanCommandOptions, context: CommandContext): Promise<number> {
  const { architecture, ...model } = await architectureOf(encoder);
  const report = planReport({ architecture, ...model, crop, batchSize, train });
  context.field('Plan', `${train ? 'training step' : 'inspection'}, ${encoder}, ${batchSize} ${batchSize === 1 ? 'image' : 'images'} of ${sizeInWords(crop)}`);
  context.field('Kernels', `${report.kernels} in ${report.submits} ${report.submits === 1 ? 'submit' : 'submits'}`);
  context.field('Operations', `${withPrefix(report.flops, 'FLOP')}, ${withPrefix(report.flops / batchSize, 'FLOP')} an image`);
  context.field('Moved', byteSize(report.bytes));
  context.field('Peak memory', `${byteSize(report.peakBytes)}, of it ${byteSize(report.parameterBytes)} weights`);
  context.say();
  context.say(nodeTable(report));
  context.result({ command: 'plan', encoder, crop, batchSize, train, ...report });
  return 0;
}

/** An encoder of the catalogue is planned from its architecture alone, its weights need not be here. */
async function architectureOf(encoder: string): Promise<Pick<EncoderEntry, 'architecture'> & Partial<Pick<EncoderEntry, 'taps' | 'encoderGroups'>>> {
  if (!encoderCatalog.has(encoder) && (existsSync(encoder) || /[/\\.]/.test(encoder))) {
    return { architecture: (await resolveEncoder(encoder)).architecture };
  }
  const { architecture, taps, encoderGroups } = findEncoder(encoder);
  return { architecture, taps, encoderGroups };
}

function nodeTable({ nodes }: PlanReport): string {
  return table(
    ['node', 'operation', 'shape', 'kernels', 'FLOP', 'bytes'],
    nodes.map(({ name, op, shape, kernels, flops, bytes }) => [name, op, shape.join(' x '), String(kernels), withPrefix(flops, '').trim(), byteSize(bytes)]),
    [3, 4, 5],
  );
}
