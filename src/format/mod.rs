//! Bytes to meaning: model files and quantised blocks. No GPU.
