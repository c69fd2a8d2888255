/**
 * `inp-former info`: which adapter runs the engine here, what it can do, and how fast that will be: images a second from
 * a short measurement of matrix products and the plans' operation counts. Without an adapter, what to install.
 */
import { AdapterError } from '../../errors.ts';
import { planReport } from '../../train/plan-report.ts';
import { encoderCatalog } from '../../weights/catalog.ts';
import { defaultCacheDir } from '../encoder-store.ts';
import { byteSize, errorRecord, table, withPrefix, type CommandContext, type CommonOptions } from './context.ts';

const CROP = 392;
const ENCODERS = ['tiny', 'dinov2-small', 'dinov2-base'];
const TRAINING_BATCH = 16;

export async function info({ adapter: choice }: CommonOptions, context: CommandContext): Promise<number> {
  const versions = { node: process.versions.node, platform: `${process.platform} ${process.arch}` };
  let engine;
  try {
    engine = await context.engine(choice);
  } catch (error) {
    if (!(error instanceof AdapterError)) throw error;
    context.say(`No adapter: ${error.message}`);
    context.say();
    context.say(`What runs the engine, fastest first:
  a GPU        Linux: a Vulkan driver and libvulkan.so.1 (Debian and Ubuntu: libvulkan1, mesa-vulkan-drivers); macOS: Metal; Windows: Direct3D 12
  lavapipe     Vulkan on the CPU: apt-get install libvulkan1 mesa-vulkan-drivers, then --adapter lavapipe
  SwiftShader  Vulkan on the CPU without root: npm install @sparticuz/chromium, then --adapter swiftshader`);
    context.result({ command: 'info', adapter: null, ...versions, ...errorRecord(error) });
    return 1;
  }
  try {
    const { adapter } = engine;
    const { gflops } = await engine.measureSpeed();
    context.field('Made by', [adapter.vendor, adapter.architecture, adapter.description].filter((text) => text !== '').join(', '));
    context.field('Kind', adapter.isSoftware ? 'software, runs on the CPU' : 'GPU');
    context.field('Features', adapter.features.length > 0 ? [...adapter.features].sort().join(', ') : 'none beyond the basic ones');
    context.field('Speed', `${withPrefix(gflops * 1e9, 'FLOP/s')} measured on matrix products`);
    context.field('Node', `${versions.node} on ${versions.platform}`);
    context.field('Downloads', defaultCacheDir());
    const expected = ENCODERS.map((encoder) => expectedSpeed(encoder, gflops));
    context.say();
    context.say(`Expected at ${CROP} x ${CROP}, images a second (an estimate from the speed above):`);
    context.say(table(['encoder', 'inspecting', 'training'], expected.map(({ encoder, inspecting, training }) => [encoder, inspecting.toPrecision(2), training.toPrecision(2)]), [1, 2]));
    context.say();
    context.say(table(['limit', 'value'], Object.entries(adapter.limits).map(([name, value]) => [name, /Size$|StorageSize$/.test(name) && value >= 1e4 ? `${value} (${byteSize(value)})` : String(value)])));
    context.result({ command: 'info', adapter: { ...adapter, measuredGflops: gflops }, gflops, expected, crop: CROP, ...versions });
    return 0;
  } finally {
    engine.dispose();
  }
}

function expectedSpeed(encoder: string, gflops: number): { encoder: string; inspecting: number; training: number } {
  const { architecture, taps, encoderGroups } = encoderCatalog.get(encoder)!;
  const imagesPerSecond = (train: boolean, batchSize: number) =>
    (batchSize * gflops * 1e9) / planReport({ architecture, taps, encoderGroups, crop: CROP, batchSize, train }).flops;
  return { encoder, inspecting: imagesPerSecond(false, 1), training: imagesPerSecond(true, TRAINING_BATCH) };
}
