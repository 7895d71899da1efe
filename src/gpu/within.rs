//! What a class of devices does not have and the adapter under it does: wgpu does not hold kernels to workgroup memory,
//! nor to lanes that an override gives.
use super::{KernelSource, Tier};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, back::pipeline_constants::process_overrides};

/// Bytes of workgroup memory that every WebGPU device has. Who has more is an adapter as it is, and refuses by itself.
const LEAST_MEMORY: u32 = 16 << 10;
/// Lanes of a workgroup that every WebGPU device can have.
const LEAST_LANES: u32 = 256;

/// Refuses a kernel that wants more than the device has, as that device would.
pub(super) fn refuse(
    tier: &Tier,
    source: &KernelSource,
    overrides: &[(&str, f64)],
) -> Result<(), String> {
    if tier.workgroup_memory > LEAST_MEMORY {
        return Ok(());
    }
    let [lanes, memory] = wanted(source, overrides)?;
    match lanes <= LEAST_LANES && memory <= tier.workgroup_memory {
        true => Ok(()),
        false => Err(format!("{lanes} lanes and {memory} bytes of workgroup memory")),
    }
}

/// Lanes of a workgroup, and bytes of its memory.
fn wanted(source: &KernelSource, overrides: &[(&str, f64)]) -> Result<[u32; 2], String> {
    let module =
        naga::front::wgsl::parse_str(&source.wgsl.text()).map_err(|error| error.to_string())?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).map_err(|error| format!("{error:?}"))?;
    let constants = overrides.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let (module, _) =
        process_overrides(&module, &info, None, &constants).map_err(|error| error.to_string())?;
    let lanes = module.entry_points.iter().map(|entry| entry.workgroup_size.iter().product());
    Ok([lanes.max().unwrap_or(1), memory(&module)?])
}

fn memory(module: &Module) -> Result<u32, String> {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let globals = module.global_variables.iter();
    let shared = globals.filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    Ok(shared.map(|(_, global)| layouter[global.ty].size.next_multiple_of(16)).sum())
}
