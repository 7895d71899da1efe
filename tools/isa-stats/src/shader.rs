//! From WGSL to what the driver is given, as the engine does it natively.
use crate::gpu::Family;
use crate::{Fail, Result};
use brooklet::format::DType;
use brooklet::ops::{AttentionOne, HeadShape, KvType, Sums};
use std::collections::BTreeMap;

/// Who would hand the shader to the driver, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The engine, through wgpu.
    Wgpu,
    /// llama.cpp, which says which subgroup it wants.
    LlamaCpp {
        /// Lanes.
        subgroup: u32,
    },
}

/// A shader with all its constants chosen.
pub struct Shader {
    /// The kernel's name, then whatever was chosen that has several values.
    pub name: String,
    /// For the driver.
    pub spirv: Vec<u32>,
    /// The function's name.
    pub entry: String,
    /// Specialisation constants by their ids.
    pub constants: Vec<(u32, u32)>,
    /// Which bindings are uniforms, from binding 0 on.
    pub bindings: Vec<bool>,
    /// Who compiles it.
    pub client: Client,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Its workgroup must be one subgroup.
    pub needs_subgroups: bool,
    /// What the figures are counted from.
    pub reads: Reads,
}

/// What a shader reads and how it uses it.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// The type of its weights.
    pub format: Option<DType>,
    /// Bindings of weights (keys and values in attention); the first has the quants.
    pub weights: Vec<u32>,
    /// Bytes of quants that 32 weights take in the first of them; none where scales lie between.
    pub quants: Option<u32>,
    /// The binding of f32 activations.
    pub activations: Option<u32>,
    /// Rows that a workgroup has.
    pub rows: u32,
}

/// Values that an override takes in the engine on a GPU. Those not listed keep their default.
fn choices(name: &str, lanes: &[u32]) -> Option<Vec<f64>> {
    Some(match name {
        "WG" => lanes.iter().map(|&lanes| f64::from(lanes)).collect(),
        "EPILOGUE" => vec![0.0, 2.0], // store, SwiGLU
        "HEAD_DIM" => vec![64.0],
        "KV_F16" => vec![1.0],
        "COLUMNS" => vec![8.0],
        _ => return None,
    })
}

/// Heads that the attention of one token is compiled for: their dimensions, and how many share keys and values.
const HEADS: [(usize, usize); 6] = [(64, 1), (64, 3), (64, 4), (80, 1), (128, 4), (256, 2)];

/// How the lanes of an attention of one token add up, and how it has keys and values.
fn attention_one(kernel: &str) -> Option<(Sums, KvType)> {
    let of = |(sums, kv): (Sums, KvType)| {
        let sources = match sums {
            Sums::Shared => AttentionOne::SOURCES,
            Sums::Subgroup => AttentionOne::SUBGROUP,
        };
        sources.of(kv).name == kernel
    };
    let all = KvType::ALL.into_iter().flat_map(|kv| [(Sums::Shared, kv), (Sums::Subgroup, kv)]);
    all.into_iter().find(|&one| of(one))
}

/// What the engine chooses for each of the heads with each number of lanes, and what tells one from another.
fn attentions((sums, kv): (Sums, KvType), lanes: &[u32]) -> Vec<(String, BTreeMap<String, f64>)> {
    let made = lanes.iter().flat_map(|&lanes| {
        HEADS.into_iter().filter(|(head_dim, _)| kv.fits(*head_dim)).map(
            move |(head_dim, sharing)| {
                let shape = HeadShape { head_dim, sharing, kv, alibi: false, capped: false };
                let (_, values) = AttentionOne::on_gpu(lanes, shape, sums);
                let values = values.into_iter().map(|(name, value)| (name.to_owned(), value));
                (format!(" HD={head_dim} GROUP={sharing}"), values.collect())
            },
        )
    });
    made.collect()
}

/// Kernels that the engine runs on software drivers alone.
pub fn is_for_software(name: &str) -> bool {
    name.contains("_many") || name.contains("_columns")
}

/// The type that a kernel is named for.
pub fn format_of(name: &str) -> Option<DType> {
    let words = format!("_{name}_");
    DType::ALL
        .into_iter()
        .find(|dtype| words.contains(&format!("_{}_", dtype.name().to_lowercase())))
}

/// Every shader that the engine would make of one kernel on `family`.
pub fn shaders(name: &str, wgsl: &str, subgroups: bool, family: Family) -> Result<Vec<Shader>> {
    let fail = |what: &str, why: String| Fail(format!("{name}: {what}: {}", why.trim()));
    let module = naga::front::wgsl::parse_str(wgsl)
        .map_err(|e| fail("the WGSL does not parse", e.emit_to_string(wgsl)))?;
    let lanes = lanes(name, subgroups, family);
    let mut chosen = vec![(String::new(), BTreeMap::new())];
    if let Some(one) = attention_one(name) {
        chosen = attentions(one, &lanes);
    }
    for (_, constant) in module.overrides.iter() {
        let Some(constant) = constant.name.as_deref() else { continue };
        if chosen.iter().any(|(_, values)| values.contains_key(constant)) {
            continue;
        }
        let Some(values) = choices(constant, &lanes) else { continue };
        let several = values.len() > 1;
        let with = |value: f64| {
            chosen.iter().map(move |(told, rest)| {
                let told =
                    if several { format!("{told} {constant}={value}") } else { told.clone() };
                let mut rest: BTreeMap<String, f64> = rest.clone();
                rest.insert(constant.to_owned(), value);
                (told, rest)
            })
        };
        chosen = values.into_iter().flat_map(with).collect::<Vec<_>>();
    }
    let flags = naga::valid::ValidationFlags::all();
    let info = naga::valid::Validator::new(flags, naga::valid::Capabilities::all())
        .validate(&module)
        .map_err(|e| fail("the WGSL is not valid", e.emit_to_string(wgsl)))?;
    let options = naga::back::spv::Options {
        lang_version: (1, 6),
        flags: naga::back::spv::WriterFlags::LABEL_VARYINGS,
        // As for a trusted shader without checks.
        bounds_check_policies: naga::proc::BoundsCheckPolicies::default(),
        zero_initialize_workgroup_memory: naga::back::spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let declared = |name: &str| {
        module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name))
    };
    let entry = ("main", naga::ShaderStage::Compute);
    let mut made = Vec::new();
    for (told, constants) in chosen {
        let (module, info) = naga::back::pipeline_constants::process_overrides(
            &module,
            &info,
            Some((entry.1, entry.0)),
            &constants.into_iter().filter(|(name, _)| declared(name)).collect(),
        )
        .map_err(|e| fail("an override has no value", e.to_string()))?;
        let point =
            naga::back::spv::PipelineOptions { entry_point: entry.0.into(), shader_stage: entry.1 };
        let spirv = naga::back::spv::write_vec(&module, &info, &options, Some(&point))
            .map_err(|e| fail("it does not become SPIR-V", e.to_string()))?;
        made.push(Shader {
            name: format!("{name}{told}"),
            spirv,
            entry: entry.0.into(),
            constants: Vec::new(),
            bindings: bindings(&module),
            client: Client::Wgpu,
            lanes: module.entry_points[0].workgroup_size.iter().product(),
            needs_subgroups: subgroups,
            reads: reads(name, &module)?,
        });
    }
    Ok(made)
}

/// Lanes of a workgroup, as the engine has it: with subgroups, without, or both where one kernel serves both.
fn lanes(name: &str, subgroups: bool, family: Family) -> Vec<u32> {
    let (with, without) = (family.subgroup_size[0].clamp(32, 64), 64);
    let twin = format!("{name}_subgroup");
    let mut lanes = match subgroups {
        true => vec![with],
        false if brooklet::ops::kernels().iter().any(|kernel| kernel.name == twin) => vec![without],
        false => vec![with, without],
    };
    lanes.dedup();
    lanes
}

fn bindings(module: &naga::Module) -> Vec<bool> {
    let mut uniform = Vec::new();
    for (_, global) in module.global_variables.iter() {
        if let Some(binding) = &global.binding {
            let at = binding.binding as usize;
            uniform.resize(uniform.len().max(at + 1), false);
            uniform[at] = global.space == naga::AddressSpace::Uniform;
        }
    }
    uniform
}

/// By the names that the kernels give their bindings.
fn reads(name: &str, module: &naga::Module) -> Result<Reads> {
    let binding = |wanted: &str| {
        let mut globals = module.global_variables.iter().map(|(_, global)| global);
        let found = globals.find(|global| global.name.as_deref() == Some(wanted))?;
        found.binding.as_ref().map(|binding| (binding.binding, found.ty))
    };
    if name.starts_with("attention") {
        let weights =
            ["k", "v"].iter().filter_map(|name| binding(name)).map(|(at, _)| at).collect();
        return Ok(Reads { weights, ..Reads::default() });
    }
    let format = format_of(name);
    let weights: Vec<u32> =
        ["quants", "scales"].iter().filter_map(|name| binding(name)).map(|(at, _)| at).collect();
    if name.starts_with("matvec") && (format.is_none() || binding("quants").is_none()) {
        return Err(Fail(format!(
            "{name}: a matvec is named for the type of its weights and has a binding `quants`; this tool knows no other"
        )));
    }
    let floats = |ty| is_array_of_floats(module, ty);
    Ok(Reads {
        format,
        weights,
        quants: format.map(|dtype| 4 * brooklet::format::words_of_eight_units(dtype).0 as u32 / 8),
        activations: binding("x").filter(|(_, ty)| floats(*ty)).map(|(at, _)| at),
        rows: constant(module, "ROWS").unwrap_or(4),
    })
}

fn is_array_of_floats(module: &naga::Module, ty: naga::Handle<naga::Type>) -> bool {
    let naga::TypeInner::Array { base, .. } = module.types[ty].inner else { return false };
    module.types[base].inner.scalar_kind() == Some(naga::ScalarKind::Float)
}

/// A number that the kernel gives a name.
fn constant(module: &naga::Module, name: &str) -> Option<u32> {
    let found = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
    match module.global_expressions[found.1.init] {
        naga::Expression::Literal(naga::Literal::U32(value)) => Some(value),
        _ => None,
    }
}
