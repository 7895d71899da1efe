//! The model: config, weights, cache, forward pass.
