// src/errors.ts
var InpFormerError = class extends Error {
  /** Stable machine-readable identifier, e.g. `'device-lost'`. */
  code;
  constructor(code, message, options) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
};
var UsageError = class extends InpFormerError {
  constructor(message) {
    super("usage", message);
  }
};
var AdapterError = class extends InpFormerError {
  constructor(code, message, options) {
    super(code, message, options);
  }
};
var DeviceLostError = class extends InpFormerError {
  reason;
  constructor(reason, message) {
    super("device-lost", message);
    this.reason = reason;
  }
};
var AllocationError = class extends InpFormerError {
  constructor(message, options) {
    super("allocation", message, options);
  }
};
var KernelError = class extends InpFormerError {
  kernel;
  constructor(kernel2, message, options) {
    super("kernel", message, options);
    this.kernel = kernel2;
  }
};
var ReadbackError = class extends InpFormerError {
  constructor(message, options) {
    super("readback", message, options);
  }
};

// src/gpu/pipelines.ts
var computeStage = 4;
var PipelineCache = class {
  compiled = /* @__PURE__ */ new Map();
  layouts = /* @__PURE__ */ new Map();
  context;
  constructor(context) {
    this.context = context;
  }
  /** Number of distinct pipelines compiled so far. */
  get size() {
    return this.compiled.size;
  }
  get(kernel2, access) {
    const key = `${access.join()}
${kernel2.code}`;
    let compiled = this.compiled.get(key);
    if (!compiled) {
      compiled = this.compile(kernel2, access);
      compiled.catch(() => this.compiled.delete(key));
      this.compiled.set(key, compiled);
    }
    return compiled;
  }
  layout(access) {
    const key = access.join();
    let layout = this.layouts.get(key);
    if (!layout) {
      layout = this.context.device.createBindGroupLayout({
        label: key,
        entries: access.map((mode, binding) => ({
          binding,
          visibility: computeStage,
          buffer: { type: mode === "read" ? "read-only-storage" : "storage" }
        }))
      });
      this.layouts.set(key, layout);
    }
    return layout;
  }
  async compile(kernel2, access) {
    const { device } = this.context;
    const layout = this.layout(access);
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: kernel2.label, code: kernel2.code });
    const scoped2 = device.popErrorScope();
    try {
      const pipeline = await device.createComputePipelineAsync({
        label: kernel2.label,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" }
      });
      await scoped2;
      return { pipeline, layout };
    } catch (cause) {
      await scoped2.catch(() => null);
      const message = await describe(kernel2, module);
      if (message === void 0) await this.context.lossOrNothing();
      this.context.check();
      throw new KernelError(kernel2.label, message ?? `Kernel ${kernel2.label} (shaders/${kernel2.file}) failed: ${String(cause)}`, { cause });
    }
  }
};
async function describe(kernel2, module) {
  const info = await module.getCompilationInfo().catch(() => void 0);
  const errors = info?.messages.filter((m) => m.type === "error") ?? [];
  if (errors.length === 0) return void 0;
  return errors.map((m) => sourceMessage(kernel2, m.lineNum, m.message)).join("\n");
}
function sourceMessage(kernel2, lineNum, message) {
  const text = kernel2.code.split("\n")[lineNum - 1]?.trim() ?? "";
  const line = kernel2.lines[lineNum - 1] ?? lineNum;
  return `Kernel ${kernel2.label}, shaders/${kernel2.file}, template line ${line}: ${message}
    ${text}`;
}

// src/gpu/target.ts
var defaultTarget = {
  maxStorageBufferBindingSize: 128 * 1024 * 1024,
  maxBufferSize: 256 * 1024 * 1024,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
  minStorageBufferOffsetAlignment: 256,
  features: /* @__PURE__ */ new Set(),
  family: "gpu"
};
function roundUp(value, step) {
  return Math.ceil(value / step) * step;
}

// src/gpu/context.ts
var requestedLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension"
];
var requestedFeatures = ["shader-f16", "subgroups", "timestamp-query"];
var GpuContext = class _GpuContext {
  device;
  adapter;
  target;
  pipelines;
  /** Bytes in buffers made through this context and not yet destroyed. */
  allocatedBytes = 0;
  live = /* @__PURE__ */ new Set();
  ownsDevice;
  failure;
  lossListeners = /* @__PURE__ */ new Set();
  constructor(device, adapter, ownsDevice) {
    this.device = device;
    this.adapter = adapter;
    this.ownsDevice = ownsDevice;
    this.target = targetOf(device, adapter);
    this.pipelines = new PipelineCache(this);
    void device.lost.then((info) => {
      this.failure = new DeviceLostError(info.reason, `The GPU device was lost (${info.reason}): ${info.message || "no details"}. ${lossAdvice(info.reason)}`);
      for (const listener of this.lossListeners) listener(this.failure);
    });
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event;
      this.failure ??= error.constructor.name === "GPUOutOfMemoryError" ? new AllocationError(`The GPU is out of memory: ${error.message}`) : new KernelError("(unknown)", `WebGPU reported an error: ${error.message}`);
    });
  }
  /** @throws AdapterError where there is no adapter, or none that gives a device. */
  static async acquire(options) {
    if (options.device) {
      const { device } = options;
      return new _GpuContext(device, reportOf(device.adapterInfo, device.features, device.limits), false);
    }
    const gpu2 = options.gpu;
    if (!gpu2) throw new AdapterError("no-adapter", "WebGPU is not available here: neither a GPU object nor a device was given.");
    const adapter = await gpu2.requestAdapter({ powerPreference: options.powerPreference ?? "high-performance" });
    if (!adapter) throw new AdapterError("no-adapter", "WebGPU is available, but no adapter was found on this machine.");
    const requiredLimits = Object.fromEntries(requestedLimits.map((name) => [name, adapter.limits[name]]));
    const requiredFeatures = requestedFeatures.filter((f) => adapter.features.has(f));
    try {
      const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
      return new _GpuContext(device, reportOf(adapter.info, device.features, device.limits), true);
    } catch (cause) {
      throw new AdapterError("no-adapter", `The adapter ${adapter.info.description} gave no device: ${String(cause)}`, { cause });
    }
  }
  /** Called once if the device is lost, or was; returns a function that stops listening. */
  onLost(listener) {
    this.lossListeners.add(listener);
    const { failure } = this;
    if (failure instanceof DeviceLostError) queueMicrotask(() => {
      if (this.lossListeners.has(listener)) listener(failure);
    });
    return () => this.lossListeners.delete(listener);
  }
  /** Throws what went wrong with the device since the last check, if anything did. */
  check() {
    if (!this.failure) return;
    const failure = this.failure;
    if (!(failure instanceof DeviceLostError)) this.failure = void 0;
    throw failure;
  }
  /** Runs `body` inside error scopes; validation and memory errors reject as typed errors that name `what`. */
  async guarded(what, body) {
    this.check();
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    let result;
    let thrown;
    try {
      result = body();
    } catch (error) {
      thrown = error ?? new Error("unknown");
    }
    const [validation, memory] = await Promise.all([device.popErrorScope(), device.popErrorScope()]).catch(() => [null, null]);
    this.check();
    if (memory) throw new AllocationError(`${what}: the GPU is out of memory (${memory.message}).`);
    if (validation) throw new KernelError(what, `${what}: ${validation.message}`);
    if (thrown) throw thrown;
    return result;
  }
  /** @throws AllocationError before trying where the adapter can't hold it. */
  createBuffer(label, bytes, usage) {
    if (bytes > this.target.maxBufferSize) {
      throw new AllocationError(`${label}: ${bytes} bytes are asked for in one buffer, the adapter allows ${this.target.maxBufferSize}.`);
    }
    const buffer = this.device.createBuffer({ label, size: Math.max(16, roundUp(bytes, 16)), usage });
    this.live.add(buffer);
    this.allocatedBytes += buffer.size;
    return buffer;
  }
  /** As {@link createBuffer}, several at once: all of them or, where one can't be had, none. */
  async createBuffers(label, sizes, usage) {
    const buffers = [];
    try {
      await this.guarded(label, () => sizes.forEach((bytes, i) => buffers.push(this.createBuffer(`${label} ${i}`, bytes, usage))));
    } catch (error) {
      for (const buffer of buffers) this.destroyBuffer(buffer);
      throw error;
    }
    return buffers;
  }
  destroyBuffer(buffer) {
    if (!this.live.delete(buffer)) return;
    this.allocatedBytes -= buffer.size;
    buffer.destroy();
  }
  /** What fails may fail because the device is going; browsers tell the loss itself up to a moment later. */
  async lossOrNothing() {
    await Promise.race([this.device.lost, new Promise((resolve) => {
      setTimeout(resolve, 1e3);
    })]);
  }
  /** Maps a staging buffer and copies it out; a failed map rejects and never reads as zeros. */
  async readStaging(buffer, bytes) {
    try {
      await buffer.mapAsync(MapMode.READ, 0, bytes);
    } catch (cause) {
      await this.lossOrNothing();
      this.check();
      throw new ReadbackError(`Reading ${bytes} bytes back from the GPU failed: ${String(cause)}`, { cause });
    }
    const copy = buffer.getMappedRange(0, bytes).slice(0);
    buffer.unmap();
    this.check();
    return copy;
  }
  dispose() {
    if (this.ownsDevice) this.device.destroy();
  }
};
var Usage = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, STORAGE: 128, QUERY_RESOLVE: 512 };
var MapMode = { READ: 1 };
function lossAdvice(reason) {
  return reason === "destroyed" ? "It was destroyed by the program." : "Request a new adapter and go on from the last checkpoint.";
}
function reportOf(info, features, limits) {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    description: info.description,
    name: info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") || "unnamed adapter",
    isSoftware: /swiftshader|llvmpipe|lavapipe|basic render|warp/.test(text),
    features: [...features].sort(),
    limits: Object.fromEntries(requestedLimits.map((name) => [name, limits[name]]))
  };
}
function targetOf(device, adapter) {
  const { limits } = device;
  const text = `${adapter.architecture} ${adapter.device} ${adapter.description}`.toLowerCase();
  return {
    ...defaultTarget,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxBufferSize: limits.maxBufferSize,
    maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    minStorageBufferOffsetAlignment: Math.max(256, limits.minStorageBufferOffsetAlignment),
    features: new Set(device.features),
    family: /swiftshader/.test(text) ? "swiftshader" : /llvmpipe|lavapipe/.test(text) ? "lavapipe" : "gpu"
  };
}

// src/node/adapter.ts
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { constants as osConstants } from "node:os";
var lavapipeManifests = [
  "/usr/share/vulkan/icd.d/lvp_icd.json",
  "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
  "/usr/share/vulkan/icd.d/lvp_icd.aarch64.json"
];
var instance;
async function createGpu(choice = "auto") {
  if (instance?.choice === choice) return instance.gpu;
  if (instance) throw new AdapterError("no-adapter", `This process already uses the adapter '${instance.choice}'; start another process for '${choice}'.`);
  const gpu2 = choice === "auto" ? await createAutomatically() : await createWith(choice);
  instance = { gpu: gpu2, choice };
  return gpu2;
}
async function createAutomatically() {
  const hasLoader = process.platform !== "linux" || hasSystemLoader();
  if (hasLoader) {
    const gpu2 = await loadDawn();
    const adapter = await requestQuietly(gpu2);
    if (adapter) return gpu2;
  }
  if (process.platform === "linux") return createWith("swiftshader");
  throw new AdapterError("no-adapter", noAdapterAdvice());
}
async function createWith(choice) {
  if (choice === "lavapipe") {
    const manifest = lavapipeManifests.find((path) => existsSync(path));
    if (!manifest) {
      throw new AdapterError("no-adapter", "lavapipe is not installed. On Debian or Ubuntu: apt install mesa-vulkan-drivers (Mesa 24 or newer; on Debian 12 from bookworm-backports).");
    }
    process.env["VK_ICD_FILENAMES"] = manifest;
    process.env["VK_DRIVER_FILES"] = manifest;
  }
  if (choice === "swiftshader") await selectSwiftShader();
  const gpu2 = await loadDawn();
  const adapter = await requestQuietly(gpu2);
  const description = adapter ? `${adapter.info.architecture} ${adapter.info.device} ${adapter.info.description}` : "none";
  const isSoftware = /swiftshader|llvmpipe|lavapipe/i.test(description);
  const fits = choice === "gpu" ? adapter && !isSoftware : choice === "swiftshader" ? /swiftshader/i.test(description) : /llvmpipe|lavapipe/i.test(description);
  if (!fits) throw new AdapterError("no-adapter", `The adapter '${choice}' was asked for, found: ${description}. ${noAdapterAdvice()}`);
  return gpu2;
}
async function loadDawn() {
  let dawn;
  try {
    dawn = await import("webgpu");
  } catch (cause) {
    throw new AdapterError("no-adapter", "WebGPU in Node needs the npm package webgpu (Dawn): npm install webgpu.", { cause });
  }
  return dawn.create([]);
}
async function requestQuietly(gpu2) {
  return gpu2.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
}
async function selectSwiftShader() {
  let executable;
  try {
    const { default: chromium } = await import("@sparticuz/chromium");
    executable = await chromium.executablePath();
  } catch (cause) {
    throw new AdapterError("no-adapter", "SwiftShader comes with the npm package @sparticuz/chromium (Linux x64): npm install @sparticuz/chromium.", { cause });
  }
  const folder = dirname(executable);
  const manifest = join(folder, "vk_swiftshader_icd.json");
  if (!existsSync(manifest)) throw new AdapterError("no-adapter", `@sparticuz/chromium unpacked no SwiftShader into ${folder}: remove that folder's files and try again.`);
  process.env["VK_ICD_FILENAMES"] = manifest;
  process.env["VK_DRIVER_FILES"] = manifest;
  if (!hasSystemLoader()) loadForGood(join(folder, "libvulkan.so.1"));
}
function hasSystemLoader() {
  return ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/lib/x86_64-linux-gnu"].some((folder) => existsSync(join(folder, "libvulkan.so.1")));
}
function loadForGood(library) {
  const noDelete = 4096;
  try {
    process.dlopen({ exports: {} }, library, osConstants.dlopen.RTLD_NOW | osConstants.dlopen.RTLD_GLOBAL | noDelete);
  } catch (error) {
    if (!/self-register/.test(String(error))) throw new AdapterError("no-adapter", `The Vulkan loader ${library} can't be loaded: ${String(error)}`, { cause: error });
  }
}
function noAdapterAdvice() {
  switch (process.platform) {
    case "linux":
      return "Install the Vulkan driver of your GPU, or a software adapter: npm install @sparticuz/chromium (SwiftShader, no root), or apt install mesa-vulkan-drivers (lavapipe, faster).";
    case "darwin":
      return "Metal is needed: macOS 12 or newer on a machine with a GPU.";
    default:
      return "A Direct3D 12 or Vulkan driver is needed: update the graphics driver.";
  }
}

// src/graph/fusion.ts
function fuse(nodes, kept, enabled, target) {
  const readers = /* @__PURE__ */ new Map();
  for (const node of nodes) for (const t of node.inputs) readers.set(t, (readers.get(t) ?? 0) + 1);
  const steps = /* @__PURE__ */ new Map();
  const open = /* @__PURE__ */ new Set();
  const tryFuse = (node) => {
    for (const candidate of node.operation.asEpilogue?.(node) ?? []) {
      const through = node.inputs[candidate.index];
      const producer = steps.get(through);
      if (!producer?.operation.withEpilogue || producer.outputs[0] !== through || !open.has(producer)) continue;
      if (kept.has(through) || readers.get(through) !== 1) continue;
      if (producer.outputs.some((t) => t !== through && (kept.has(t) || readers.has(t)))) continue;
      const operand = candidate.operandIndex === void 0 ? void 0 : node.inputs[candidate.operandIndex];
      if (operand === through) continue;
      if (producer.inputs.length + (operand ? 1 : 0) + 1 > target.maxStorageBuffersPerShaderStage) continue;
      const attributes = producer.operation.withEpilogue(producer, candidate.epilogue, operand);
      if (attributes === void 0) continue;
      steps.delete(through);
      return {
        name: producer.name,
        label: `${producer.label}+${node.operation.name}`,
        operation: producer.operation,
        attributes,
        inputs: operand ? [...producer.inputs, operand] : producer.inputs,
        outputs: node.outputs
      };
    }
    return void 0;
  };
  for (const node of nodes) {
    const step = (enabled ? tryFuse(node) : void 0) ?? { name: node.name, label: node.operation.name, operation: node.operation, attributes: node.attributes, inputs: node.inputs, outputs: node.outputs };
    steps.set(step.outputs[0], step);
    if (step.operation.mutates) open.clear();
    else open.add(step);
  }
  return [...steps.values()];
}

// src/graph/memory-plan.ts
function planMemory(tensors, options) {
  const { alignment, maxSlabBytes } = options;
  const sizes = tensors.map((t) => roundUp(t.bytes, alignment));
  const order = tensors.map((_, i) => i).sort((a, b) => sizes[b] - sizes[a] || tensors[a].first - tensors[b].first || a - b);
  const placements = Array.from({ length: tensors.length });
  const slabs = [];
  for (const i of order) {
    const tensor = tensors[i];
    if (sizes[i] > maxSlabBytes) {
      throw new AllocationError(
        `${tensor.name} needs ${sizes[i]} bytes in one buffer, the adapter allows ${maxSlabBytes}. Use a smaller batch or crop.`
      );
    }
    let best;
    slabs.forEach((slab2, s) => {
      if (slab2.members.some((m) => tensor.conflicts.has(m) || tensors[m].conflicts.has(i))) return;
      const offset = lowestGap(tensor, sizes[i], slab2.members, tensors, sizes, placements);
      const growth = Math.max(0, offset + sizes[i] - slab2.size);
      if (offset + sizes[i] <= maxSlabBytes && (!best || growth < best.growth)) best = { slab: s, offset, growth };
    });
    if (!best) {
      slabs.push({ size: 0, members: [] });
      best = { slab: slabs.length - 1, offset: 0, growth: sizes[i] };
    }
    const slab = slabs[best.slab];
    slab.size = Math.max(slab.size, best.offset + sizes[i]);
    slab.members.push(i);
    placements[i] = { slab: best.slab, offset: best.offset };
  }
  return { placements, slabs: slabs.map((s) => s.size), lowerBound: liveMaximum(tensors, sizes) };
}
function lowestGap(tensor, size, members, tensors, sizes, placements) {
  const busy = members.filter((m) => tensors[m].first <= tensor.last && tensor.first <= tensors[m].last).map((m) => [placements[m].offset, placements[m].offset + sizes[m]]).sort((a, b) => a[0] - b[0]);
  let offset = 0;
  for (const [start, end] of busy) {
    if (start - offset >= size) return offset;
    offset = Math.max(offset, end);
  }
  return offset;
}
function liveMaximum(tensors, sizes) {
  const changes = /* @__PURE__ */ new Map();
  tensors.forEach((t, i) => {
    changes.set(t.first, (changes.get(t.first) ?? 0) + sizes[i]);
    changes.set(t.last + 1, (changes.get(t.last + 1) ?? 0) - sizes[i]);
  });
  let live = 0;
  let most = 0;
  for (const step of [...changes.keys()].sort((a, b) => a - b)) most = Math.max(most, live += changes.get(step));
  return most;
}

// src/graph/tensor.ts
var Tensor = class {
  shape;
  dtype;
  node;
  /** Which of the node's outputs this is. */
  index;
  constructor(node, index, spec) {
    this.node = node;
    this.index = index;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
  }
  get name() {
    return this.index === 0 ? this.node.name : `${this.node.name}#${this.index}`;
  }
};
function sizeOf(shape) {
  return shape.reduce((product, n) => product * n, 1);
}
function bytesOf(spec) {
  return Math.ceil(sizeOf(spec.shape) * 4 / 16) * 16;
}
var nextId = 0;
var scopes = [];
function scoped(name) {
  return scopes.length > 0 ? `${scopes.join(".")}.${name}` : name;
}
function checkShape(shape, what) {
  if (!shape.every((n) => Number.isInteger(n) && n > 0)) {
    throw new UsageError(`${what}: every dimension must be a positive integer, got [${shape.join(", ")}].`);
  }
}
function makeNode(fields, specs) {
  for (const spec of specs) checkShape(spec.shape, fields.name);
  const outputs = [];
  const node = { ...fields, id: nextId++, outputs };
  specs.forEach((spec, i) => outputs.push(new Tensor(node, i, spec)));
  return node;
}
var leaf = { operation: void 0, attributes: void 0, inputs: [] };
function input(name, shape, dtype = "f32") {
  return makeNode({ ...leaf, kind: "input", name }, [{ shape, dtype }]).outputs[0];
}
function apply(operation, inputs, attributes, name) {
  const specs = operation.outputs(inputs, attributes);
  return makeNode(
    { kind: "operation", name: scoped(name ?? operation.name), operation, attributes, inputs: [...inputs] },
    specs
  ).outputs;
}
function reachableNodes(outputs) {
  const seen = /* @__PURE__ */ new Set();
  const stack = [...outputs].map((x2) => x2 instanceof Tensor ? x2.node : x2);
  while (stack.length > 0) {
    const node = stack.pop();
    if (seen.has(node)) continue;
    seen.add(node);
    for (const t of node.inputs) stack.push(t.node);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

// src/graph/plan.ts
function compile(options) {
  const { target } = options;
  const named = Object.entries(options.outputs);
  const roots = [...named.map(([, t]) => t), ...options.effects ?? []];
  if (roots.length === 0) throw new UsageError("A plan needs at least one output or effect.");
  const nodes = reachableNodes(roots);
  checkLeafNames(nodes);
  const kept = new Set(roots);
  const steps = fuse(nodes.filter((n) => n.kind === "operation"), kept, options.fusion ?? true, target);
  const storage = new Storage();
  for (const step of steps) storage.add(step);
  const lifetimes = new Lifetimes(storage);
  const planned = steps.map((step, s) => planStep(step, s, storage, lifetimes, target));
  for (const node of nodes) if (node.kind === "input") lifetimes.use(node.outputs[0], -1);
  for (const t of kept) lifetimes.use(t, steps.length);
  const memory = planMemory(lifetimes.list, { alignment: target.minStorageBufferOffsetAlignment, maxSlabBytes: target.maxBufferSize });
  const constants = nodes.filter((n) => n.kind === "constant").map((n) => n.outputs[0]);
  const locate = (place) => {
    if (place.kind === "slab") {
      const at2 = memory.placements[place.index];
      return { kind: "slab", slab: at2.slab, offset: at2.offset + place.offset };
    }
    const { node } = place.tensor;
    if (node.kind === "parameter") return { kind: "parameter", name: node.name, offset: place.offset };
    return { kind: "constant", index: constants.indexOf(place.tensor), offset: place.offset };
  };
  const dispatches = [];
  for (const { step, items } of planned) {
    for (const { dispatch, places } of items) {
      const bindings = places.map(({ place, bytes, access }) => {
        if (bytes > target.maxStorageBufferBindingSize) {
          throw new AllocationError(
            `${step.name}: a tensor of ${bytes} bytes is larger than the adapter's binding limit of ${target.maxStorageBufferBindingSize}. Use a smaller batch or crop, or more slices.`
          );
        }
        return { location: locate(place), bytes, access };
      });
      dispatches.push({ node: step.name, kernel: dispatch.kernel, bindings, workgroups: dispatch.workgroups, flops: dispatch.flops, bytes: dispatch.bytes });
    }
  }
  const parameters = new Map(nodes.filter((n) => n.kind === "parameter").map((n) => [n.name, n.outputs[0]]));
  const at = (tensor) => ({ spec: tensor, location: locate(lifetimes.place(tensor)) });
  return {
    target,
    dispatches,
    slabs: memory.slabs,
    parameters,
    constants,
    inputs: new Map(nodes.filter((n) => n.kind === "input").map((n) => [n.name, at(n.outputs[0])])),
    outputs: new Map(named.map(([name, t]) => [name, at(t)])),
    report: makeReport(planned, dispatches, memory.slabs, parameters, constants)
  };
}
function checkLeafNames(nodes) {
  const seen = /* @__PURE__ */ new Map();
  for (const node of nodes) {
    if (node.kind !== "input" && node.kind !== "parameter") continue;
    if (seen.has(node.name)) throw new UsageError(`Two leaves of the graph are called ${node.name}: make it once and pass the tensor on.`);
    seen.set(node.name, node);
  }
}
var Storage = class {
  parents = /* @__PURE__ */ new Map();
  producers = /* @__PURE__ */ new Map();
  /** For a concatenation, which inputs lie in place. */
  placed = /* @__PURE__ */ new Map();
  add(step) {
    const { operation, inputs, outputs } = step;
    for (const t of outputs) this.producers.set(t, step);
    if (operation.alias) this.parents.set(outputs[0], { tensor: inputs[0], offset: 0 });
    if (!operation.concatenation) return;
    const offsets = operation.concatenation(step.attributes);
    const whole = outputs[0];
    const parts = [];
    this.placed.set(step, inputs.map((t, i) => {
      const root = this.root(t);
      const movable = root.tensor.node.kind === "operation" && root.offset === 0 && sizeOf(root.tensor.shape) === sizeOf(t.shape) && !this.isWhole(root.tensor) && !this.isMadeFrom(root.tensor, whole) && !parts.some((part) => this.isMadeFrom(part, root.tensor));
      if (movable) {
        this.parents.set(root.tensor, { tensor: whole, offset: offsets[i] * 4 });
        parts.push(root.tensor);
      }
      return movable;
    }));
  }
  isMadeFrom(tensor, source) {
    return this.producers.get(tensor).inputs.some((t) => this.root(t).tensor === source);
  }
  isWhole(tensor) {
    return [...this.placed.keys()].some((step) => step.outputs[0] === tensor);
  }
  root(tensor) {
    let offset = 0;
    for (let parent = this.parents.get(tensor); parent; parent = this.parents.get(tensor)) {
      offset += parent.offset;
      tensor = parent.tensor;
    }
    return { tensor, offset };
  }
};
var Lifetimes = class {
  list = [];
  indices = /* @__PURE__ */ new Map();
  storage;
  constructor(storage) {
    this.storage = storage;
  }
  place(tensor) {
    const root = this.storage.root(tensor);
    const { kind } = root.tensor.node;
    if (kind === "parameter" || kind === "constant") return { kind: "persistent", tensor: root.tensor, offset: root.offset };
    let index = this.indices.get(root.tensor);
    if (index === void 0) {
      index = this.list.push({ name: root.tensor.name, bytes: bytesOf(root.tensor), first: Infinity, last: -Infinity, conflicts: /* @__PURE__ */ new Set() }) - 1;
      this.indices.set(root.tensor, index);
    }
    return { kind: "slab", index, offset: root.offset };
  }
  use(tensor, step) {
    const place = this.place(tensor);
    if (place.kind === "slab") this.extend(place.index, step);
    return place;
  }
  scratch(name, bytes, step) {
    const index = this.list.push({ name, bytes, first: step, last: step, conflicts: /* @__PURE__ */ new Set() }) - 1;
    return { kind: "slab", index, offset: 0 };
  }
  extend(index, step) {
    const item = this.list[index];
    item.first = Math.min(item.first, step);
    item.last = Math.max(item.last, step);
  }
  /** Everything that a dispatch writes must lie in other slabs than what it reads. */
  separate(step, places) {
    for (const written of places) {
      if (written.access !== "read_write" || written.place.kind !== "slab") continue;
      for (const read of places) {
        if (read.access !== "read" || read.place.kind !== "slab") continue;
        if (read.place.index === written.place.index) throw new UsageError(`${step} reads and writes ${this.list[read.place.index].name} in one dispatch.`);
        this.list[written.place.index].conflicts.add(read.place.index);
      }
    }
  }
};
function planStep(step, index, storage, lifetimes, target) {
  const scratches = [];
  const bind2 = (handle, access) => ({ handle, access });
  const dispatches = step.operation.alias ? [] : step.operation.kernels({
    inputs: step.inputs,
    outputs: step.outputs,
    attributes: step.attributes,
    target,
    name: step.name,
    placed: storage.placed.get(step) ?? step.inputs.map(() => false),
    read: (i) => bind2({ kind: "input", index: i }, "read"),
    write: (i) => bind2({ kind: "output", index: i }, "read_write"),
    readBack: (i) => bind2({ kind: "output", index: i }, "read"),
    update: (i) => {
      if (!step.operation.mutates?.includes(i)) throw new UsageError(`${step.operation.name} changes input ${i} without saying so.`);
      return bind2({ kind: "input", index: i }, "read_write");
    },
    scratch: (bytes) => {
      const size = Math.max(16, Math.ceil(bytes / 16) * 16);
      const handle = { kind: "scratch", index: scratches.push({ place: lifetimes.scratch(`${step.name} (scratch)`, size, index), bytes: size }) - 1 };
      return { read: bind2(handle, "read"), write: bind2(handle, "read_write") };
    }
  });
  for (const t of step.inputs) lifetimes.use(t, index);
  for (const t of step.outputs) lifetimes.use(t, index);
  const items = dispatches.map((dispatch) => {
    checkDispatch(step, dispatch, target);
    const places = dispatch.bindings.map(({ handle, access }) => {
      if (handle.kind === "scratch") return { ...scratches[handle.index], access };
      const tensor = (handle.kind === "input" ? step.inputs : step.outputs)[handle.index];
      return { place: lifetimes.place(tensor), bytes: bytesOf(tensor), access };
    });
    lifetimes.separate(step.name, places);
    return { dispatch, places };
  });
  return { step, items };
}
function checkDispatch(step, dispatch, target) {
  if (dispatch.bindings.length > target.maxStorageBuffersPerShaderStage) {
    throw new UsageError(`${step.name}: ${dispatch.kernel.label} binds ${dispatch.bindings.length} buffers, the adapter allows ${target.maxStorageBuffersPerShaderStage}.`);
  }
  if (dispatch.workgroups.some((n) => !Number.isInteger(n) || n < 1 || n > target.maxComputeWorkgroupsPerDimension)) {
    throw new UsageError(`${step.name}: ${dispatch.kernel.label} dispatches ${dispatch.workgroups.join(" x ")} workgroups, the adapter allows ${target.maxComputeWorkgroupsPerDimension} a dimension.`);
  }
}
function makeReport(planned, dispatches, slabs, parameters, constants) {
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const slabBytes = sum(slabs);
  const parameterBytes = sum([...parameters.values()].map(bytesOf));
  const constantBytes = sum(constants.map(bytesOf));
  return {
    kernels: dispatches.length,
    submits: 1,
    flops: sum(dispatches.map((d) => d.flops)),
    bytes: sum(dispatches.map((d) => d.bytes)),
    peakBytes: slabBytes + parameterBytes + constantBytes,
    slabBytes,
    parameterBytes,
    constantBytes,
    largestBinding: Math.max(0, ...dispatches.flatMap((d) => d.bindings.map((b) => b.bytes))),
    nodes: planned.filter(({ items }) => items.length > 0).map(({ step, items }) => ({
      name: step.name,
      op: step.label,
      shape: [...step.outputs[0].shape],
      kernels: items.length,
      flops: sum(items.map((i) => i.dispatch.flops)),
      bytes: sum(items.map((i) => i.dispatch.bytes))
    }))
  };
}

// src/gpu/memory.ts
function layoutMemory(sizes, options) {
  const places = [];
  const buffers = [];
  for (const [name, bytes] of sizes) {
    const size = roundUp(roundUp(bytes, 16), options.alignment);
    if (size > options.maxBytes) throw new AllocationError(`${name} needs ${bytes} bytes, one buffer may hold ${options.maxBytes} on this adapter.`);
    if (buffers.length === 0 || buffers.at(-1) + size > options.maxBytes) buffers.push(0);
    places.push({ name, buffer: buffers.length - 1, offset: buffers.at(-1), bytes });
    buffers[buffers.length - 1] += size;
  }
  return { places, buffers };
}
function layoutFor(target, sizes) {
  return layoutMemory(sizes, { alignment: target.minStorageBufferOffsetAlignment, maxBytes: Math.min(target.maxStorageBufferBindingSize, target.maxBufferSize) });
}
var DeviceMemory = class _DeviceMemory {
  tensors;
  buffers;
  context;
  constructor(context, tensors, buffers) {
    this.context = context;
    this.tensors = tensors;
    this.buffers = buffers;
  }
  /** Allocates zeroed memory for the tensors, in order; the group is split where it exceeds what one binding may cover. */
  static async allocate(context, label, sizes) {
    const { places, buffers: totals } = layoutFor(context.target, sizes);
    if (new Set(places.map((l) => l.name)).size !== places.length) throw new UsageError(`${label}: two tensors have the same name.`);
    const buffers = await context.createBuffers(label, totals, Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST);
    const tensors = new Map(places.map((l) => [l.name, { buffer: buffers[l.buffer], offset: l.offset, bytes: l.bytes }]));
    return new _DeviceMemory(context, tensors, buffers);
  }
  get bytes() {
    return this.buffers.reduce((sum, b) => sum + b.size, 0);
  }
  write(name, data) {
    const tensor = this.find(name);
    if (data.byteLength !== tensor.bytes) throw new UsageError(`${name} holds ${tensor.bytes} bytes, got ${data.byteLength}.`);
    this.context.device.queue.writeBuffer(tensor.buffer, tensor.offset, data.buffer, data.byteOffset, data.byteLength);
  }
  /** Reads tensors back; with no names, all of them. */
  async read(names = this.tensors.keys()) {
    this.context.check();
    const wanted = [...names].map((name) => ({ name, tensor: this.find(name) }));
    const result = /* @__PURE__ */ new Map();
    const limit = 64 * 1024 * 1024;
    for (let start = 0; start < wanted.length; ) {
      let end = start;
      let total = 0;
      do
        total += roundUp(wanted[end++].tensor.bytes, 16);
      while (end < wanted.length && total + roundUp(wanted[end].tensor.bytes, 16) <= limit);
      const staging = this.context.createBuffer("readback", total, Usage.MAP_READ | Usage.COPY_DST);
      const encoder = this.context.device.createCommandEncoder();
      let offset = 0;
      for (const { tensor } of wanted.slice(start, end)) {
        encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, staging, offset, roundUp(tensor.bytes, 4));
        offset += roundUp(tensor.bytes, 16);
      }
      this.context.device.queue.submit([encoder.finish()]);
      try {
        const bytes = await this.context.readStaging(staging, total);
        offset = 0;
        for (const { name, tensor } of wanted.slice(start, end)) {
          result.set(name, new Float32Array(bytes.slice(offset, offset + tensor.bytes)));
          offset += roundUp(tensor.bytes, 16);
        }
      } finally {
        this.context.destroyBuffer(staging);
      }
      start = end;
    }
    return result;
  }
  find(name) {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new UsageError(`No tensor called ${name} in this memory; it has ${[...this.tensors.keys()].slice(0, 5).join(", ")} \u2026.`);
    return tensor;
  }
  dispose() {
    for (const buffer of this.buffers) this.context.destroyBuffer(buffer);
  }
};

// src/graph/executor.ts
var arrayTypes = { f32: Float32Array, u32: Uint32Array, i32: Int32Array };
var Executable = class _Executable {
  plan;
  /** Submits made by runs so far. */
  submits = 0;
  context;
  dispatches;
  slabs;
  constants;
  locate;
  stagingPool = [];
  disposed = false;
  constructor(context, plan, dispatches, slabs, constants, locate) {
    this.context = context;
    this.plan = plan;
    this.dispatches = dispatches;
    this.slabs = slabs;
    this.constants = constants;
    this.locate = locate;
  }
  /**
   * Compiles the plan's pipelines and lays out its memory.
   * @param parameters memory for every parameter of the plan, by name; it stays the caller's.
   * @throws KernelError, AllocationError, DeviceLostError
   */
  static async prepare(context, plan, parameters = /* @__PURE__ */ new Map()) {
    context.check();
    for (const [name, spec] of plan.parameters) {
      const bound = parameters.get(name);
      if (!bound) throw new UsageError(`The plan needs the parameter ${name} of shape [${spec.shape.join(", ")}]; none was given.`);
      if (bound.bytes < sizeOf(spec.shape) * 4) {
        throw new UsageError(`Parameter ${name} of shape [${spec.shape.join(", ")}] needs ${sizeOf(spec.shape) * 4} bytes, ${bound.bytes} are bound.`);
      }
    }
    const compiling = Promise.all(plan.dispatches.map((d) => context.pipelines.get(d.kernel, d.bindings.map((b) => b.access))));
    compiling.catch(() => void 0);
    const slabs = await context.createBuffers("slab", plan.slabs, Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST);
    let constants;
    try {
      if (plan.constants.length > 0) {
        constants = await DeviceMemory.allocate(context, "constants", plan.constants.map((t, i) => [String(i), sizeOf(t.shape) * 4]));
        for (const [i, t] of plan.constants.entries()) constants.write(String(i), t.node.data);
      }
      return await _Executable.bind(context, plan, await compiling, slabs, constants, parameters);
    } catch (error) {
      for (const slab of slabs) context.destroyBuffer(slab);
      constants?.dispose();
      throw error;
    }
  }
  static async bind(context, plan, kernels, slabs, constants, parameters) {
    const locate = (location) => {
      if (location.kind === "slab") return { buffer: slabs[location.slab], offset: location.offset };
      const bound = location.kind === "parameter" ? parameters.get(location.name) : constants.tensors.get(String(location.index));
      return { buffer: bound.buffer, offset: bound.offset + location.offset };
    };
    const dispatches = await context.guarded("bind groups", () => plan.dispatches.map((d, i) => ({
      node: d.node,
      pipeline: kernels[i].pipeline,
      workgroups: d.workgroups,
      bindGroup: context.device.createBindGroup({
        label: d.kernel.label,
        layout: kernels[i].layout,
        entries: d.bindings.map((b, binding) => ({ binding, resource: { ...locate(b.location), size: b.bytes } }))
      })
    })));
    return new _Executable(context, plan, dispatches, slabs, constants, locate);
  }
  /**
   * One run: writes the inputs, submits once, and resolves with the outputs.
   * @param inputs a value for every input of the plan.
   * @param options.read names of the outputs wanted; default all.
   * @param options.before other plans' work, recorded first and sent in the same submit.
   * @throws UsageError for missing or misshaped inputs; KernelError for what the device refused; ReadbackError; DeviceLostError
   */
  async run(inputs = {}, options = {}) {
    this.context.check();
    const encoder = this.context.device.createCommandEncoder();
    options.before?.(encoder);
    this.record(encoder, inputs);
    return this.finish(encoder, options.read ?? [...this.plan.outputs.keys()]);
  }
  /**
   * Writes the inputs and records the plan's dispatches, for a submit of the caller's. The inputs are written at once,
   * so one executable can be recorded only once in a submit.
   */
  record(encoder, inputs) {
    if (this.disposed) throw new UsageError("This plan was disposed of; prepare it again to run it.");
    this.writeInputs(inputs);
    const pass = encoder.beginComputePass();
    for (const d of this.dispatches) encodeDispatch(pass, d);
    pass.end();
  }
  /** Records a copy of an output into memory of the caller's. */
  copyOutput(encoder, name, to) {
    const output = this.plan.outputs.get(name);
    if (!output) throw new UsageError(`The plan has no output ${name}; it has ${[...this.plan.outputs.keys()].join(", ")}.`);
    const { buffer, offset } = this.locate(output.location);
    encoder.copyBufferToBuffer(buffer, offset, to.buffer, to.offset, sizeOf(output.spec.shape) * 4);
  }
  /** As {@link run}, with every dispatch timed by the GPU (needs `timestamp-query`). For benchmarks: timing costs time. */
  async profile(inputs = {}) {
    const { device } = this.context;
    if (!device.features.has("timestamp-query")) throw new UsageError("This adapter has no timestamp-query.");
    this.context.check();
    this.writeInputs(inputs);
    const count = this.dispatches.length;
    const timings = [];
    const limit = 2048;
    for (let start = 0; start < count; start += limit) {
      const part = this.dispatches.slice(start, start + limit);
      const querySet = device.createQuerySet({ type: "timestamp", count: part.length * 2 });
      const resolved = this.context.createBuffer("timestamps", part.length * 16, Usage.QUERY_RESOLVE | Usage.COPY_SRC);
      const staging = this.context.createBuffer("timestamps", part.length * 16, Usage.MAP_READ | Usage.COPY_DST);
      const encoder = device.createCommandEncoder();
      part.forEach((d, i) => {
        const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 } });
        encodeDispatch(pass, d);
        pass.end();
      });
      encoder.resolveQuerySet(querySet, 0, part.length * 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, part.length * 16);
      device.queue.submit([encoder.finish()]);
      const stamps = new BigUint64Array(await this.context.readStaging(staging, part.length * 16));
      part.forEach((d, i) => {
        const planned = this.plan.dispatches[start + i];
        timings.push({ node: d.node, kernel: planned.kernel.label, seconds: Number(stamps[2 * i + 1] - stamps[2 * i]) * 1e-9, flops: planned.flops, bytes: planned.bytes });
      });
      querySet.destroy();
      this.context.destroyBuffer(resolved);
      this.context.destroyBuffer(staging);
    }
    return timings;
  }
  writeInputs(inputs) {
    for (const name of Object.keys(inputs)) {
      if (!this.plan.inputs.has(name)) throw new UsageError(`The plan has no input ${name}; it has ${[...this.plan.inputs.keys()].join(", ") || "none"}.`);
    }
    for (const [name, { spec, location }] of this.plan.inputs) {
      const data = inputs[name];
      if (!data) throw new UsageError(`Input ${name} of shape [${spec.shape.join(", ")}] was not given.`);
      if (data.length !== sizeOf(spec.shape)) throw new UsageError(`Input ${name} of shape [${spec.shape.join(", ")}] needs ${sizeOf(spec.shape)} elements, got ${data.length}.`);
      if (!(data instanceof arrayTypes[spec.dtype])) throw new UsageError(`Input ${name} is ${spec.dtype} and needs a ${arrayTypes[spec.dtype].name}, got a ${data.constructor.name}.`);
      const { buffer, offset } = this.locate(location);
      this.context.device.queue.writeBuffer(buffer, offset, data.buffer, data.byteOffset, data.byteLength);
    }
  }
  async finish(encoder, read) {
    const wanted = read.map((name) => {
      const output = this.plan.outputs.get(name);
      if (!output) throw new UsageError(`The plan has no output ${name}; it has ${[...this.plan.outputs.keys()].join(", ")}.`);
      return { name, ...output };
    });
    const total = wanted.reduce((sum, o) => sum + bytesOf(o.spec), 0);
    const staging = total > 0 ? this.takeStaging(total) : void 0;
    let at = 0;
    for (const { spec, location } of wanted) {
      const { buffer, offset } = this.locate(location);
      encoder.copyBufferToBuffer(buffer, offset, staging, at, sizeOf(spec.shape) * 4);
      at += bytesOf(spec);
    }
    this.context.device.queue.submit([encoder.finish()]);
    this.submits++;
    if (!staging) return {};
    let bytes;
    try {
      bytes = await this.context.readStaging(staging, total);
    } catch (error) {
      this.context.destroyBuffer(staging);
      throw error;
    }
    if (this.disposed) this.context.destroyBuffer(staging);
    else this.stagingPool.push(staging);
    at = 0;
    const results = {};
    for (const { name, spec } of wanted) {
      results[name] = view(bytes, at, spec);
      at += bytesOf(spec);
    }
    return results;
  }
  takeStaging(bytes) {
    const i = this.stagingPool.findIndex((b) => b.size >= bytes);
    if (i >= 0) return this.stagingPool.splice(i, 1)[0];
    return this.context.createBuffer("staging", roundUp(bytes, 16), Usage.MAP_READ | Usage.COPY_DST);
  }
  /** Frees the plan's memory. Runs that were submitted before still end; later ones are refused. */
  dispose() {
    this.disposed = true;
    for (const buffer of [...this.slabs, ...this.stagingPool]) this.context.destroyBuffer(buffer);
    this.stagingPool.length = 0;
    this.constants?.dispose();
  }
};
function encodeDispatch(pass, d) {
  pass.setPipeline(d.pipeline);
  pass.setBindGroup(0, d.bindGroup);
  pass.dispatchWorkgroups(...d.workgroups);
}
function view(bytes, offset, spec) {
  return new arrayTypes[spec.dtype](bytes, offset, sizeOf(spec.shape));
}

// src/gpu/wgsl.ts
import { wgsl as preprocess } from "wgsl-preprocessor/wgsl-preprocessor.js";
var marker = /^\/\*@(\d+)\*\//;
function wgsl(strings, ...values) {
  let line = 1;
  const marked = strings.map((piece) => piece.replace(/\n/g, () => `
/*@${++line}*/`));
  const checked = values.map((value, i) => {
    const isCondition = /#(if|elif)\s*$/.test(strings[i]);
    if (isCondition) {
      if (typeof value !== "boolean") throw new UsageError(`WGSL condition ${i} is ${typeof value}, expected a boolean.`);
      return value;
    }
    return emit(value, i);
  });
  const expanded = preprocess(marked, ...checked);
  const lines = [];
  let current = 1;
  const code = expanded.split("\n").map((text) => {
    const match = marker.exec(text);
    if (match) current = Number(match[1]);
    lines.push(current);
    return text.replace(/\/\*@\d+\*\//g, "").replace(/\s+$/, "");
  });
  return withoutBlankLines(code, lines);
}
function emit(value, index) {
  if (typeof value === "string") return value;
  if (typeof value === "number" && Number.isSafeInteger(value)) return String(value);
  if (typeof value === "object" && typeof value?.code === "string") return value.code;
  throw new UsageError(
    `WGSL value ${index} is ${String(value)}: expected an integer, a string, or f32(x) for a floating-point constant.`
  );
}
function withoutBlankLines(code, lines) {
  const kept = code.map((text, i) => [text, lines[i]]).filter(([text]) => text !== "");
  return { code: kept.map(([text]) => text).join("\n"), lines: kept.map(([, line]) => line) };
}
function kernel(file, label, text) {
  return { file, label, code: text.code, lines: text.lines };
}
function f32(value) {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) throw new UsageError(`WGSL has no f32 literal for ${value}.`);
  const text = String(rounded);
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}

// shaders/common.wgsl.ts
var lanes = 64;
function linearGrid(count, target) {
  const groups = Math.ceil(count / lanes);
  const rows = Math.ceil(groups / target.maxComputeWorkgroupsPerDimension);
  const columns = Math.ceil(groups / rows);
  const index = rows === 1 ? `let i = gid.x;` : `let i = gid.y * ${columns * lanes}u + gid.x;`;
  return { workgroups: [columns, rows, 1], index: `${index}
  if (i >= ${count}u) { return; }` };
}
function groupGrid(count, target) {
  const rows = Math.ceil(count / target.maxComputeWorkgroupsPerDimension);
  const columns = Math.ceil(count / rows);
  const index = rows === 1 ? `let group = wid.x;` : `let group = wid.y * ${columns}u + wid.x;
  if (group >= ${count}u) { return; }`;
  return { workgroups: [columns, rows, 1], index };
}
var reduceSum = `
var<workgroup> partial: array<f32, ${lanes}>;
fn reduceSum(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  partial[lane] = value;
  workgroupBarrier();
  for (var step = ${lanes / 2}u; step > 0u; step = step >> 1u) {
    if (lane < step) { partial[lane] = partial[lane] + partial[lane + step]; }
    workgroupBarrier();
  }
  return partial[0];
}`;

// src/ops/channel-slice.ts
function channels(tensor, offset = 0, count = tensor.shape.at(-1) - offset) {
  const stride = tensor.shape.at(-1);
  if (tensor.shape.length !== 3) throw new UsageError(`A channel slice needs a tensor [B, N, channels], ${tensor.name} is [${tensor.shape.join(", ")}].`);
  if (!Number.isInteger(offset) || !Number.isInteger(count) || offset < 0 || count < 1 || offset + count > stride) {
    throw new UsageError(`${tensor.name} has ${stride} channels: there is no slice of ${count} from ${offset}.`);
  }
  return { tensor, offset, count };
}

// shaders/head-rows.wgsl.ts
function chunksOf(headSize) {
  return Math.ceil(headSize / 4);
}
function each(count, body) {
  return Array.from({ length: count }, (_, i) => body(i)).join("\n");
}
function joined(count, operator, body) {
  return Array.from({ length: count }, (_, i) => body(i)).join(operator);
}
function keepLoop(target) {
  return target.family === "gpu" ? "" : " + wid.z";
}
function overChunks(headSize, target, body) {
  const chunks = chunksOf(headSize);
  if (target.family === "gpu") return each(chunks, (c) => `{ ${body(`${c}u`)} }`);
  return `for (var c = 0u; c < ${chunks}u${keepLoop(target)}; c++) { ${body("c")} }`;
}
function inBlocks(n, begin, end, block, exact, target, body) {
  return `var ${n} = ${begin};
let ${n}End = ${end}${keepLoop(target)};
for (; ${n} + ${block}u <= ${n}End; ${n} += ${block}u) {
${body(block)}
}
${exact || block === 1 ? "" : `for (; ${n} < ${n}End; ${n}++) {
${body(1)}
}`}`;
}
function blockOf(count, headSize) {
  const most = headSize % 4 === 0 ? 8 : 4;
  if (count <= most) return count;
  if (count > 8 * most) return most;
  return Array.from({ length: most / 2 }, (_, i) => most - i).reduce((best, b) => count % b < count % best ? b : best);
}
var HeadRows = class {
  /** The WGSL variable and its element type. */
  variable;
  type;
  layout;
  headSize;
  /** @param vector whether the variable is an array of vec4f: only where everything that is read of it {@link fits}. */
  constructor(variable, layout, headSize, vector) {
    this.variable = variable;
    this.layout = layout;
    this.headSize = headSize;
    this.type = vector ? "vec4f" : "f32";
  }
  static fits(layout, headSize) {
    return [layout.stride, layout.offset, headSize].every((n) => n % 4 === 0);
  }
  /** The index of the first element of a row of a head. */
  base(batch, row, head) {
    const unit = this.type === "vec4f" ? 4 : 1;
    const { rows, stride, offset } = this.layout;
    return `((${batch} * ${rows}u + ${row}) * ${stride / unit}u + ${offset / unit}u + ${head} * ${this.headSize / unit}u)`;
  }
  /** Four channels, as vec4f, of the row that begins at `base`. */
  read(base, chunk) {
    if (this.type === "vec4f") return `${this.variable}[${base} + ${chunk}]`;
    return `vec4f(${joined(4, ", ", (i) => {
      const value = `${this.variable}[${base} + 4u * ${chunk} + ${i}u]`;
      return this.headSize % 4 === 0 ? value : `select(0.0f, ${value}, 4u * ${chunk} + ${i}u < ${this.headSize}u)`;
    })})`;
  }
  /** The statements that write the vec4f variable `value` there. */
  write(base, chunk, value) {
    if (this.type === "vec4f") return `${this.variable}[${base} + ${chunk}] = ${value};`;
    return joined(4, " ", (i) => {
      const store = `${this.variable}[${base} + 4u * ${chunk} + ${i}u] = ${value}[${i}];`;
      return this.headSize % 4 === 0 ? store : `if (4u * ${chunk} + ${i}u < ${this.headSize}u) { ${store} }`;
    });
  }
};
function zeroChannelsKernel(rows, stride, start, end, target) {
  const width = end - start;
  const grid = linearGrid(rows * width, target);
  const source = kernel("head-rows.wgsl.ts", `zero channels ${start} to ${end - 1} of [${rows}, ${stride}]`, wgsl`
@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  gradient[(i / ${width}u) * ${stride}u + ${start}u + i % ${width}u] = 0.0f;
}
`);
  return { source, workgroups: grid.workgroups };
}
function declareBindings(bindings) {
  return bindings.map(({ name, type, access }, i) => `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`).join("\n");
}

// shaders/softmax-attention.wgsl.ts
function partsOf(variant) {
  return variant.splits * (variant.lanes / variant.slots);
}
function splitsFor(groups, others, target) {
  const wanted = target.family === "gpu" ? 256 : 8;
  return Math.max(1, Math.min(Math.floor(others / 64), Math.ceil(wanted / groups)));
}
function cpuVariant(shape, rows, others, most, target) {
  const lanes2 = target.family === "lavapipe" ? 8 : 4;
  const cost = (own2) => Math.ceil(rows / (own2 * lanes2)) * (own2 + 2.3);
  const own = Array.from({ length: most.rows }, (_, i) => i + 1).reduce((best, r) => cost(r) < cost(best) ? r : best);
  const groups = shape.batch * shape.heads * Math.ceil(rows / (own * lanes2));
  return { lanes: lanes2, slots: lanes2, rows: own, block: Math.min(most.block, blockOf(others, shape.headSize)), tile: 0, splits: splitsFor(groups, others, target) };
}
function forwardVariant(shape, target) {
  const { heads, headSize, queries, keys } = shape;
  if (target.family !== "gpu") return cpuVariant({ ...shape, batch: 1 }, queries, keys, { rows: 8, block: 8 }, target);
  const lanes2 = 64;
  const fitting = Math.floor(target.maxComputeWorkgroupStorageSize / (2 * 16 * (chunksOf(headSize) + 1)));
  const tile = [16, 8, 4, 2, 1].find((t) => t <= fitting) ?? 0;
  const slots = [8, 16, 32].find((s) => s >= queries && lanes2 / s <= tile) ?? lanes2;
  const groups = heads * Math.ceil(queries / slots);
  return { lanes: lanes2, slots, rows: 1, block: Math.max(1, Math.min(8, tile * slots / lanes2)), tile, splits: splitsFor(groups, keys, target) };
}
function backwardVariant(shape, rows, others, target) {
  if (target.family !== "gpu") return cpuVariant(shape, rows, others, { rows: 2, block: 4 }, target);
  const lanes2 = 64;
  const slots = [8, 16, 32].find((s) => s >= rows && others >= 16 * (lanes2 / s)) ?? lanes2;
  const groups = shape.batch * shape.heads * Math.ceil(rows / slots);
  return { lanes: lanes2, slots, rows: 1, block: blockOf(others, shape.headSize), tile: 0, splits: splitsFor(groups, others, target) };
}
function position(shape, variant, rowCount, target) {
  const { lanes: lanes2, slots, rows, splits } = variant;
  const rowGroups = Math.ceil(rowCount / (slots * rows));
  const grid = groupGrid(shape.batch * shape.heads * splits * rowGroups, target);
  return {
    workgroups: grid.workgroups,
    text: `${grid.index}
let bh = group / ${rowGroups * splits}u;
let b = bh / ${shape.heads}u;
let h = bh % ${shape.heads}u;
let split = (group / ${rowGroups}u) % ${splits}u;
let firstRow = (group % ${rowGroups}u) * ${slots * rows}u + lane % ${slots}u;
let share = lane / ${slots}u;
let part = split * ${lanes2 / slots}u + share;`
  };
}
function describe2(variant) {
  const parts = partsOf(variant);
  return `${variant.tile > 0 ? `tile ${variant.tile}` : "no tile"}, ${variant.rows}x${variant.block}${parts > 1 ? `, ${parts} parts` : ""}`;
}
function softmaxAttentionKernel(shape, variant, declarations, tensors, target) {
  const { batch, heads, headSize, queries, keys } = shape;
  const { lanes: lanes2, slots, rows, block, tile, splits } = variant;
  const { query, key, value, output } = tensors;
  const chunks = chunksOf(headSize);
  const parts = partsOf(variant);
  const shareOfTile = tile * slots / lanes2;
  const keysOfSplit = Math.ceil(keys / splits);
  const staged = tile > 0;
  const { text: place, workgroups } = position(shape, variant, queries, target);
  const loop = (body) => overChunks(headSize, target, body);
  const keyAt = (j, c) => staged ? `keyTile[(n + ${j}u) * ${chunks + 1}u + ${c}]` : key.read(`k${j}`, c);
  const valueAt = (j, c) => staged ? `valueTile[(n + ${j}u) * ${chunks + 1}u + ${c}]` : value.read(`v${j}`, c);
  const attend = (count) => `
${staged ? "" : each(count, (j) => `let k${j} = ${key.base("b", `(n + ${j}u)`, "h")};
let v${j} = ${value.base("b", `(n + ${j}u)`, "h")};`)}
${each(rows, (r) => each(count, (j) => `var s${r}_${j} = 0.0f;`))}
${loop((c) => `
${each(count, (j) => `let t${j} = ${keyAt(j, c)};`)}
${each(rows, (r) => `let q${r} = query${r}[${c}];
${each(count, (j) => `s${r}_${j} += dot(q${r}, t${j});`)}`)}
`)}
${each(rows, (r) => `let top${r} = ${Array.from({ length: count }, (_, j) => `s${r}_${j}`).reduce((a, s) => `max(${a}, ${s})`, `m${r}`)};
let decay${r} = exp2(m${r} - top${r});
m${r} = top${r};
${each(count, (j) => `let p${r}_${j} = exp2(s${r}_${j} - top${r});`)}
l${r} = l${r} * decay${r} + (${joined(count, " + ", (j) => `p${r}_${j}`)});`)}
${loop((c) => `
${each(count, (j) => `let t${j} = ${valueAt(j, c)};`)}
${each(rows, (r) => `sum${r}[${c}] = sum${r}[${c}] * decay${r} + (${joined(count, " + ", (j) => `p${r}_${j} * t${j}`)});`)}
`)}`;
  const text = wgsl`
${declarations}
#if ${staged}
var<workgroup> keyTile: array<vec4f, ${Math.max(1, tile * (chunks + 1))}>;
var<workgroup> valueTile: array<vec4f, ${Math.max(1, tile * (chunks + 1))}>;
#endif
@compute @workgroup_size(${lanes2})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${place}
  let firstKey = split * ${keysOfSplit}u;
  let endKey = min(firstKey + ${keysOfSplit}u, ${keys}u);
  ${each(rows, (r) => `
  let row${r} = firstRow + ${r * slots}u;
  let from${r} = ${query.base("b", `min(row${r}, ${queries - 1}u)`, "h")};
  var query${r}: array<vec4f, ${chunks}>;
  var sum${r}: array<vec4f, ${chunks}>;
  ${loop((c) => `query${r}[${c}] = ${f32(Math.LOG2E / Math.sqrt(headSize))} * ${query.read(`from${r}`, c)};`)}
  var m${r} = -1e38f;
  var l${r} = 0.0f;`)}
#if ${staged}
  for (var start = firstKey; start < endKey; start += ${tile}u) {
    let count = min(${tile}u, endKey - start);
    workgroupBarrier();
    for (var i = lane; i < count * ${chunks}u; i += ${lanes2}u) {
      let n = i / ${chunks}u;
      let c = i % ${chunks}u;
      let k = ${key.base("b", "(start + n)", "h")};
      let v = ${value.base("b", "(start + n)", "h")};
      keyTile[n * ${chunks + 1}u + c] = ${key.read("k", "c")};
      valueTile[n * ${chunks + 1}u + c] = ${value.read("v", "c")};
    }
    workgroupBarrier();
    ${inBlocks("n", `share * ${Math.floor(shareOfTile)}u`, `min(n + ${Math.floor(shareOfTile)}u, count)`, block, shareOfTile % block === 0 && keysOfSplit * splits === keys && keysOfSplit % tile === 0, target, attend)}
  }
#else
  ${inBlocks("n", "firstKey", "endKey", block, keysOfSplit * splits === keys && keysOfSplit % block === 0, target, attend)}
#endif
  ${each(rows, (r) => `if (row${r} < ${queries}u) {
  ${parts === 1 ? `let scale = 1.0f / l${r};
  let to = ${output.base("b", `row${r}`, "h")};
  ${loop((c) => `let result = scale * sum${r}[${c}]; ${output.write("to", c, "result")}`)}
  logSumExp[bh * ${queries}u + row${r}] = (m${r} + log2(l${r})) * ${f32(Math.LN2)};` : `let to = (bh * ${queries}u + row${r}) * ${parts}u + part;
  ${loop((c) => `partial[to * ${chunks}u + ${c}] = sum${r}[${c}];`)}
  partialSoftmax[to] = vec2f(m${r}, l${r});`}
}`)}
}
`;
  return { source: kernel("softmax-attention.wgsl.ts", `softmaxAttention [${batch}, ${heads}, ${queries}x${keys}, ${headSize}] (${describe2(variant)})`, text), workgroups };
}
function combineAttentionKernel(shape, parts, declarations, output, target) {
  const { batch, heads, headSize, queries } = shape;
  const chunks = chunksOf(headSize);
  const grid = linearGrid(batch * heads * queries * chunks, target);
  const source = kernel("softmax-attention.wgsl.ts", `softmaxAttention, ${parts} parts [${batch}, ${heads}, ${queries}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${chunks}u;
  let row = i / ${chunks}u;
  let bh = row / ${queries}u;
  let first = row * ${parts}u;
  var top = partialSoftmax[first].x;
  for (var p = 1u; p < ${parts}u; p++) { top = max(top, partialSoftmax[first + p].x); }
  var total = 0.0f;
  var weighted = vec4f();
  for (var p = 0u; p < ${parts}u; p++) {
    let weight = exp2(partialSoftmax[first + p].x - top);
    total += weight * partialSoftmax[first + p].y;
    weighted += weight * partial[(first + p) * ${chunks}u + c];
  }
  let result = weighted / total;
  let to = ${output.base(`(bh / ${heads}u)`, `(row % ${queries}u)`, `(bh % ${heads}u)`)};
  ${output.write("to", "c", "result")}
  if (c == 0u) { logSumExp[row] = (top + log2(total)) * ${f32(Math.LN2)}; }
}
`);
  return { source, workgroups: grid.workgroups };
}
function attentionDeltaKernel(shape, declarations, output, outputGradient, target) {
  const { batch, heads, headSize, queries } = shape;
  const grid = linearGrid(batch * heads * queries, target);
  const source = kernel("softmax-attention.wgsl.ts", `softmaxAttentionGradient, delta [${batch}, ${heads}, ${queries}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u, @builtin(workgroup_id) wid: vec3u) {
  ${grid.index}
  // Neighbouring invocations take neighbouring heads, which lie beside each other.
  let h = i % ${heads}u;
  let b = i / ${heads * queries}u;
  let n = (i / ${heads}u) % ${queries}u;
  let at = ${output.base("b", "n", "h")};
  let gradientAt = ${outputGradient.base("b", "n", "h")};
  var sum = vec4f();
  ${overChunks(headSize, target, (c) => `sum += ${output.read("at", c)} * ${outputGradient.read("gradientAt", c)};`)}
  delta[(b * ${heads}u + h) * ${queries}u + n] = (sum.x + sum.y) + (sum.z + sum.w);
}
`);
  return { source, workgroups: grid.workgroups };
}
function attentionGradientKernel(side, shape, variant, declarations, t, target) {
  const { batch, heads, headSize, queries, keys } = shape;
  const { lanes: lanes2, slots, rows, block } = variant;
  const chunks = chunksOf(headSize);
  const parts = partsOf(variant);
  const isQuery = side === "query";
  const [rowCount, otherCount] = isQuery ? [queries, keys] : [keys, queries];
  const othersOfPart = Math.ceil(otherCount / parts);
  const { text: place, workgroups } = position(shape, variant, rowCount, target);
  const loop = (body) => overChunks(headSize, target, body);
  const [own, ownDual, other, otherDual] = isQuery ? [t.query, t.outputGradient, t.key, t.value] : [t.key, t.value, t.query, t.outputGradient];
  const results = [
    ...isQuery && t.queryGradient ? [{ to: t.queryGradient, weight: "ds", of: other, scale: 1 / Math.sqrt(headSize) }] : [],
    ...!isQuery && t.keyGradient ? [{ to: t.keyGradient, weight: "ds", of: other, scale: 1 / Math.sqrt(headSize) }] : [],
    ...!isQuery && t.valueGradient ? [{ to: t.valueGradient, weight: "p", of: otherDual, scale: 1 }] : []
  ];
  const needsDual = results.some((result) => result.weight === "ds");
  const baseOf = (rowsOf, j) => rowsOf === other ? `at${j}` : `dualAt${j}`;
  const statistics = (name, j, r) => `${name}[bh * ${queries}u + ${isQuery ? `own${r}` : `n + ${j}u`}]`;
  const accumulate = (count) => `
${each(count, (j) => `let at${j} = ${other.base("b", `(n + ${j}u)`, "h")};
let dualAt${j} = ${otherDual.base("b", `(n + ${j}u)`, "h")};`)}
${each(rows, (r) => each(count, (j) => `var s${r}_${j} = 0.0f;
var dp${r}_${j} = 0.0f;`))}
${loop((c) => `
${each(count, (j) => `let tx${j} = ${other.read(`at${j}`, c)};`)}
${each(rows, (r) => `let a${r} = rowOf${r}[${c}];
${each(count, (j) => `s${r}_${j} += dot(a${r}, tx${j});`)}`)}
${needsDual ? `${each(count, (j) => `let tz${j} = ${otherDual.read(`dualAt${j}`, c)};`)}
${each(rows, (r) => `let d${r} = dualOf${r}[${c}];
${each(count, (j) => `dp${r}_${j} += dot(d${r}, tz${j});`)}`)}` : ""}
`)}
${each(rows, (r) => each(count, (j) => `let p${r}_${j} = exp2(s${r}_${j} - ${f32(Math.LOG2E)} * ${statistics("logSumExp", j, r)});
${needsDual ? `let ds${r}_${j} = p${r}_${j} * (dp${r}_${j} - ${statistics("delta", j, r)});` : ""}`))}
${loop((c) => each(results.length, (i) => `{
${each(count, (j) => `let t${j} = ${results[i].of.read(baseOf(results[i].of, j), c)};`)}
${each(rows, (r) => `sum${r}_${i}[${c}] += ${joined(count, " + ", (j) => `${results[i].weight}${r}_${j} * t${j}`)};`)}
}`))}`;
  const text = wgsl`
${declarations}
@compute @workgroup_size(${lanes2})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${place}
  ${each(rows, (r) => `
  let row${r} = firstRow + ${r * slots}u;
  let own${r} = min(row${r}, ${rowCount - 1}u);
  let from${r} = ${own.base("b", `own${r}`, "h")};
  let dual${r} = ${ownDual.base("b", `own${r}`, "h")};
  var rowOf${r}: array<vec4f, ${chunks}>;
  var dualOf${r}: array<vec4f, ${chunks}>;
  ${each(results.length, (i) => `var sum${r}_${i}: array<vec4f, ${chunks}>;`)}
  ${loop((c) => `rowOf${r}[${c}] = ${f32(Math.LOG2E / Math.sqrt(headSize))} * ${own.read(`from${r}`, c)};
  ${needsDual ? `dualOf${r}[${c}] = ${ownDual.read(`dual${r}`, c)};` : ""}`)}`)}
  let first = part * ${othersOfPart}u;
  ${inBlocks("n", "first", `min(first + ${othersOfPart}u, ${otherCount}u)`, block, othersOfPart * parts === otherCount && othersOfPart % block === 0, target, accumulate)}
  ${each(rows, (r) => `if (row${r} < ${rowCount}u) {
  ${each(results.length, (i) => parts === 1 ? `let to${i} = ${results[i].to.base("b", `row${r}`, "h")};
  ${loop((c) => `let result = ${f32(results[i].scale)} * sum${r}_${i}[${c}]; ${results[i].to.write(`to${i}`, c, "result")}`)}` : `let to${i} = (${i * batch * heads * rowCount}u + bh * ${rowCount}u + row${r}) * ${parts}u + part;
  ${loop((c) => `partial[to${i} * ${chunks}u + ${c}] = ${f32(results[i].scale)} * sum${r}_${i}[${c}];`)}`)}
}`)}
}
`;
  return { source: kernel("softmax-attention.wgsl.ts", `softmaxAttentionGradient, ${side} [${batch}, ${heads}, ${queries}x${keys}, ${headSize}] (${describe2(variant)})`, text), workgroups };
}
function combineGradientKernel(shape, rowCount, parts, declarations, results, target) {
  const { batch, heads, headSize } = shape;
  const chunks = chunksOf(headSize);
  const grid = linearGrid(batch * heads * rowCount * chunks, target);
  const source = kernel("softmax-attention.wgsl.ts", `softmaxAttentionGradient, ${parts} parts [${batch}, ${heads}, ${rowCount}, ${headSize}]`, wgsl`
${declarations}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let c = i % ${chunks}u;
  let row = i / ${chunks}u;
  let bh = row / ${rowCount}u;
  ${each(results.length, (k) => `
  let first${k} = (${k * batch * heads * rowCount}u + row) * ${parts}u;
  var sum${k} = vec4f();
  for (var p = 0u; p < ${parts}u; p++) { sum${k} += partial[(first${k} + p) * ${chunks}u + c]; }
  let to${k} = ${results[k].base(`(bh / ${heads}u)`, `(row % ${rowCount}u)`, `(bh % ${heads}u)`)};
  ${results[k].write(`to${k}`, "c", `sum${k}`)}`)}
}
`);
  return { source, workgroups: grid.workgroups };
}

// src/ops/attention-layout.ts
function packSlices(operation, slices, numHeads) {
  const { query, key, value } = slices;
  const given = [query, key, ...value ? [value] : []];
  if (given.some((slice) => slice.count !== query.count)) {
    throw new UsageError(`${operation}: the slices have ${given.map((slice) => slice.count).join(", ")} channels, expected the same number.`);
  }
  const inputs = [];
  const placed = [];
  for (const slice of given) {
    const overlaps = (input3) => placed.some((p) => p.input === input3 && p.offset < slice.offset + slice.count && slice.offset < p.offset + p.count);
    let input2 = inputs.findIndex((t, i) => t === slice.tensor && !overlaps(i));
    if (input2 < 0) input2 = inputs.push(slice.tensor) - 1;
    placed.push({ ...slice, input: input2 });
  }
  const [q, k, v] = placed.map(({ input: input2, offset }) => ({ input: input2, offset }));
  return { inputs, attributes: { numHeads, count: query.count, query: q, key: k, value: v ?? k, sources: inputs.length } };
}
var roles = ["query", "key", "value"];
function layoutOf(operation, inputs, a) {
  const batch = inputs[a.query.input].shape[0];
  const [query, key, value] = roles.map((role) => {
    const { input: input2, offset } = a[role];
    const { shape } = inputs[input2];
    const [b, rows, stride] = shape;
    if (shape.length !== 3 || b !== batch || offset + a.count > stride) {
      throw new UsageError(`${operation}: ${role} must be ${a.count} channels from ${offset} of a tensor [${batch}, N, channels], got one of [${shape.join(", ")}].`);
    }
    return { input: input2, rows, stride, offset };
  });
  if (a.count % a.numHeads !== 0) throw new UsageError(`${operation}: ${a.count} channels do not divide into ${a.numHeads} heads.`);
  if (key.rows !== value.rows) throw new UsageError(`${operation}: there are ${key.rows} keys, but ${value.rows} values.`);
  return { batch, heads: a.numHeads, headSize: a.count / a.numHeads, queries: query.rows, keys: key.rows, query, key, value };
}
function bind(bound) {
  const unique = bound.filter((x2, i) => bound.findIndex((y) => y.name === x2.name) === i);
  return {
    declarations: declareBindings(unique.map(({ name, type, binding }) => ({ name, type, access: binding.access }))),
    bindings: unique.map((x2) => x2.binding)
  };
}
function boundRows(rows, binding) {
  return { name: rows.variable, type: rows.type, binding };
}
function viewsOf(prefix, layout) {
  const slices = roles.map((role) => layout[role]);
  const view2 = (slice) => new HeadRows(
    `${prefix}${slice.input}`,
    slice,
    layout.headSize,
    slices.every((s) => s.input !== slice.input || HeadRows.fits(s, layout.headSize))
  );
  return { query: view2(layout.query), key: view2(layout.key), value: view2(layout.value) };
}
function wholeLayout({ queries, heads, headSize }) {
  return { rows: queries, stride: heads * headSize, offset: 0 };
}
function wholeView(variable, layout) {
  return new HeadRows(variable, wholeLayout(layout), layout.headSize, HeadRows.fits(wholeLayout(layout), layout.headSize));
}
function attentionSizes({ batch, heads, headSize, queries, keys }) {
  const rows = batch * heads * queries;
  return { pairs: rows * keys, query: rows * headSize, key: batch * heads * keys * headSize, rows };
}
function zeroUncovered(layout, count, wanted, { inputs, target }, outputOf) {
  return wanted.flatMap((input2) => {
    const [batch, rows, stride] = inputs[input2].shape;
    const starts = roles.map((role) => layout[role]).filter((s) => s.input === input2).map((s) => s.offset).sort((a, b) => a - b);
    const gaps = [...starts.map((start, i) => ({ start: i === 0 ? 0 : starts[i - 1] + count, end: start })), { start: starts.at(-1) + count, end: stride }];
    return gaps.filter(({ start, end }) => start < end).map(({ start, end }) => {
      const { source, workgroups } = zeroChannelsKernel(batch * rows, stride, start, end, target);
      return { kernel: source, workgroups, bindings: [outputOf(input2)], flops: 0, bytes: 4 * batch * rows * (end - start) };
    });
  });
}
function rowOf(data, slice, headSize, b, h, n) {
  const start = (b * slice.rows + n) * slice.stride + slice.offset + h * headSize;
  return data.subarray(start, start + headSize);
}
function forEachHead(layout, body) {
  for (let b = 0; b < layout.batch; b++) {
    for (let h = 0; h < layout.heads; h++) {
      body(b, h, (data) => {
        const rows = (slice) => (n) => rowOf(data[slice.input], slice, layout.headSize, b, h, n);
        return { query: rows(layout.query), key: rows(layout.key), value: rows(layout.value) };
      });
    }
  }
}
function dot(a, b) {
  return a.reduce((sum, x2, i) => sum + x2 * b[i], 0);
}
function addTo(row, factor, x2) {
  x2.forEach((value, i) => {
    row[i] += factor * value;
  });
}

// src/ops/softmax-attention.ts
var layoutFor2 = (inputs, attributes) => layoutOf("softmaxAttention", inputs, attributes);
var softmaxAttentionOperation = {
  name: "softmaxAttention",
  outputs(inputs, attributes) {
    const { batch, heads, queries } = layoutFor2(inputs, attributes);
    return [{ shape: [batch, queries, attributes.count], dtype: "f32" }, { shape: [batch, heads, queries], dtype: "f32" }];
  },
  kernels({ inputs, attributes, target, read, write, scratch }) {
    const layout = layoutFor2(inputs, attributes);
    const views = viewsOf("x", layout);
    const output = wholeView("y", layout);
    const variant = forwardVariant(layout, target);
    const parts = partsOf(variant);
    const size = attentionSizes(layout);
    const sources = roles.map((role) => boundRows(views[role], read(layout[role].input)));
    const results = [boundRows(output, write(0)), { name: "logSumExp", type: "f32", binding: write(1) }];
    const flops = size.pairs * (4 * layout.headSize + 8);
    const sourceBytes = 4 * (size.query + 2 * size.key);
    const resultBytes = 4 * (size.query + size.rows);
    if (parts === 1) {
      const { declarations, bindings } = bind([...sources, ...results]);
      const { source, workgroups } = softmaxAttentionKernel(layout, variant, declarations, { ...views, output }, target);
      return [{ kernel: source, workgroups, bindings, flops, bytes: sourceBytes + resultBytes }];
    }
    const sumBytes = 16 * chunksOf(layout.headSize) * size.rows * parts;
    const statisticsBytes = 8 * size.rows * parts;
    const [sums, statistics] = [scratch(sumBytes), scratch(statisticsBytes)];
    const partial = (access) => [
      { name: "partial", type: "vec4f", binding: sums[access] },
      { name: "partialSoftmax", type: "vec2f", binding: statistics[access] }
    ];
    const first = bind([...sources, ...partial("write")]);
    const second = bind([...partial("read"), ...results]);
    const split = softmaxAttentionKernel(layout, variant, first.declarations, { ...views, output }, target);
    const combine = combineAttentionKernel(layout, parts, second.declarations, output, target);
    const partialBytes = sumBytes + statisticsBytes;
    return [
      { kernel: split.source, workgroups: split.workgroups, bindings: first.bindings, flops, bytes: sourceBytes + partialBytes },
      { kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: 2 * parts * size.query, bytes: partialBytes + resultBytes }
    ];
  },
  gradient({ inputs, outputs: [y, logSumExp], attributes, outputGradients: [g, ofLogSumExp], needs }) {
    if (!g || ofLogSumExp) throw new UsageError("softmaxAttention: gradients flow through y alone; the log-sum-exp is kept for the backward.");
    const gradients = apply(softmaxAttentionGradientOperation, [...inputs, y, logSumExp, g], { ...attributes, needs });
    let next = 0;
    return needs.map((needed) => needed ? gradients[next++] : void 0);
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor2(specs, attributes);
    const y = new Float64Array(layout.batch * layout.queries * attributes.count);
    const logSumExp = [];
    forEachHead(layout, (b, h, rowsIn) => {
      const { query, key, value } = rowsIn(inputs);
      for (let n = 0; n < layout.queries; n++) {
        const { probabilities, logSum } = softmaxRow(query(n), layout.keys, key);
        logSumExp.push(logSum);
        probabilities.forEach((p, m) => addTo(rowOf(y, wholeLayout(layout), layout.headSize, b, h, n), p, value(m)));
      }
    });
    return [y, Float64Array.from(logSumExp)];
  }
};
function softmaxRow(query, keys, key) {
  const logits = Array.from({ length: keys }, (_, m) => dot(query, key(m)) / Math.sqrt(query.length));
  const top = Math.max(...logits);
  const logSum = top + Math.log(logits.reduce((sum, s) => sum + Math.exp(s - top), 0));
  return { probabilities: logits.map((s) => Math.exp(s - logSum)), logSum };
}
var softmaxAttentionGradientOperation = {
  name: "softmaxAttentionGradient",
  outputs: (inputs, { sources, needs }) => inputs.slice(0, sources).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: "f32" })),
  kernels(context) {
    const { inputs, attributes, target, read, write, scratch } = context;
    const layout = layoutFor2(inputs, attributes);
    const { sources, needs } = attributes;
    const size = attentionSizes(layout);
    const views = viewsOf("x", layout);
    const gradientViews = viewsOf("dx", layout);
    const [y, g] = [wholeView("y", layout), wholeView("g", layout)];
    const wanted = inputs.map((_, i) => i).filter((i) => i < sources && needs[i]);
    const outputOf = (source) => write(wanted.indexOf(source));
    const dispatches = zeroUncovered(layout, attributes.count, wanted, context, outputOf);
    const delta = scratch(4 * size.rows);
    if (needs[layout.query.input] || needs[layout.key.input]) {
      const { declarations, bindings } = bind([boundRows(y, read(sources)), boundRows(g, read(sources + 2)), { name: "delta", type: "f32", binding: delta.write }]);
      const { source, workgroups } = attentionDeltaKernel(layout, declarations, y, g, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: 2 * size.query, bytes: 4 * (2 * size.query + size.rows) });
    }
    const addSide = (side, ofSide) => {
      const results = ofSide.filter((role) => needs[layout[role].input]);
      if (results.length === 0) return;
      const [rows, others] = side === "query" ? [layout.queries, layout.keys] : [layout.keys, layout.queries];
      const variant = backwardVariant(layout, rows, others, target);
      const parts = partsOf(variant);
      const outputs = results.map((role) => boundRows(gradientViews[role], outputOf(layout[role].input)));
      const partialBytes = 16 * chunksOf(layout.headSize) * layout.batch * layout.heads * rows * parts * results.length;
      const partial = parts > 1 ? scratch(partialBytes) : void 0;
      const { declarations, bindings } = bind([
        ...roles.map((role) => boundRows(views[role], read(layout[role].input))),
        boundRows(g, read(sources + 2)),
        { name: "logSumExp", type: "f32", binding: read(sources + 1) },
        ...results.some((role) => role !== "value") ? [{ name: "delta", type: "f32", binding: delta.read }] : [],
        ...partial ? [{ name: "partial", type: "vec4f", binding: partial.write }] : outputs
      ]);
      const gradients = Object.fromEntries(results.map((role) => [`${role}Gradient`, gradientViews[role]]));
      const { source, workgroups } = attentionGradientKernel(side, layout, variant, declarations, { ...views, outputGradient: g, ...gradients }, target);
      const resultBytes = 4 * layout.batch * rows * attributes.count * results.length;
      dispatches.push({
        kernel: source,
        workgroups,
        bindings,
        flops: size.pairs * ((4 + 2 * results.length) * layout.headSize + 6),
        bytes: 4 * (2 * size.query + 2 * size.key + 2 * size.rows) + (partial ? partialBytes : resultBytes)
      });
      if (!partial) return;
      const second = bind([{ name: "partial", type: "vec4f", binding: partial.read }, ...outputs]);
      const combine = combineGradientKernel(layout, rows, parts, second.declarations, results.map((role) => gradientViews[role]), target);
      dispatches.push({ kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: parts * resultBytes / 4, bytes: partialBytes + resultBytes });
    };
    addSide("query", ["query"]);
    addSide("key", ["key", "value"]);
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor2(specs, attributes);
    const { sources, needs } = attributes;
    const gradients = inputs.slice(0, sources).map((x2) => new Float64Array(x2.length));
    forEachHead(layout, (b, h, rowsIn) => {
      const [at, gradientAt] = [rowsIn(inputs), rowsIn(gradients)];
      for (let n = 0; n < layout.queries; n++) {
        const g = rowOf(inputs[sources + 2], wholeLayout(layout), layout.headSize, b, h, n);
        const { probabilities } = softmaxRow(at.query(n), layout.keys, at.key);
        const slopes = probabilities.map((_, m) => dot(g, at.value(m)));
        const mean = probabilities.reduce((sum, p, m) => sum + p * slopes[m], 0);
        probabilities.forEach((p, m) => {
          const ds = p * (slopes[m] - mean) / Math.sqrt(layout.headSize);
          addTo(gradientAt.query(n), ds, at.key(m));
          addTo(gradientAt.key(m), ds, at.query(n));
          addTo(gradientAt.value(m), p, g);
        });
      }
    });
    return gradients.filter((_, i) => needs[i]);
  }
};
function softmaxAttention({ query, key, value, numHeads }) {
  const { inputs, attributes } = packSlices("softmaxAttention", { query, key, value }, numHeads);
  return apply(softmaxAttentionOperation, inputs, attributes)[0];
}

// ../../tmp/att/prof.ts
var fam = process.env.INP_ADAPTER;
var gpu = await createGpu(fam);
var ctx = await GpuContext.acquire({ gpu });
var W = fam === "lavapipe" ? 8 : 4;
var x = [];
for (const [rows, block, tile, lanes2, famOverride] of JSON.parse(process.argv[2])) {
  for (const [heads, N] of JSON.parse(process.argv[3] ?? "[[6,257]]")) {
    const C = 64 * heads;
    const qkv = input("qkv", [1, N, 3 * C]);
    const base = softmaxAttention({ query: channels(qkv, 0, C), key: channels(qkv, C, C), value: channels(qkv, 2 * C, C), numHeads: heads }).node;
    const target = famOverride ? { ...ctx.target, family: famOverride } : ctx.target;
    const op = { ...softmaxAttentionOperation, kernels(c) {
      const l = layoutOf("x", c.inputs, c.attributes), views = viewsOf("x", l), output = wholeView("y", l);
      const { declarations, bindings } = bind([...roles.map((r) => boundRows(views[r], c.read(l[r].input))), boundRows(output, c.write(0)), { name: "logSumExp", type: "f32", binding: c.write(1) }]);
      const L = lanes2 || W;
      const k = softmaxAttentionKernel(l, { lanes: L, slots: L, rows, block, tile, splits: 1 }, declarations, { ...views, output }, target);
      return [{ kernel: k.source, workgroups: k.workgroups, bindings, flops: 4 * N * N * C, bytes: 0 }];
    } };
    const y = rows === 0 ? base.outputs[0] : apply(op, base.inputs, base.attributes)[0];
    const ex = await Executable.prepare(ctx, compile({ target, outputs: { y } }));
    const data = Float32Array.from({ length: N * 3 * C }, () => Math.random() * 2 - 1);
    x.push({ label: `h${heads} N${N} R${rows} J${block} T${tile} L${lanes2 || W} ${famOverride ?? ""}`, best: Infinity, flops: 4 * N * N * C, run: async () => (await ex.profile({ qkv: data })).reduce((s, t) => s + t.seconds, 0) });
  }
}
for (let rep = 0; rep < 8; rep++) for (const e of x) e.best = Math.min(e.best, await e.run());
for (const e of x) console.log(`${e.label}: ${(e.best * 1e3).toFixed(1)} ms, ${(e.flops / e.best / 1e9).toFixed(2)} GFLOP/s`);
process.exit(0);
