//! What makes the claims checkable: measurements.
pub mod latency;
