//! What each kernel should compute, said in the plainest Rust: scalar loops, `f64` sums.
mod add_bias;
mod argmax;
mod attention;
mod get_rows;
mod matmul;
mod nll;
mod rms_norm;
mod rope_store;
mod rounded;
mod shares;
mod shift;
mod stream;
mod subgroup_check;

pub use add_bias::add_bias;
pub use argmax::argmax;
pub use attention::attention;
pub use get_rows::get_rows;
pub use matmul::matmul;
pub use nll::nll;
pub use rms_norm::rms_norm;
pub use rope_store::rope_store;
pub use rounded::rounded;
pub use shares::shares;
pub use shift::shift;
pub use stream::Oracle;
pub use subgroup_check::subgroup_check;
