//! The figures of one shader on one GPU.
use crate::assembly::{Kind, Loop, Program};
use crate::gpu::{Compiled, Gpu};
use crate::shader::{Reads, Shader};
use crate::traffic::{BufferLoad, buffer_loads};
use crate::{Fail, Result};
use std::collections::BTreeMap;

/// What is known of one shader on one GPU.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of the kernel, with its choices.
    pub name: String,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Vector registers a lane.
    pub vgprs: u64,
    /// Scalar registers a subgroup.
    pub sgprs: u64,
    /// Registers that did not fit, and bytes of scratch memory.
    pub spills: u64,
    /// Bytes of workgroup memory.
    pub lds: u64,
    /// Subgroups that a SIMD holds at once.
    pub waves: u64,
    /// Instructions in all.
    pub instructions: u64,
    /// The loop that reads the weights; none where no loop does.
    pub hot: Option<Hot>,
}

/// What a lane does in one round of the hot loop.
#[derive(Clone, Debug)]
pub struct Hot {
    /// Instructions that a unit executes.
    pub instructions: u32,
    /// The same by kind.
    pub kinds: BTreeMap<Kind, u32>,
    /// Loads of quants by their bytes.
    pub quant_loads: BTreeMap<u32, u32>,
    /// Loads of anything else by their bytes; scalar loads under 0.
    pub other_loads: BTreeMap<u32, u32>,
    /// Weights consumed; 0 where they are not told apart.
    pub weights: u32,
    /// Their bytes in the file, scales included; in attention those of keys and values.
    pub weight_bytes: f64,
}

impl Hot {
    /// The figure that counts.
    pub fn per_byte(&self) -> f64 {
        f64::from(self.instructions) / self.weight_bytes
    }
}

/// Compiles and measures.
pub fn measure(gpu: &Gpu, shader: &Shader) -> Result<(Measured, Compiled)> {
    let compiled = gpu.compile(shader)?;
    let program = Program::parse(&compiled.assembly);
    let statistic = |name: &str| {
        let found = compiled.statistics.get(name).copied();
        found.ok_or_else(|| Fail(format!("the driver has no statistic called {name:?}")))
    };
    let spills = ["spilled sgprs", "spilled vgprs", "scratch size"];
    let spills = spills.iter().map(|name| statistic(name)).sum::<Result<u64>>()?;
    // On RDNA the driver counts a subgroup of 64 as two of 32.
    let counted_as = if gpu.family.gcn { 1 } else { u64::from(compiled.subgroup / 32) };
    let measured = Measured {
        name: shader.name.clone(),
        lanes: shader.lanes,
        subgroup: compiled.subgroup,
        vgprs: statistic("vgprs")?,
        sgprs: statistic("sgprs")?,
        spills,
        lds: statistic("lds size")?,
        waves: statistic("subgroups per simd")? / counted_as.max(1),
        instructions: statistic("instructions")?,
        hot: hot(&program, &shader.reads),
    };
    Ok((measured, compiled))
}

/// The innermost loop that consumes most weights in a round; of several the one with fewest instructions. One that writes
/// to a buffer stores the token's own key and value, and reads what its words held before.
pub fn hot(program: &Program, reads: &Reads) -> Option<Hot> {
    let loads = buffer_loads(program);
    let writes = |each: &Loop| {
        let mut body = program.instructions[each.first..=each.last].iter();
        body.any(|instruction| instruction.opcode.starts_with("buffer_store"))
    };
    let of = |each: Loop| one_loop(program, &loads, reads, each);
    let loops = program.innermost_loops().into_iter().filter(|each| !writes(each)).map(of);
    let loops = loops.filter(|hot| hot.weight_bytes > 0.0);
    loops.max_by(|a, b| {
        a.weight_bytes.total_cmp(&b.weight_bytes).then(b.instructions.cmp(&a.instructions))
    })
}

fn one_loop(program: &Program, loads: &[BufferLoad], reads: &Reads, each: Loop) -> Hot {
    let body = &program.instructions[each.first..=each.last];
    let mut kinds = BTreeMap::<Kind, u32>::new();
    for instruction in body {
        *kinds.entry(instruction.kind()).or_default() += 1;
    }
    kinds.remove(&Kind::Hint);
    let (mut quant_loads, mut other_loads) = (BTreeMap::new(), BTreeMap::new());
    let (mut quants, mut kept, mut activations) = (0, 0, 0);
    for load in loads.iter().filter(|load| (each.first..=each.last).contains(&load.at)) {
        // Attention reads keys and values alike.
        let count_all = reads.format.is_none();
        let is_weights = load.binding.is_some_and(|b| reads.weights.contains(&b));
        let is_quants = is_weights && (count_all || load.binding == reads.weights.first().copied());
        let bytes = if load.scalar { 0 } else { load.bytes };
        let loads = if is_quants { &mut quant_loads } else { &mut other_loads };
        *loads.entry(bytes).or_default() += 1;
        quants += if is_quants { load.bytes } else { 0 };
        kept += if is_weights { load.bytes } else { 0 };
        activations += if load.binding == reads.activations && load.binding.is_some() {
            load.bytes
        } else {
            0
        };
    }
    let dots = kinds.get(&Kind::Dot).copied().unwrap_or_default();
    let weights = weights(reads, [quants, kept, activations, dots]);
    let weight_bytes = match reads.format {
        Some(dtype) => f64::from(weights) * dtype.block_bytes() as f64 / dtype.block_len() as f64,
        None => f64::from(kept),
    };
    Hot {
        instructions: kinds.values().sum(),
        kinds,
        quant_loads,
        other_loads,
        weights,
        weight_bytes,
    }
}

/// How many weights a lane consumes in a round; the README says why so.
fn weights(reads: &Reads, [quants, kept, activations, dots]: [u32; 4]) -> u32 {
    let by_activations = match reads.activations {
        Some(_) if activations > 0 => Some(activations / 4 * reads.rows),
        _ if dots > 0 => Some(4 * dots),
        _ => None,
    };
    match (reads.quants, by_activations) {
        // A load of 16 bytes may hold more quants than are used.
        (Some(of_unit), Some(used)) if of_unit < 16 => (quants * 32 / of_unit).min(used),
        (Some(of_unit), _) => quants * 32 / of_unit,
        (None, Some(used)) if kept > 0 => used,
        (None, _) => 0,
    }
}
