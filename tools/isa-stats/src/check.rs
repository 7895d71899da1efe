//! What must hold of the kernels that GPUs run.
use crate::gpu::Family;
use crate::measure::Measured;
use crate::shader::{Shader, format_of};
use crate::yardstick::Yardstick;
use brooklet::format::DType;

/// Subgroups of 32 lanes that a SIMD of navi21 must hold, so that one computes while others wait for memory; one of 64
/// lanes waits for as much as two of them.
const WAVES: u64 = 8;
/// The same of attention over blocks, which has the token's own key and value in workgroup memory until their scales are
/// known.
const WAVES_OF_BLOCKS: u64 = 6;

/// A sentence for everything that does not hold.
pub fn violations(
    family: Family,
    shader: &Shader,
    measured: &Measured,
    yardstick: &Yardstick,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("{}: {}: {what}", family.name, shader.name));
    if measured.spills > 0 {
        say(format!("{} registers or bytes of scratch memory are spilled", measured.spills));
    }
    let wide = u64::from(measured.subgroup.div_ceil(32));
    let kernel = shader.name.split(' ').next().unwrap_or_default();
    let blocks = kernel.starts_with("attention") && format_of(kernel).is_some();
    let waves = if blocks { WAVES_OF_BLOCKS } else { WAVES };
    if family.name == "navi21" && measured.waves * wide < waves {
        say(format!(
            "a SIMD holds {} subgroups of {} lanes, {} are wanted ({} registers, {} bytes of workgroup memory)",
            measured.waves,
            measured.subgroup,
            waves.div_ceil(wide),
            measured.vgprs,
            measured.lds
        ));
    }
    if shader.needs_subgroups && measured.subgroup != measured.lanes {
        say(format!(
            "its workgroup of {} lanes is to be one subgroup, the driver makes subgroups of {}",
            measured.lanes, measured.subgroup
        ));
    }
    if shader.reads.weights.is_empty() {
        return found; // it joins what others have read
    }
    let Some(hot) = &measured.hot else {
        if shader.name.starts_with("matmul") {
            return found; // GCN's compiler leaves a loop inside that which reads weights
        }
        say("no loop reads weights, so nothing could be counted".into());
        return found;
    };
    let narrow: u32 =
        hot.quant_loads.iter().filter(|(bytes, _)| **bytes != 16).map(|(_, n)| n).sum();
    // Eight dimensions of a block, and its scale, have fewer.
    if narrow > 0 && !blocks {
        let all: u32 = hot.quant_loads.values().sum();
        say(format!("{narrow} of its {all} loads of weights are not of 16 bytes"));
    }
    // A weight that serves many tokens takes more instructions, in llama.cpp as well.
    if shader.name.starts_with("matvec")
        && let Some(peer) =
            shader.reads.format.and_then(|f| yardstick.best(family, f, is_int8(shader)))
        && rounded(hot.per_byte()) > peer.per_byte
    {
        say(format!(
            "{:.2} instructions per weight byte, llama.cpp's {} has {:.2}",
            hot.per_byte(),
            peer.name,
            peer.per_byte
        ));
    }
    found
}

/// Whether activations are multiplied as bytes: the engine's kernels round them themselves, llama.cpp's read them so.
pub fn is_int8(shader: &Shader) -> bool {
    shader.name.contains("_int8")
        || shader.reads.format.is_some_and(|format| format != DType::F32)
            && shader.reads.activations.is_none()
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
