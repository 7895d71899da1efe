// What a visitor without WebGPU can do, by browser.

export function noWebGpu() {
  if (!globalThis.isSecureContext) {
    return "WebGPU works on secure pages alone: open this one over https, or on localhost";
  }
  const agent = navigator.userAgent;
  if (/Firefox\//.test(agent)) {
    return (
      "this Firefox has no WebGPU here: it comes with version 141 on Windows and 145 on Apple's machines; elsewhere " +
      "set dom.webgpu.enabled in about:config, or use Chrome or Edge"
    );
  }
  if (/Chrom(e|ium)\/|Edg\//.test(agent)) {
    return (
      "this browser has no WebGPU here: Chrome and Edge have it from version 113 on; on Linux it may have to be turned " +
      "on at chrome://flags/#enable-unsafe-webgpu, and hardware acceleration must be on in the settings"
    );
  }
  if (/Safari\//.test(agent))
    return "this Safari has no WebGPU: it comes with version 26; update, or use Chrome or Edge";
  return "this browser has no WebGPU: Chrome and Edge 113, Safari 26 and Firefox 141 (on Windows) have it";
}
