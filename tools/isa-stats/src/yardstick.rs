//! llama.cpp's kernels for the same products, measured the same way.
use crate::gpu::{FAMILIES, Family, Gpu};
use crate::measure::measure;
use crate::shader::{Client, Reads, Shader, format_of};
use crate::{Fail, Result};
use brooklet::format::DType;
use std::path::Path;

/// The committed figures.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Yardstick {
    /// What was measured, and how to measure it again.
    pub origin: String,
    /// Of every kernel on every GPU.
    pub kernels: Vec<Peer>,
}

/// One kernel on one GPU.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Peer {
    /// The GPU.
    pub family: String,
    /// The type of the weights.
    pub format: String,
    /// Activations are bytes, not f32.
    pub int8: bool,
    /// llama.cpp's name for it.
    pub name: String,
    /// Rows of a workgroup.
    pub rows: u32,
    /// Vector registers a lane.
    pub vgprs: u64,
    /// Spilled registers and bytes of scratch memory.
    pub spills: u64,
    /// Subgroups that a SIMD holds at once.
    pub waves: u64,
    /// Instructions in a round of the hot loop.
    pub instructions: u32,
    /// Weights that a lane consumes in it.
    pub weights: u32,
    /// Instructions per weight byte.
    pub per_byte: f64,
}

impl Yardstick {
    /// Those in this folder.
    pub fn read() -> Result<Self> {
        Ok(serde_json::from_str(include_str!("../yardstick.json"))?)
    }

    /// The best of llama.cpp's kernels for this type and these activations.
    pub fn best(&self, family: Family, format: DType, int8: bool) -> Option<&Peer> {
        let fits = |peer: &&Peer| {
            peer.family == family.name && peer.format == format.name() && peer.int8 == int8
        };
        self.kernels.iter().filter(fits).min_by(|a, b| a.per_byte.total_cmp(&b.per_byte))
    }

    /// As JSON, a kernel a line.
    pub fn text(&self) -> Result<String> {
        let lines = self.kernels.iter().map(serde_json::to_string);
        let lines = lines.collect::<serde_json::Result<Vec<_>>>()?.join(",\n    ");
        let origin = serde_json::to_string(&self.origin)?;
        Ok(format!("{{\n  \"origin\": {origin},\n  \"kernels\": [\n    {lines}\n  ]\n}}\n"))
    }
}

/// Measures every SPIR-V file of `folder`, named as llama.cpp names them.
pub fn make(folder: &Path, origin: String) -> Result<Yardstick> {
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "spv")).collect();
    files.sort();
    let mut kernels = Vec::new();
    for family in FAMILIES {
        // RADV tells llama.cpp that subgroups have 64 lanes on all of them, and it asks for that.
        let gpu = Gpu::open(family, Client::LlamaCpp { subgroup: 64 })?;
        for path in &files {
            let shader = peer(path, family)?;
            let int8 = shader.reads.activations.is_none();
            // vega10 has no integer dot products, and llama.cpp no use for int8 activations there.
            if int8 && family.gcn {
                continue;
            }
            let (measured, _) = measure(&gpu, &shader)?;
            let hot = measured
                .hot
                .ok_or_else(|| Fail(format!("{}: no loop reads weights", shader.name)))?;
            kernels.push(Peer {
                family: family.name.into(),
                format: shader.reads.format.map_or("", DType::name).into(),
                int8,
                name: shader.name,
                rows: shader.reads.rows,
                vgprs: measured.vgprs,
                spills: measured.spills,
                waves: measured.waves,
                instructions: hot.instructions,
                weights: hot.weights,
                per_byte: (hot.per_byte() * 100.0).round() / 100.0,
            });
        }
    }
    Ok(Yardstick { origin, kernels })
}

/// One of llama.cpp's kernels as it would be compiled for `family`.
pub fn peer(path: &Path, family: Family) -> Result<Shader> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let spirv = ash::util::read_spv(&mut std::fs::File::open(path)?)?;
    // As mul_mat_vec_q4_1_f32_f32_subgroup_no_shmem: the type of the weights comes first.
    let words = name.strip_prefix("mul_mat_vec_").unwrap_or(&name);
    let int8 = words.contains("_q8_1_");
    let first = words.split(if int8 { "_q8_1_" } else { "_f32_f32" }).next().unwrap_or_default();
    let format = format_of(first)
        .ok_or_else(|| Fail(format!("{name}: no type of weights is called {first}")))?;
    let rows = rows(format, int8, family.gcn);
    Ok(Shader {
        spirv,
        entry: "main".into(),
        // BLOCK_SIZE, NUM_ROWS, NUM_COLS
        constants: vec![(0, 64), (1, rows), (2, 1)],
        // data_a, data_b, data_d, data_fuse0, data_fuse1
        bindings: vec![false; 5],
        client: Client::LlamaCpp { subgroup: 64 },
        lanes: 64,
        needs_subgroups: true,
        reads: Reads {
            format: Some(format),
            weights: vec![0],
            quants: None,
            activations: (!int8).then_some(1),
            rows,
        },
        name,
    })
}

/// Rows that llama.cpp gives a workgroup on AMD's GPUs: `rm_stdq`, `rm_kq`, `rm_stdq_int` and `rm_kq_int`
/// in ggml-vulkan.cpp.
fn rows(format: DType, int8: bool, gcn: bool) -> u32 {
    let of_256 = format.block_len() == 256;
    match format {
        DType::F32 => 1,
        DType::F16 | DType::BF16 => 2,
        DType::Q2K if int8 => 2,
        _ if int8 && of_256 => 1,
        _ if int8 && gcn => 4,
        _ if int8 => 1,
        DType::Q8_0 if gcn => 2,
        DType::Q8_0 => 1,
        _ if gcn => 4,
        _ => 2,
    }
}
