/**
 * Dawn in Node, and the choice between the adapters of this machine: a GPU, lavapipe (Mesa's CPU Vulkan), or
 * SwiftShader, which comes inside the npm package @sparticuz/chromium and so needs neither root nor a download.
 * The Vulkan loader reads its driver from the environment once, so one process has one choice.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { constants as osConstants } from 'node:os';
import { AdapterError } from '../errors.ts';

export type AdapterChoice = 'auto' | 'gpu' | 'swiftshader' | 'lavapipe';
export const adapterChoices: readonly AdapterChoice[] = ['auto', 'gpu', 'swiftshader', 'lavapipe'];

const lavapipeManifests = [
  '/usr/share/vulkan/icd.d/lvp_icd.json', '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json', '/usr/share/vulkan/icd.d/lvp_icd.aarch64.json',
];

// Dawn's instance must outlive every object made from it, or the process dies with std::system_error.
let instance: { gpu: GPU; choice: AdapterChoice } | undefined;

/**
 * A `GPU` object like `navigator.gpu`.
 * @throws AdapterError where the package `webgpu` or the wanted driver is missing; the message says what to install.
 */
export async function createGpu(choice: AdapterChoice = 'auto'): Promise<GPU> {
  if (instance?.choice === choice) return instance.gpu;
  if (instance) throw new AdapterError('no-adapter', `This process already uses the adapter '${instance.choice}'; start another process for '${choice}'.`);
  const gpu = choice === 'auto' ? await createAutomatically() : await createWith(choice);
  instance = { gpu, choice };
  return gpu;
}

async function createAutomatically(): Promise<GPU> {
  const hasLoader = process.platform !== 'linux' || hasSystemLoader();
  if (hasLoader) {
    const gpu = await loadDawn();
    const adapter = await requestQuietly(gpu);
    if (adapter) return gpu;
  }
  if (process.platform === 'linux') return createWith('swiftshader');
  throw new AdapterError('no-adapter', noAdapterAdvice());
}

async function createWith(choice: Exclude<AdapterChoice, 'auto'>): Promise<GPU> {
  if (choice === 'lavapipe') {
    const manifest = lavapipeManifests.find((path) => existsSync(path));
    if (!manifest) {
      throw new AdapterError('no-adapter', 'lavapipe is not installed. On Debian or Ubuntu: apt install mesa-vulkan-drivers (Mesa 24 or newer; on Debian 12 from bookworm-backports).');
    }
    process.env['VK_ICD_FILENAMES'] = manifest;
    process.env['VK_DRIVER_FILES'] = manifest;
  }
  if (choice === 'swiftshader') await selectSwiftShader();
  const gpu = await loadDawn();
  const adapter = await requestQuietly(gpu);
  const description = adapter ? `${adapter.info.architecture} ${adapter.info.device} ${adapter.info.description}` : 'none';
  const isSoftware = /swiftshader|llvmpipe|lavapipe/i.test(description);
  const fits = choice === 'gpu' ? adapter && !isSoftware : choice === 'swiftshader' ? /swiftshader/i.test(description) : /llvmpipe|lavapipe/i.test(description);
  if (!fits) throw new AdapterError('no-adapter', `The adapter '${choice}' was asked for, found: ${description}. ${noAdapterAdvice()}`);
  return gpu;
}

async function loadDawn(): Promise<GPU> {
  let dawn: { create(options: string[]): GPU };
  try {
    dawn = await import('webgpu') as unknown as { create(options: string[]): GPU };
  } catch (cause) {
    throw new AdapterError('no-adapter', 'WebGPU in Node needs the npm package webgpu (Dawn): npm install webgpu.', { cause });
  }
  // Rounded timestamps protect a page's visitors; here they would only blur the profile of short kernels.
  // And adapters list the experimental features that they have, such as subgroup matrices, only where those are allowed.
  return dawn.create(['disable-dawn-features=timestamp_quantization', 'enable-dawn-features=allow_unsafe_apis']);
}

/** Dawn refuses an adapter that it knows to be broken by rejecting; that counts as none. */
async function requestQuietly(gpu: GPU): Promise<GPUAdapter | null> {
  return gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
}

/** Points the Vulkan loader at the SwiftShader that @sparticuz/chromium unpacks, and brings its loader where the system has none. */
async function selectSwiftShader(): Promise<void> {
  let executable: string;
  try {
    const { default: chromium } = await import('@sparticuz/chromium');
    executable = await chromium.executablePath();
  } catch (cause) {
    throw new AdapterError('no-adapter', 'SwiftShader comes with the npm package @sparticuz/chromium (Linux x64): npm install @sparticuz/chromium.', { cause });
  }
  const folder = dirname(executable);
  const manifest = join(folder, 'vk_swiftshader_icd.json');
  if (!existsSync(manifest)) throw new AdapterError('no-adapter', `@sparticuz/chromium unpacked no SwiftShader into ${folder}: remove that folder's files and try again.`);
  process.env['VK_ICD_FILENAMES'] = manifest;
  process.env['VK_DRIVER_FILES'] = manifest;
  if (!hasSystemLoader()) loadForGood(join(folder, 'libvulkan.so.1'));
}

function hasSystemLoader(): boolean {
  return ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib', '/lib/x86_64-linux-gnu']
    .some((folder) => existsSync(join(folder, 'libvulkan.so.1')));
}

/**
 * Loads a shared library so that a later dlopen by its plain name finds it. Node rejects it as an addon and closes
 * it again; RTLD_NODELETE keeps it in the process. (LD_LIBRARY_PATH would have to be set before the process starts.)
 */
function loadForGood(library: string): void {
  const noDelete = 0x1000;
  try {
    process.dlopen({ exports: {} }, library, osConstants.dlopen.RTLD_NOW | osConstants.dlopen.RTLD_GLOBAL | noDelete);
  } catch (error) {
    if (!/self-register/.test(String(error))) throw new AdapterError('no-adapter', `The Vulkan loader ${library} can't be loaded: ${String(error)}`, { cause: error });
  }
}

/** What to do on a machine without any adapter. */
export function noAdapterAdvice(): string {
  switch (process.platform) {
    case 'linux':
      return 'Install the Vulkan driver of your GPU, or a software adapter: npm install @sparticuz/chromium (SwiftShader, no root), or apt install mesa-vulkan-drivers (lavapipe, faster).';
    case 'darwin':
      return 'Metal is needed: macOS 12 or newer on a machine with a GPU.';
    default:
      return 'A Direct3D 12 or Vulkan driver is needed: update the graphics driver.';
  }
}
