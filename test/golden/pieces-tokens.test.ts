/** Golden set: patch embedding, position embedding and the token sequence; the means of taps and of decoder groups. */
import { describe, test } from 'vitest';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { assembleTokens, meanOf, meanOfTokens, patchEmbedding, resample2d } from '../../src/ops/index.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

describeGolden('tokens', () => {
  describe.each(['tiny', 'odd'])('%s', (name) => {
    const config = goldenJson(`${name}/config.json`);
    const forward = goldenTensors(`${name}/forward.safetensors`);
    const weights = goldenTensors(`${name}/encoder.safetensors`);
    const prefix = 1 + config.registers;

    /** Graph inputs for tensors of a file, and their values. */
    const feeds: Record<string, TensorData> = {};
    const leaf = (tensors: typeof forward, key: string): Tensor => {
      feeds[key] = float32(tensors, key);
      return input(key, tensors.get(key)!.shape);
    };

    async function run(outputs: Record<string, Tensor>): Promise<Record<string, TensorData>> {
      const context = await testContext();
      const plan = compile({ target: context.target, outputs });
      const executable = await Executable.prepare(context, plan);
      try {
        return await executable.run(Object.fromEntries([...plan.inputs.keys()].map((key) => [key, feeds[key]!])));
      } finally {
        executable.dispose();
      }
    }

    async function compare(outputs: Record<string, Tensor>): Promise<void> {
      for (const [key, values] of Object.entries(await run(outputs))) {
        expectClose(values, float32(forward, key), { relL2: 1e-5, maxOfRms: 1e-4, name: `${name} ${key}` });
      }
    }

    test('pos_embed', async () => {
      const { pos_grid: grid, tokens_side: side, C: channels, interpolate_offset: offset } = config;
      // The cls entry in front is no part of the grid and stays as it is.
      feeds.grid = float32(weights, 'embeddings.position_embeddings').slice(channels);
      const y = resample2d(input('grid', [1, grid, grid, channels]), { outHeight: side, outWidth: side, kind: 'bicubic', offset, channelsLast: true });
      const result = y.node.kind === 'operation' ? (await run({ y })).y! : feeds.grid;
      expectClose(result, float32(forward, 'pos_embed').slice(channels), { relL2: 1e-5, maxAbs: 2e-5, name: `${name} pos_embed` });
    });

    test('tokens', async () => {
      const patches = patchEmbedding(
        leaf(forward, 'image'), leaf(weights, 'embeddings.patch_embeddings.projection.weight'), leaf(weights, 'embeddings.patch_embeddings.projection.bias'),
      );
      const registers = config.registers > 0 ? leaf(weights, 'embeddings.register_tokens') : undefined;
      await compare({ tokens: assembleTokens(patches, leaf(weights, 'embeddings.cls_token'), registers, leaf(forward, 'pos_embed')) });
    });

    test('means of taps and of decoder groups', async () => {
      const taps = (config.taps as number[]).map((block) => leaf(forward, `enc.${block}.out`));
      const decoded = Array.from({ length: config.decoder_blocks }, (_, i) => leaf(forward, `dec.${i}.out`)).reverse();
      const outputs: Record<string, Tensor> = { x: meanOfTokens(taps, prefix) };
      (config.fuse_layer_encoder as number[][]).forEach((group, g) => { outputs[`en${g}`] = meanOfTokens(group.map((i) => taps[i]!), prefix); });
      // A group of one block is that block's output itself.
      (config.fuse_layer_decoder as number[][]).forEach((group, g) => {
        const mean = meanOf(group.map((i) => decoded[i]!));
        if (mean.node.kind === 'operation') outputs[`de${g}`] = mean;
        else expectClose(feeds[mean.name]!, float32(forward, `de${g}`), { maxAbs: 0, name: `${name} de${g}` });
      });
      await compare(outputs);
    });
  });
});
