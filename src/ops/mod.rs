//! One file an op: its `Params`, its kernel, its `record`.
mod argmax;
mod attention;
mod ring;
mod rms_norm;
mod rope_store;

pub use argmax::{Argmax, ArgmaxParams, NO_TOKEN};
pub use attention::{Attention, AttentionParams};
pub use ring::RingParams;
pub use rms_norm::{RmsNorm, RmsNormParams};
pub use rope_store::{RopeStore, RopeStoreParams};

use ring::expect_cache;
