//! What a device compiles, and how often.
use super::support::gpu;
use crate::gpu::{Access, Gpu, Kernel, KernelSource, Recording, Tensor, Work};
use crate::shaders::{File, Wgsl};
use pollster::block_on;

const DECLARED: File = File {
    path: "gain",
    text: "struct Params { value: u32 }
        override GAIN: u32 = 1u;
        @group(0) @binding(0) var<storage, read> params: Params;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(1) fn main() { y[0] = GAIN * params.value + ADDED; }",
};

/// y[0] = GAIN times what the parameters say, plus one.
const SOURCE: KernelSource = KernelSource {
    name: "gain",
    wgsl: Wgsl::of(&[&DECLARED, &File { path: "one", text: "const ADDED: u32 = 1u;" }]),
    bindings: &[Access::Write],
    params_size: 4,
    subgroups: false,
};

/// What the kernel gives for seven, and how many pipelines were made for it.
fn seven(gpu: &Gpu, source: KernelSource, gain: f64) -> (u32, u64) {
    let before = gpu.counters.snapshot();
    let kernel = block_on(Kernel::new(gpu, source, [("GAIN", gain), ("NOT_DECLARED", 5.0)]));
    let made = (gpu.counters.snapshot() - before).objects;
    let y = Tensor::zeros(gpu, "y", &[1]).unwrap();
    let mut recording = Recording::default();
    let work = Work { grid: [1, 1, 1], iterations: 0 };
    recording.dispatch("test", &kernel.unwrap(), 7u32, &[&y], work).unwrap();
    recording.finish(gpu).unwrap().run(gpu, &[]);
    (block_on(y.read::<u32>(gpu)).unwrap()[0], made)
}

#[test]
fn a_kernel_is_compiled_once_a_device() {
    let first = gpu();
    assert_eq!(seven(&first, SOURCE, 3.0), (22, 1));
    assert_eq!(seven(&first, SOURCE, 3.0), (22, 0), "though nobody holds it");
    assert_eq!(seven(&gpu(), SOURCE, 3.0), (22, 1), "another device");
}

/// Whatever a pipeline depends on makes it another.
#[test]
fn a_kernel_is_found_by_all_that_it_was_made_from() {
    let gpu = gpu();
    assert_eq!(seven(&gpu, SOURCE, 3.0), (22, 1));
    assert_eq!(seven(&gpu, SOURCE, 4.0), (29, 1), "another value of an override");
    let wgsl = Wgsl::of(&[&DECLARED, &File { path: "one", text: "const ADDED: u32 = 2u;" }]);
    assert_eq!(seven(&gpu, KernelSource { wgsl, ..SOURCE }, 3.0), (23, 1), "another source");
    // A binding that may not be written is an error, and not the kernel that was there before.
    let read = KernelSource { bindings: &[Access::Read], ..SOURCE };
    let refused = block_on(Kernel::new(&gpu, read, [("GAIN", 3.0)])).err();
    assert!(refused.unwrap().to_string().contains("gain"));
    let refused = block_on(Kernel::new(&gpu, read, [("GAIN", 3.0)])).err();
    assert!(refused.is_some(), "what was refused is not kept");
    assert_eq!(seven(&gpu, SOURCE, 3.0), (22, 0));
}
