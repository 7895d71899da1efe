//! One file an op.
