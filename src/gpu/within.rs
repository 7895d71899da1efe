//! What a class of devices does not have and the adapter under it does: wgpu holds kernels to every limit but this one.
use super::{KernelSource, Tier};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, back::pipeline_constants::process_overrides};

/// Refuses a kernel that wants more workgroup memory than the device has, as that device would.
pub(super) fn workgroup_memory(
    tier: &Tier,
    source: &KernelSource,
    overrides: &[(&str, f64)],
) -> Result<(), String> {
    let wanted = wanted(source, overrides)?;
    match wanted <= tier.workgroup_memory {
        true => Ok(()),
        false => Err(format!("{wanted} bytes of workgroup memory of {}", tier.workgroup_memory)),
    }
}

/// Bytes of workgroup memory.
fn wanted(source: &KernelSource, overrides: &[(&str, f64)]) -> Result<u32, String> {
    let module = naga::front::wgsl::parse_str(source.wgsl).map_err(|error| error.to_string())?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).map_err(|error| format!("{error:?}"))?;
    let constants = overrides.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let (module, _) =
        process_overrides(&module, &info, None, &constants).map_err(|error| error.to_string())?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let globals = module.global_variables.iter();
    let shared = globals.filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    Ok(shared.map(|(_, global)| layouter[global.ty].size.next_multiple_of(16)).sum())
}
