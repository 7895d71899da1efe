//! A compute pipeline made from WGSL files that live in `shaders/`.
use super::{Counters, Gpu};
use crate::{Error, Result};
use std::borrow::Cow;

/// How a kernel touches one binding. Binding 0 is always the `Params` uniform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
}

/// What is known of a kernel before there is a device: a `const` of each op.
#[derive(Clone, Copy, Debug)]
pub struct KernelSource {
    /// The pipeline's label: the file's stem, then the format it was joined with.
    pub name: &'static str,
    /// The whole source: library files, then the kernel's own.
    pub wgsl: &'static str,
    /// Bindings 1.. in order.
    pub bindings: &'static [Access],
    /// The size of `Params`.
    pub params_size: u64,
    /// Subgroup operations are used.
    pub subgroups: bool,
}

impl KernelSource {
    /// The source as a browser wants it: naga rejects the directive that browsers demand.
    pub fn for_browsers(&self) -> Cow<'static, str> {
        match self.subgroups {
            true => {
                [include_str!("../../shaders/enable/subgroups.wgsl"), self.wgsl].concat().into()
            }
            false => self.wgsl.into(),
        }
    }
}

/// Joins WGSL files at compile time; WGSL does not mind the order of declarations.
macro_rules! wgsl {
    ($($file:literal),+ $(,)?) => {
        concat!($(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file)), "\n"),+)
    };
}
pub(crate) use wgsl;

/// A compiled kernel.
pub struct Kernel {
    /// What it was made from.
    pub source: KernelSource,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Kernel {
    /// Compiles `source` with the given values for those of its `override`s that are among them.
    pub async fn new(
        gpu: &Gpu,
        source: KernelSource,
        overrides: impl AsRef<[(&str, f64)]>,
    ) -> Result<Self> {
        let name = source.name;
        // A value for an override that the kernel does not have would be an error.
        let declared = |name: &str| source.wgsl.contains(&format!("override {name}:"));
        let overrides = overrides.as_ref().iter().copied();
        let overrides: Vec<_> = overrides.filter(|(name, _)| declared(name)).collect();
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &layout_entries(&source),
        });
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(match cfg!(target_arch = "wasm32") {
                true => source.for_browsers(),
                false => source.wgsl.into(),
            }),
        };
        // SAFETY: every index of our kernels follows from shapes that `record` has checked and
        // from token ids that the session has checked; every loop has a bound; no divisor is zero.
        #[allow(unsafe_code, reason = "bounds checks in the inner loop cost up to a third there")]
        let module = unsafe {
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            gpu.device.create_shader_module_trusted(descriptor, checks)
        };
        let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &overrides,
                // Our kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Counters::add(&gpu.counters.objects, 1);
        match scope.pop().await {
            Some(error) => Err(Error::Kernel { kernel: name, detail: error.to_string() }),
            None => Ok(Self { source, pipeline, layout }),
        }
    }
}

fn layout_entries(source: &KernelSource) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty, has_dynamic_offset, size| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: size },
        count: None,
    };
    let params = wgpu::BufferSize::new(source.params_size);
    std::iter::once(entry(0, wgpu::BufferBindingType::Uniform, true, params))
        .chain(source.bindings.iter().zip(1..).map(|(access, binding)| {
            let read_only = *access == Access::Read;
            entry(binding, wgpu::BufferBindingType::Storage { read_only }, false, None)
        }))
        .collect()
}
