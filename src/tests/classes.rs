//! Devices of other classes: what GPUs would run, run here by whatever adapter there is.
use crate::gpu::{Access, AdapterChoice, Class, Gpu, Kernel, KernelSource, Tensor};
use pollster::block_on;

/// The adapter of the other tests as a GPU.
fn opened(class: Class) -> Gpu {
    block_on(Gpu::open_as(AdapterChoice::Best, class)).unwrap()
}

#[test]
fn a_gpu_is_told_from_the_device_that_stands_in_for_it() {
    for class in Class::GPUS {
        let gpu = opened(class);
        assert!(gpu.name.ends_with(&format!(" as {class}")), "{}", gpu.name);
        assert!(!gpu.tier.cpu);
        assert_eq!(Class::parse(&class.to_string()).unwrap(), class);
    }
    let lanes = Class::GPUS.map(|class| opened(class).tier.lanes());
    assert_eq!(lanes[..3], [32, 64, 64]);
    assert!(!opened(Class::GpuPlain).tier.subgroups);
    let refused = Class::parse("phone").unwrap_err().to_string();
    assert!(refused.contains("phone") && refused.contains("gpu-plain"), "{refused}");
}

/// A kernel of so many lanes, words of workgroup memory and buffers beside the parameters.
fn kernel(gpu: &Gpu, lanes: u32, words: u32, buffers: usize) -> crate::Result<Kernel> {
    let bound = (1..=buffers)
        .map(|i| format!("@group(0) @binding({i}) var<storage, read_write> y{i}: array<u32>;\n"));
    let used: String = (1..=buffers).map(|i| format!("y{i}[lane] = scratch[lane];\n")).collect();
    let wgsl = format!(
        "struct Params {{ value: u32 }}
        override WG: u32 = 1u;
        override WORDS: u32 = 1u;
        var<workgroup> scratch: array<u32, WORDS>;
        @group(0) @binding(0) var<storage, read> params: Params;
        {}
        @compute @workgroup_size(WG) fn main(@builtin(local_invocation_index) lane: u32) {{
            scratch[lane] = params.value;
            {used}
        }}",
        bound.collect::<String>(),
    );
    let bindings = vec![Access::Write; buffers].leak();
    let source = KernelSource {
        name: "greedy",
        wgsl: wgsl.leak(),
        bindings,
        params_size: 4,
        subgroups: false,
    };
    block_on(Kernel::new(gpu, source, [("WG", f64::from(lanes)), ("WORDS", f64::from(words))]))
}

#[test]
fn a_gpu_has_no_more_than_every_webgpu_device() {
    let gpu = opened(Class::GpuPlain);
    assert!(kernel(&gpu, 256, 4096, 7).is_ok());
    for (lanes, words, buffers) in [(257, 4096, 1), (256, 4097, 1), (256, 4096, 8)] {
        let refused = kernel(&gpu, lanes, words, buffers).err();
        let refused = refused.expect("more than a GPU has to have").to_string();
        assert!(refused.contains("greedy"), "{refused}");
    }
    let words = |bytes: usize| [bytes / 4];
    assert!(Tensor::zeros(&gpu, "y", &words(128 << 20)).is_ok());
    assert!(Tensor::zeros(&gpu, "y", &words((128 << 20) + 4)).is_err());
    // A kernel of subgroups is none there.
    let source = crate::ops::kernels().into_iter().find(|kernel| kernel.subgroups).unwrap();
    assert!(block_on(Kernel::new(&gpu, source, [("WG", 64.0)])).is_err());
}
