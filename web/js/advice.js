// What a visitor without WebGPU can do, by browser. The only text of the package and the page on who has it.

const CHROME = "Chrome and Edge have it from version 113 on (Android: 121; Linux: 144)";
const FIREFOX = "141 on Windows and 145 on Macs with Apple silicon";
const SAFARI = "version 26";

export function noWebGpu() {
  if (!globalThis.isSecureContext) {
    return "WebGPU works on secure pages alone: open this one over https, or on localhost";
  }
  const agent = navigator.userAgent;
  if (/Firefox\//.test(agent)) {
    return (
      `this Firefox has no WebGPU here: it comes with version ${FIREFOX}; elsewhere ` +
      "set dom.webgpu.enabled in about:config, or use Chrome or Edge"
    );
  }
  if (/Chrom(e|ium)\/|Edg\//.test(agent)) {
    return (
      `this browser has no WebGPU here: ${CHROME}; on Linux it may have to be turned ` +
      "on at chrome://flags/#enable-unsafe-webgpu, and hardware acceleration must be on in the settings"
    );
  }
  if (/Safari\//.test(agent))
    return `this Safari has no WebGPU: it comes with ${SAFARI}; update, or use Chrome or Edge`;
  return `this browser has no WebGPU: ${CHROME}, Safari from ${SAFARI} and Firefox from ${FIREFOX}`;
}
