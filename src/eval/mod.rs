//! What makes the claims checkable: measurements and pictures of them. Native only.
pub mod chart;
pub mod device;
pub mod latency;
pub mod perplexity;
pub mod records;
pub mod score;
pub mod sinks;
pub mod soak;
