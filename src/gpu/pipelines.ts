/**
 * Compute pipelines, each compiled once per device and shared by all plans. Compilation is asynchronous, so the
 * browser compiles a plan's pipelines in parallel. A module that does not compile rejects with the kernel's name,
 * its file and the line of the template that the compiler complained about.
 */
import { KernelError } from '../errors.ts';
import type { GpuContext } from './context.ts';
import type { KernelSource } from './wgsl.ts';

export type Access = 'read' | 'read_write';

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const computeStage = 4; // GPUShaderStage.COMPUTE; Node has no such global.

export class PipelineCache {
  private readonly compiled = new Map<string, Promise<CompiledKernel>>();
  private readonly layouts = new Map<string, GPUBindGroupLayout>();
  private readonly context: GpuContext;

  constructor(context: GpuContext) {
    this.context = context;
  }

  /** Number of distinct pipelines compiled so far. */
  get size(): number {
    return this.compiled.size;
  }

  get(kernel: KernelSource, access: readonly Access[]): Promise<CompiledKernel> {
    const key = `${access.join()}\n${kernel.code}`;
    let compiled = this.compiled.get(key);
    if (!compiled) {
      compiled = this.compile(kernel, access);
      compiled.catch(() => this.compiled.delete(key));
      this.compiled.set(key, compiled);
    }
    return compiled;
  }

  private layout(access: readonly Access[]): GPUBindGroupLayout {
    const key = access.join();
    let layout = this.layouts.get(key);
    if (!layout) {
      layout = this.context.device.createBindGroupLayout({
        label: key,
        entries: access.map((mode, binding) => ({
          binding,
          visibility: computeStage,
          buffer: { type: mode === 'read' ? 'read-only-storage' as const : 'storage' as const },
        })),
      });
      this.layouts.set(key, layout);
    }
    return layout;
  }

  private async compile(kernel: KernelSource, access: readonly Access[]): Promise<CompiledKernel> {
    const { device } = this.context;
    const layout = this.layout(access);
    // The module's errors are reported by its compilation info and by the pipeline's rejection; the scope only
    // keeps them from surfacing a second time as uncaptured.
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ label: kernel.label, code: kernel.code });
    const scoped = device.popErrorScope();
    try {
      const pipeline = await device.createComputePipelineAsync({
        label: kernel.label,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: 'main' },
      });
      await scoped;
      return { pipeline, layout };
    } catch (cause) {
      await scoped.catch(() => null);
      const message = await describe(kernel, module);
      if (message === undefined) await this.context.lossOrNothing();
      this.context.check();
      throw new KernelError(kernel.label, message ?? `Kernel ${kernel.label} (shaders/${kernel.file}) failed: ${String(cause)}`, { cause });
    }
  }
}

/** The compiler's errors, each with its line; undefined where the compiler found none. */
async function describe(kernel: KernelSource, module: GPUShaderModule): Promise<string | undefined> {
  const info = await module.getCompilationInfo().catch(() => undefined);
  const errors = info?.messages.filter((m) => m.type === 'error') ?? [];
  if (errors.length === 0) return undefined;
  return errors.map((m) => sourceMessage(kernel, m.lineNum, m.message)).join('\n');
}

/** A compiler message on line `lineNum` of the expanded code, told by the line of the template and its text. */
export function sourceMessage(kernel: KernelSource, lineNum: number, message: string): string {
  const text = kernel.code.split('\n')[lineNum - 1]?.trim() ?? '';
  const line = kernel.lines[lineNum - 1] ?? lineNum;
  return `Kernel ${kernel.label}, shaders/${kernel.file}, template line ${line}: ${message}\n    ${text}`;
}
