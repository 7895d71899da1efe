//! Every kernel, with the overrides that engines give it, as the platforms get it that this machine has not: translated
//! by the crate that wgpu has for that. `tools/portability/run.sh` hands the translations to those platforms' compilers.
use super::loops::{Sizes, class, everything};
use super::tiny::{Tiny, session, streaming};
use crate::format::DType;
use crate::gpu::{Gpu, Kernel, KernelSource, with_overrides};
use crate::model::{KvType, RopeLayout};
use crate::ops::{Epilogue, Folds, Fused, MatMul, MatMulFew, NormKind, Variant, kernels};
use crate::session::Session;
use naga::back::hlsl::{self, ShaderModel};
use naga::back::pipeline_constants::process_overrides;
use naga::back::spv::{self, Capability};
use naga::back::{PipelineConstants, msl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess};
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Devices whose kernels differ: software drivers, and GPUs without subgroups, with those of 32 and of 64 lanes.
const CLASSES: [(&str, bool, Option<u32>); 6] = [
    ("cpu", true, None),
    ("cpu 4", true, Some(4)),
    ("cpu 8", true, Some(8)),
    ("gpu", false, None),
    ("gpu 32", false, Some(32)),
    ("gpu 64", false, Some(64)),
];

/// Sizes of heads that models have.
const HEADS: [usize; 6] = [64, 80, 96, 112, 128, 256];

/// Values of overrides, by name, as JSON has them.
type Overrides = Vec<(&'static str, f64)>;

/// What a kernel is called, its overrides, and the classes of devices that ask for it.
type Asked = BTreeMap<String, (KernelSource, Overrides, BTreeSet<&'static str>)>;

/// Whatever an engine asks a device of each class for: ops of every shape and variant, and models of every type.
fn asked() -> Asked {
    let mut asked = Asked::new();
    for (name, cpu, subgroup) in CLASSES {
        let gpu = class(cpu, subgroup);
        let sizes = Sizes {
            vocab: 5_003,
            width: 1_152,
            window: 700,
            chunk: 70,
            head_dims: &HEADS,
            dtypes: DType::ALL.to_vec(),
        };
        everything(&gpu, &sizes);
        let gpu = Arc::new(gpu);
        let of_heads = HEADS.map(|head_dim| {
            let (layout, biases) = (RopeLayout::Neox, &["attn_output", "ffn_down"][..]);
            Tiny { head_dim, rope_dim: head_dim, layout, biases, ..Tiny::of_type(DType::Q8_0) }
        });
        // Epilogues are the same text whatever the type.
        let products = Epilogue::ALL.map(|epilogue| (epilogue, DType::Q8_0));
        for variant in Variant::all(&gpu) {
            block_on(MatMul::new(&gpu, &products, &products, variant)).unwrap();
            block_on(MatMulFew::new(&gpu, &products, variant)).unwrap();
            let layer = Folds { kind: NormKind::Layer, biased: true, beside: true };
            for folds in [Folds::RMS, layer] {
                block_on(Fused::new(&gpu, &products, &[DType::Q8_0], variant, folds)).unwrap();
            }
        }
        for tiny in DType::ALL.map(Tiny::of_type).into_iter().chain(of_heads) {
            let model = tiny.model(&gpu);
            for (kv, chunk) in [(KvType::F16, 64), (KvType::F32, 8)] {
                session(&model, streaming(4, 60, chunk, kv));
            }
            let several = Session::several(model.clone(), streaming(4, 60, 64, KvType::F16), 2);
            block_on(several).unwrap();
            // Of heads alone, of the sizes that nearly all models have.
            let blocks = !tiny.biases.is_empty() && [64, 128].contains(&tiny.head_dim);
            for kv in [KvType::Q8_0, KvType::Q4_0].into_iter().filter(|_| blocks) {
                session(&model, streaming(4, 60, 64, kv));
            }
        }
        // What is tried out at opening, where something is computed.
        for source in kernels().into_iter().filter(|source| source.name.ends_with("_check")) {
            let lanes = [("WG", f64::from(gpu.tier.lanes()))];
            block_on(Kernel::new(&gpu, source, lanes)).unwrap();
        }
        note(&gpu, name, &mut asked);
    }
    asked
}

fn note(gpu: &Gpu, class: &'static str, asked: &mut Asked) {
    for (source, overrides) in gpu.kernels_made() {
        let key = with_overrides(source.name, &overrides);
        let (same, ..) = asked.entry(key.clone()).or_insert((source, overrides, BTreeSet::new()));
        assert_eq!(same.wgsl, source.wgsl, "two kernels are called {key}");
        asked.get_mut(&key).unwrap().2.insert(class);
    }
}

/// What a kernel is made into: the end of the file's name, and what is in it.
type Files = Vec<(&'static str, Vec<u8>)>;

/// A source, read and found valid.
type Valid = (Module, ModuleInfo);

fn valid(source: &KernelSource) -> Valid {
    let module = naga::front::wgsl::parse_str(&source.wgsl.text()).unwrap();
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, source.subgroups);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module).unwrap();
    (module, info)
}

/// As wgpu's backends translate a kernel for a pipeline whose shader is trusted and whose workgroup memory is not cleared.
fn translated(source: &KernelSource, (module, info): &Valid, overrides: &Overrides) -> Files {
    let constants: PipelineConstants =
        overrides.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let main = Some((ShaderStage::Compute, "main"));
    let (module, info) = process_overrides(module, info, main, &constants)
        .unwrap_or_else(|error| panic!("{}: {overrides:?}: {error}", source.name));
    let mut files = vec![
        ("1_3.spv", spirv(&module, &info, (1, 3), Some(VULKAN_1_1))),
        ("1_6.spv", spirv(&module, &info, (1, 6), None)),
        ("metal", metal(&module, &info)),
        ("6_0.hlsl", hlsl(&module, &info, ShaderModel::V6_0)),
        ("6_6.hlsl", hlsl(&module, &info, ShaderModel::V6_6)),
    ];
    // This shader model has no subgroups.
    if !source.subgroups {
        files.push(("5_1.hlsl", hlsl(&module, &info, ShaderModel::V5_1)));
    }
    files
}

/// What every driver of Vulkan 1.1 has that wgpu takes for one with subgroups.
const VULKAN_1_1: &[Capability] = &[
    Capability::Shader,
    Capability::Matrix,
    Capability::GroupNonUniform,
    Capability::GroupNonUniformVote,
    Capability::GroupNonUniformArithmetic,
    Capability::GroupNonUniformBallot,
    Capability::GroupNonUniformShuffle,
    Capability::GroupNonUniformShuffleRelative,
    Capability::GroupNonUniformQuad,
];

const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

fn spirv(
    module: &Module,
    info: &ModuleInfo,
    lang_version: (u8, u8),
    capabilities: Option<&[Capability]>,
) -> Vec<u8> {
    let options = spv::Options {
        lang_version,
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: true, // the very group and binding of the source
        capabilities: capabilities.map(|list| list.iter().copied().collect()),
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let (shader_stage, entry_point) = (ShaderStage::Compute, "main".to_owned());
    let pipeline = spv::PipelineOptions { shader_stage, entry_point };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).unwrap();
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Bindings in order, and whether the kernel may write there.
fn bindings(module: &Module) -> BTreeMap<ResourceBinding, bool> {
    let mutable = |space| match space {
        AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
        other => panic!("a binding in {other:?}"),
    };
    let variables = module.global_variables.iter();
    variables.filter_map(|(_, v)| Some((v.binding?, mutable(v.space)))).collect()
}

fn metal(module: &Module, info: &ModuleInfo) -> Vec<u8> {
    let resources = bindings(module).into_iter().zip(0..).map(|((binding, mutable), slot)| {
        let target = msl::BindTarget { buffer: Some(slot), mutable, ..Default::default() };
        (binding, target)
    });
    let resources = msl::EntryPointResources {
        resources: resources.collect(),
        sizes_buffer: Some(30),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [("main".to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let entry_point = Some((ShaderStage::Compute, "main".to_owned()));
    let pipeline = msl::PipelineOptions { entry_point, ..Default::default() };
    let (text, written) = msl::write_string(module, info, &options, &pipeline).unwrap();
    assert!(written.entry_point_names.iter().all(Result::is_ok), "{written:?}");
    text.into()
}

fn hlsl(module: &Module, info: &ModuleInfo, shader_model: ShaderModel) -> Vec<u8> {
    let mut registers = [0, 0];
    let target = |(binding, mutable)| {
        let next: &mut u32 = &mut registers[usize::from(mutable)];
        let register = std::mem::replace(next, *next + 1);
        (binding, hlsl::BindTarget { register, ..Default::default() })
    };
    let options = hlsl::Options {
        shader_model,
        binding_map: bindings(module).into_iter().map(target).collect(),
        fake_missing_bindings: false,
        special_constants_binding: Some(hlsl::BindTarget::default()),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let entry_point = Some((ShaderStage::Compute, "main".to_owned()));
    let pipeline = hlsl::PipelineOptions { entry_point };
    let mut text = String::new();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let written = writer.write(module, info, None).unwrap();
    assert!(written.entry_point_names.iter().all(Result::is_ok));
    text.into()
}

/// Where the translations go, if anywhere, is what `BROOKLET_TRANSLATIONS` says.
#[test]
fn every_kernel_is_translated_for_every_platform_with_the_overrides_that_engines_give_it() {
    let folder = std::env::var_os("BROOKLET_TRANSLATIONS").map(PathBuf::from);
    let asked = asked();
    let names: BTreeSet<_> = asked.values().map(|(source, ..)| source.name).collect();
    let mut forgotten = kernels();
    forgotten.retain(|kernel| !names.contains(kernel.name));
    let forgotten: Vec<_> = forgotten.iter().map(|kernel| kernel.name).collect();
    assert_eq!(forgotten, [""; 0], "asked for by nobody");
    assert!(asked.len() > 2 * names.len(), "only {} of {} kernels", asked.len(), names.len());
    let mut list = Vec::new();
    let mut read = BTreeMap::new();
    for (number, (key, (source, overrides, classes))) in asked.iter().enumerate() {
        let stem = format!("{number:04}-{}", source.name);
        let valid = read.entry(source.name).or_insert_with(|| valid(source));
        let mut files = translated(source, valid, overrides);
        files.push(("wgsl", source.for_browsers().into()));
        for (ending, bytes) in files {
            assert!(!bytes.is_empty(), "{stem}.{ending}");
            if let Some(folder) = &folder {
                std::fs::write(folder.join(format!("{stem}.{ending}")), bytes).unwrap();
            }
        }
        let overrides: BTreeMap<_, _> = overrides.iter().copied().collect();
        let (name, subgroups) = (source.name, source.subgroups);
        list.push(serde_json::json!({
            "stem": stem, "name": name, "key": key, "subgroups": subgroups, "overrides": overrides,
            "classes": classes,
        }));
    }
    if let Some(folder) = &folder {
        let list = serde_json::to_string_pretty(&list).unwrap();
        std::fs::write(folder.join("kernels.json"), list).unwrap();
    }
    eprintln!("{} kernels, {} with their overrides", names.len(), asked.len());
}
