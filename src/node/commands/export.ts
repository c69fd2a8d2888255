/** `inp-former export`: a model, with its encoder and the scoring, as a file for other runtimes. Needs no GPU. */
import { resolve } from 'node:path';
import { UsageError } from '../../errors.ts';
import { exportOnnx, onnxOpset, onnxPorts } from '../../export/onnx.ts';
import { readModelMetadata } from '../../inspect/model-file.ts';
import { readFileChecked, writeFileAtomic } from '../files.ts';
import { byteSize, type CommandContext } from './context.ts';
import { openEncoderOf } from './encoders.ts';
import { prepareOutputFile } from './output.ts';

export interface ExportCommandOptions {
  readonly model: string;
  readonly encoder?: string;
  readonly format: 'onnx';
  readonly out: string;
  readonly batchSize?: number;
}

export async function exportModel({ model, encoder: given, format, out, batchSize }: ExportCommandOptions, context: CommandContext): Promise<number> {
  if (resolve(out) === resolve(model)) throw new UsageError(`--out ${out} is the model file itself: give another name, e.g. ${model.replace(/\.[^./\\]*$/, '')}.onnx.`);
  const bytes = await readFileChecked(model);
  const metadata = readModelMetadata(bytes, model);
  await prepareOutputFile(out, 'ONNX file', 'model.onnx');
  const encoder = await openEncoderOf(metadata, given, context);
  const file = await exportOnnx({ model: bytes, encoder, batchSize, name: model });
  await writeFileAtomic(out, file);

  const { input, outputs } = onnxPorts(metadata, batchSize);
  const { threshold } = metadata.calibration;
  context.field('Written', `${out} (${byteSize(file.length)}), ONNX operator set ${onnxOpset}`);
  for (const [title, ports] of [['Input', [input]], ['Outputs', outputs]] as const) {
    context.field(title, ports.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(', '));
  }
  context.field('Threshold', `${threshold.toPrecision(4)}; it and the preparation of images are in the file's metadata`);
  context.result({
    command: 'export', model, format, out,
    bytes: file.length, opset: onnxOpset, input, outputs, threshold,
    encoder: { name: encoder.name, sha256: encoder.sha256 },
  });
  return 0;
}
