//! Every op on the GPU against its twin in `reference`.
mod cache_ops;
mod row_ops;
mod weight_ops;

use crate::gpu::{Gpu, Recording};

/// Runs what was recorded and waits for nothing: a read waits.
pub(super) fn run(gpu: &Gpu, recording: Recording) {
    recording.finish(gpu).run(gpu, &[]);
}

/// Every pair of two switches.
fn flags() -> [[bool; 2]; 4] {
    [[false, false], [false, true], [true, false], [true, true]]
}
