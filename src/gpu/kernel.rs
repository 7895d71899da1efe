//! A compute pipeline made from WGSL files that live in `shaders/`.
use super::Gpu;
use super::faults::Scopes;
#[cfg(not(target_arch = "wasm32"))]
use super::told::elsewhere;
use crate::shaders::{Wgsl, file};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use web_time::Instant;

/// How a kernel touches one binding. Binding 0 is always `Params`, read-only storage: lavapipe of Mesa 22.3
/// compiles a kernel anew at each dispatch for the values of a uniform that its loops depend on, and keeps them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
}

/// What is known of a kernel before there is a device: a `const` of each op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelSource {
    /// The pipeline's label: the file's stem, then the format it was joined with.
    pub name: &'static str,
    /// The files of its source: libraries, then the kernel's own. They are joined when it is compiled.
    pub wgsl: Wgsl,
    /// Bindings 1.. in order.
    pub bindings: &'static [Access],
    /// The size of `Params`.
    pub params_size: u64,
    /// Subgroup operations are used.
    pub subgroups: bool,
}

impl KernelSource {
    /// The source as a browser wants it: naga rejects the directive that browsers demand.
    pub fn for_browsers(&self) -> String {
        let directive = if self.subgroups { file("enable/subgroups.wgsl").text } else { "" };
        directive.to_owned() + &self.wgsl.text()
    }
}

/// A compiled kernel. A clone is the same kernel.
#[derive(Clone)]
pub struct Kernel {
    /// What it was made from.
    pub source: KernelSource,
    constants: Overrides,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Values for `override`s, by name.
type Overrides = Vec<(&'static str, f64)>;

/// What a device has compiled: a session with other settings, or a second model, asks for much of it again.
/// It is kept as long as the device.
#[derive(Default)]
pub(super) struct Kernels(Mutex<HashMap<Key, Kernel>>);

/// What its source is joined from, and the bits of its overrides' values.
type Key = (KernelSource, Vec<(&'static str, u64)>);

impl Kernels {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kernel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Gpu {
    /// Every kernel that was made, with its overrides.
    pub(crate) fn kernels_made(&self) -> Vec<(KernelSource, Overrides)> {
        let made = self.kernels.lock();
        made.values().map(|kernel| (kernel.source, kernel.constants.clone())).collect()
    }
}

impl Kernel {
    /// Compiles `source` for workgroups of as many lanes as suit the device, and with no other override.
    pub async fn plain(gpu: &Gpu, source: KernelSource) -> Result<Self> {
        Self::new(gpu, source, [("WG", f64::from(gpu.tier.lanes()))]).await
    }

    /// Compiles `source` with the given values for those of its `override`s that are among them, or gives what the
    /// device has compiled of just that before. Kernels whose futures are polled together are compiled side by side.
    pub async fn new(
        gpu: &Gpu,
        source: KernelSource,
        overrides: impl AsRef<[(&'static str, f64)]>,
    ) -> Result<Self> {
        // A value for an override that the kernel does not have would be an error.
        let declared = |name: &str| source.wgsl.contains(&format!("override {name}:"));
        let by_bits = gpu.tier.half_by_bits.then_some(("HALF_BY_BITS", 1.0));
        let overrides = overrides.as_ref().iter().copied().chain(by_bits);
        let overrides: Overrides = overrides.filter(|(name, _)| declared(name)).collect();
        let constants = overrides.clone();
        let bits = overrides.iter().map(|&(name, value)| (name, value.to_bits())).collect();
        let key = (source, bits);
        if let Some(kernel) = gpu.kernels.lock().get(&key) {
            return Ok(kernel.clone());
        }
        let compiled = match () {
            #[cfg(test)]
            () if gpu.counts_loops => super::counted::counting(source),
            () => source,
        };
        let refused = |detail| Error::Kernel { kernel: source.name, detail };
        #[cfg(test)]
        super::within::refuse(&gpu.tier, &source, &overrides).map_err(refused)?;
        let (made, at) = Self::compiled(gpu, compiled, overrides).await;
        gpu.compiled(at);
        let (layout, pipeline) = made.map_err(refused)?;
        let kernel = Self { source, constants, pipeline, layout };
        gpu.kernels.lock().insert(key, kernel.clone());
        Ok(kernel)
    }

    /// See [`super::ran`].
    #[cfg(test)]
    pub(super) fn note_run(&self, gpu: &Gpu) {
        super::ran::note(gpu, &self.source, &self.constants);
    }

    /// Lanes of its workgroups: the value of its override `WG`.
    pub fn lanes(&self) -> u32 {
        let found = self.constants.iter().find(|(name, _)| *name == "WG");
        found.map_or(1, |(_, lanes)| *lanes as u32)
    }

    /// A driver compiles on the thread that calls it.
    #[cfg(not(target_arch = "wasm32"))]
    async fn compiled(gpu: &Gpu, source: KernelSource, overrides: Overrides) -> Compiled {
        let (device, cache) = (gpu.device.clone(), gpu.pipelines.cache());
        let compiling = gpu.pipelines.compiling();
        let made = elsewhere(move || {
            let _last_dropped = compiling;
            let (device, cache) = (device, cache);
            pollster::block_on(compile(&device, cache.as_ref(), source, &overrides))
        });
        made.await.unwrap_or_else(|panic| (Err(panic), Instant::now()))
    }

    /// A browser compiles elsewhere; what is awaited is its verdict.
    #[cfg(target_arch = "wasm32")]
    async fn compiled(gpu: &Gpu, source: KernelSource, overrides: Overrides) -> Compiled {
        let _held = super::ahead::compile(&gpu.device, &source, &overrides).await;
        compile(&gpu.device, None, source, &overrides).await
    }
}

/// What was made, or what the driver said; and when.
type Compiled = (Result<(wgpu::BindGroupLayout, wgpu::ComputePipeline), String>, Instant);

async fn compile(
    device: &wgpu::Device,
    cache: Option<&wgpu::PipelineCache>,
    source: KernelSource,
    overrides: &[(&str, f64)],
) -> Compiled {
    let label = Some(source.name);
    let scopes = Scopes::open(device);
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label,
        entries: &layout_entries(&source),
    });
    let descriptor = wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(match cfg!(target_arch = "wasm32") {
            true => source.for_browsers().into(),
            false => source.wgsl.text().into(),
        }),
    };
    // SAFETY: every index of our kernels follows from shapes that `record` has checked and
    // from token ids that the session has checked; every loop has a bound; no divisor is zero.
    #[allow(unsafe_code, reason = "bounds checks in the inner loop cost up to a third there")]
    let module = unsafe {
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        device.create_shader_module_trusted(descriptor, checks)
    };
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        ..Default::default()
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: overrides,
            // Our kernels write workgroup memory before they read it.
            zero_initialize_workgroup_memory: false,
        },
        cache,
    });
    let made = scopes.close().await.map_or(Ok((layout, pipeline)), |error| Err(error.to_string()));
    (made, Instant::now())
}

fn layout_entries(source: &KernelSource) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty, size| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: size },
        count: None,
    };
    let params = wgpu::BufferSize::new(source.params_size);
    std::iter::once(entry(0, wgpu::BufferBindingType::Storage { read_only: true }, params))
        .chain(source.bindings.iter().zip(1..).map(|(access, binding)| {
            let read_only = *access == Access::Read;
            entry(binding, wgpu::BufferBindingType::Storage { read_only }, None)
        }))
        .collect()
}
