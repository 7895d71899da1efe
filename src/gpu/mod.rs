//! The only module that names wgpu.
