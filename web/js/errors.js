// Every error of the package: a code for programs, a sentence for visitors.

export class BrookletError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

const subclass = (code) =>
  class extends BrookletError {
    constructor(message, options) {
      super(code, message, options);
    }
  };

export class NoWebGpuError extends subclass("no-webgpu") {}
export class NoAdapterError extends subclass("no-adapter") {}
export class DeviceLostError extends subclass("device-lost") {}
export class OutOfMemoryError extends subclass("out-of-memory") {}
export class BadModelError extends subclass("bad-model") {}
export class UnsupportedError extends subclass("unsupported") {}
export class NetworkError extends subclass("network") {}
export class AbortedError extends subclass("aborted") {}
export class BadOptionError extends subclass("bad-option") {}
export class InternalError extends subclass("internal") {}

const byCode = {
  "no-webgpu": NoWebGpuError,
  "no-adapter": NoAdapterError,
  "device-lost": DeviceLostError,
  "out-of-memory": OutOfMemoryError,
  "bad-model": BadModelError,
  unsupported: UnsupportedError,
  network: NetworkError,
  aborted: AbortedError,
  "bad-option": BadOptionError,
  internal: InternalError,
};

/** Whatever was thrown, as one of ours: wasm and workers throw plain errors with a code, browsers throw anything. */
export function asBrookletError(thrown) {
  if (thrown instanceof BrookletError) return thrown;
  const message = thrown?.message ?? String(thrown);
  const known = byCode[thrown?.code];
  if (known) return new known(message, { cause: thrown });
  if (thrown?.name === "AbortError") return new AbortedError("the work was aborted", { cause: thrown });
  return new InternalError(`${message}; this is a defect of brooklet, please report it`, { cause: thrown });
}

/** What survives a message from a worker. */
export const plain = (error) => {
  const { code, message } = asBrookletError(error);
  return { code, message };
};

export const aborted = () => new AbortedError("the work was aborted");
