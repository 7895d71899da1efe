//! Devices of other classes: what GPUs would run, run here by whatever adapter there is.
use crate::gpu::{Access, AdapterChoice, Class, Gpu, Kernel, KernelSource, Tensor};
use crate::shaders::Wgsl;
use pollster::block_on;
use std::process::Command;

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
        wgsl: Wgsl::of_text("greedy", wgsl),
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
    // Buffers beside Params; the counter of loops binds one more than a device must have, and src/tests/shaders.rs holds
    // every kernel to those.
    for (lanes, words, buffers) in [(257, 4096, 1), (256, 4097, 1), (256, 4096, 9)] {
        let refused = kernel(&gpu, lanes, words, buffers).err();
        let refused = refused.unwrap_or_else(|| panic!("{lanes}, {words}, {buffers}")).to_string();
        assert!(refused.contains("greedy"), "{refused}");
    }
    let words = |bytes: usize| [bytes / 4];
    assert!(Tensor::zeros(&gpu, "y", &words(128 << 20)).is_ok());
    assert!(Tensor::zeros(&gpu, "y", &words((128 << 20) + 4)).is_err());
    // A kernel of subgroups is none there.
    let source = crate::ops::kernels().into_iter().find(|kernel| kernel.subgroups).unwrap();
    assert!(block_on(Kernel::new(&gpu, source, [("WG", 64.0)])).is_err());
}

/// The device of the other tests, that says this of itself.
fn telling(subgroup_size: [u32; 2], cpu: bool) -> Gpu {
    let mut gpu = opened(Class::Own);
    gpu.tier.subgroup_size = subgroup_size;
    gpu.tier.lanes = None;
    gpu.tier.subgroups = true;
    gpu.tier.cpu = cpu;
    gpu
}

#[test]
fn lanes_that_a_trial_may_find_to_be_one_subgroup() {
    let tried = |name, size, cpu| telling(size, cpu).tier.may_be_one_subgroup(name);
    assert_eq!(tried("llvmpipe", [8, 8], true), Some(8));
    assert_eq!(tried("SwiftShader", [4, 4], true), Some(4));
    assert_eq!(tried("NVIDIA", [32, 32], false), Some(32));
    assert_eq!(tried("AMD, RDNA", [32, 64], false), Some(32));
    assert_eq!(tried("AMD, GCN", [64, 64], false), Some(64));
    // Drivers of Intel choose anew for each kernel: what one is given, another is not.
    assert_eq!(tried("Intel", [8, 32], false), None);
    // What is said of any device under Metal.
    assert_eq!(tried("Apple M1", [4, 64], false), Some(32));
    assert_eq!(tried("Radeon Pro", [4, 64], false), None);
}

#[test]
fn a_trial_tells_one_subgroup_from_two() {
    let gpu = opened(Class::Own);
    if !gpu.tier.subgroups {
        return;
    }
    let [least, most] = gpu.tier.subgroup_size;
    assert_eq!(block_on(gpu.is_one_subgroup(gpu.tier.lanes())).unwrap(), gpu.tier.one_subgroup);
    assert!(block_on(gpu.is_one_subgroup(least)).unwrap(), "a subgroup of {least} lanes");
    assert!(!block_on(gpu.is_one_subgroup(2 * most)).unwrap(), "two subgroups of {most} lanes");
}

#[test]
fn every_half_by_the_device_and_by_integers() {
    let mut gpu = opened(Class::Own);
    let all = 0x7c01; // up to infinity
    let expected: Vec<u32> =
        crate::reference::half_check(all).iter().map(|h| h.to_bits()).collect();
    let own = block_on(gpu.halves(all)).unwrap();
    assert_eq!(own[2048..], expected[2048..], "normal halves");
    assert_eq!(own[..2048] != expected[..2048], gpu.tier.half_by_bits, "subnormal halves");
    gpu.tier.half_by_bits = true;
    assert_eq!(block_on(gpu.halves(all)).unwrap(), expected);
    // What is not a number is to be seen, too.
    let beyond = block_on(gpu.halves(0x7fff)).unwrap();
    assert!(beyond[2 * 0x7c01..].iter().all(|&bits| f32::from_bits(bits).is_nan()));
}

/// Runs tests of this binary on the same adapter as a GPU. `./build.sh test --all` runs all of them so, as every class.
fn run_as(class: Class, names: &[&str]) {
    let names: Vec<_> = names.iter().map(|name| format!("tests::{name}")).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--exact").args(&names).env("BROOKLET_AS", class.to_string());
    let done = command.output().unwrap();
    let [out, err] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
    let passed = done.status.success() && out.contains(&format!("ok. {} passed", names.len()));
    assert!(passed, "as {class}: {}\n{out}{err}", done.status);
}

/// What multiplies, norms, attends and chooses.
const OPS: [&str; 12] = [
    "ops::cache_ops::attention",
    "ops::cache_ops::attention_by_tiles",
    "ops::cache_ops::rope_store",
    "ops::decode_ops::attention_of_one_token",
    "ops::expert_ops::experts",
    "ops::fold_ops::layer_norms_fold_into_products",
    "ops::grouped_ops::group_experts",
    "ops::fused_ops::norms_folded_into_products_of_every_format",
    "ops::row_ops::argmax",
    "ops::norm_ops::norm",
    "ops::sample_op::draws_equal_the_host_draw_by_draw",
    "ops::weight_ops::matvec_and_matmul_of_every_format",
];

/// Of these what subgroups change.
const BY_SUBGROUP: [&str; 6] = [
    "ops::decode_ops::attention_of_one_token",
    "ops::expert_ops::experts",
    "ops::fold_ops::layer_norms_fold_into_products",
    "ops::fused_ops::norms_folded_into_products_of_every_format",
    "ops::norm_ops::norm",
    "ops::weight_ops::matvec_and_matmul_of_every_format",
];

/// Whole models, and what a device is counted to do for a token.
const MODELS: [&str; 3] = [
    "golden::a_prompt_has_the_ids_and_logits_of_another_engine",
    "invariants::two_equal_to_the_paper_over_ten_capacities",
    "invariants::eight_nothing_grows_and_a_token_is_one_submit",
];

/// Where there are no subgroups these take longer than all of that: with them alone, or by `./build.sh test --all`.
const MORE_MODELS: [&str; 2] = [
    "invariants::four_the_same_for_every_chunk_and_ring",
    "invariants::six_what_is_out_of_the_window_does_not_count",
];

#[test]
fn ops_of_a_gpu_without_subgroups() {
    run_as(Class::GpuPlain, &OPS);
}

#[test]
fn ops_of_a_gpu_with_subgroups() {
    run_as(Class::GpuSubgroup, &BY_SUBGROUP);
}

#[test]
fn models_of_a_gpu_without_subgroups() {
    run_as(Class::GpuPlain, &MODELS);
}

#[test]
fn models_of_a_gpu_with_subgroups() {
    run_as(Class::GpuSubgroup, &[&MODELS[..], &MORE_MODELS].concat());
}
