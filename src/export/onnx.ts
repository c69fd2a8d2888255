/**
 * A trained model as one ONNX file: encoder, trained part and scoring, to be run where there is a runtime for ONNX and
 * no WebGPU, a server for one. The file's metadata say how to prepare an image and from which score on it is defective.
 */
import { IMAGENET_MEAN, IMAGENET_STD, sizeInWords, toSize, type Size } from '../data/preprocess.ts';
import { UsageError } from '../errors.ts';
import { readModel, type Framing, type ModelMetadata } from '../inspect/model-file.ts';
import { hasPrototypes } from '../model/config.ts';
import { version } from '../version.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { writeOnnx, type OnnxPort } from '../weights/onnx-writer.ts';
import { detectorGraph } from './onnx-detector.ts';

/** ONNX's operator set that the file asks for: the first with LayerNormalization, so that old runtimes take it too. */
export const onnxOpset = 17;

export interface ExportOnnxOptions {
  /** The bytes of a model file. */
  readonly model: Uint8Array;
  /** The encoder that it was trained on. */
  readonly encoder: EncoderWeights;
  /** Fixes the number of images a run, which some runtimes need; by default each run may have another. */
  readonly batchSize?: number;
  /** What errors call the model. */
  readonly name?: string;
}

/**
 * The ONNX file of a trained model: operator set 17, float32, nothing outside of ONNX's own operators.
 *
 * Input `image` [batch, 3, height, width] of the crop, RGB, prepared as the metadata say (`preprocess` does it); outputs `map`
 * [batch, 1, height, width] of the map and `score` [batch], those of an `Inspection` but for float32 rounding. Metadata: `threshold`,
 * `calibration` (JSON), `encoder`, `encoder_sha256`, `resize`, `crop`, `map_size`, `view` (each "width x height" without spaces), `framing`,
 * `mean`, `std`, `preprocessing`.
 * @returns the file's bytes, the same for the same model
 * @throws InputError (damaged or foreign model file), EncoderMismatchError, UsageError (a memory or a decoder without
 *   prototypes, a batch size that is no positive integer, the package pbf not installed)
 */
export async function exportOnnx({ model, encoder, batchSize, name = 'model' }: ExportOnnxOptions): Promise<Uint8Array> {
  if (batchSize !== undefined && !(Number.isInteger(batchSize) && batchSize > 0)) throw new UsageError(`batchSize must be a positive integer, got ${batchSize}.`);
  const { metadata, config, values } = readModel(model, encoder, name);
  if (!hasPrototypes(config)) {
    const kind = config.method === 'memory' ? 'a memory of normal features' : `a model with the decoder ${config.decoder}`;
    throw new UsageError(`${name} is ${kind}, which is for comparison and has no ONNX form: export a model that was trained with prototypes.`);
  }
  const { nodes, initializers } = detectorGraph({ config, encoder, trained: values, mapSize: metadata.mapSize });
  const { input, outputs } = onnxPorts(metadata, batchSize);
  return writeOnnx({
    name: 'inp-former',
    description: 'INP-Former, a visual anomaly detector, trained on images of normal things. The metadata say how to prepare an image and which score is defective.',
    producer: { name: 'inp-former-webgpu', version },
    opset: onnxOpset, nodes, initializers, inputs: [input], outputs,
    metadata: onnxMetadata(metadata),
  });
}

/** What goes into the file's network and what comes out. */
export function onnxPorts({ crop, mapSize }: ModelMetadata, batchSize: number | undefined): { input: OnnxPort; outputs: [map: OnnxPort, score: OnnxPort] } {
  const batch = batchSize ?? 'batch';
  const [image, map] = [toSize(crop), toSize(mapSize)];
  return {
    input: { name: 'image', shape: [batch, 3, image.height, image.width], description: 'RGB images, prepared as the metadata say' },
    outputs: [
      { name: 'map', shape: [batch, 1, map.height, map.width], description: 'Anomaly map over the crop: 0 is normal, up to 2' },
      { name: 'score', shape: [batch], description: 'Mean of the highest 1 % of the map' },
    ],
  };
}

/** What is done to an image before it is resized, where it is not stretched to the model's shape. */
const framingInWords: Record<Framing, (view: Size) => string> = {
  stretch: () => '',
  'keep-aspect': () => ' an image of another shape is first extended to the shape of resize by its mirror image at both ends;',
  tiles: (view) => ` of a larger image, a tile of ${sizeInWords(view)} pixels;`,
};

function onnxMetadata({ encoder, resize, crop, mapSize, framing, view, calibration, threshold = calibration.threshold }: ModelMetadata): Record<string, string> {
  const between = 'x';
  return {
    threshold: String(threshold),
    calibration: JSON.stringify(calibration),
    encoder: encoder.name,
    encoder_sha256: encoder.sha256,
    resize: sizeInWords(resize, between),
    crop: sizeInWords(crop, between),
    map_size: sizeInWords(mapSize, between),
    framing,
    view: sizeInWords(view, between),
    mean: JSON.stringify(IMAGENET_MEAN),
    std: JSON.stringify(IMAGENET_STD),
    preprocessing: `RGB;${framingInWords[framing](view)} resized to ${sizeInWords(resize)} (width x height), bilinear with antialias as Pillow's; centre crop of ${sizeInWords(crop)}; divided by 255; minus mean, over std, per channel. A score above threshold is defective.`,
  };
}
