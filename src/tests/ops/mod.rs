//! Every op on the GPU against its twin in `reference`.
mod cache_ops;
mod decode_ops;
mod fused_ops;
mod int8_ops;
#[cfg(feature = "cli")]
mod memory;
mod row_ops;
mod sample_op;
mod shift_op;
mod weight_ops;

use crate::gpu::{Gpu, Recording};
use crate::ops::{Sums, Variant};
use pollster::block_on;

/// Runs what was recorded and waits for nothing: a read waits.
pub(super) fn run(gpu: &Gpu, recording: Recording) {
    recording.finish(gpu).unwrap().run(gpu, &[]);
}

/// Every pair of two switches.
fn flags() -> [[bool; 2]; 4] {
    [[false, false], [false, true], [true, false], [true, true]]
}

/// Every variant of the products that this device has.
fn variants(gpu: &Gpu) -> Vec<Variant> {
    block_on(Variant::all(gpu)).unwrap()
}

/// Every way of adding up that this device has.
fn sums(gpu: &Gpu) -> Vec<Sums> {
    match block_on(Sums::of(gpu)).unwrap() {
        Sums::Shared => vec![Sums::Shared],
        Sums::Subgroup => vec![Sums::Shared, Sums::Subgroup],
    }
}

#[test]
fn software_drivers_of_one_vector_register_add_up_by_subgroup() {
    let gpu = crate::tests::support::gpu();
    let whole = gpu.tier.subgroups && gpu.tier.lanes() == gpu.tier.subgroup_size[0];
    let expected = if whole { Sums::Subgroup } else { Sums::Shared };
    // It is tried out on the device: the kernel and its twin agree here, or this driver is a find.
    assert_eq!(block_on(Sums::of(&gpu)).unwrap(), expected, "{:?}", gpu.tier);
}
