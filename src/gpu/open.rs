//! From a wish for an adapter to an open device, and what that device can do.
use super::Counters;
use super::faults::{Faults, error_of};
use super::kernel::Kernels;
#[cfg(not(target_arch = "wasm32"))]
use super::pipelines::Pipelines;
use super::tier::{Class, Tier};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use web_time::Instant;

/// Which adapter the user wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// `$BROOKLET_ADAPTER` if set, else the best one: discrete, integrated, virtual, software.
    #[default]
    Best,
    /// By its place in [`adapters`].
    Index(usize),
    /// By a part of its name, driver or backend, whatever the case.
    Name(String),
}

impl AdapterChoice {
    /// A number is an index, anything else a name.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index)
    }
}

/// One line of `brooklet devices`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterReport {
    /// What `--adapter` takes.
    pub index: usize,
    /// The device's name.
    pub name: String,
    /// Vulkan, Metal, Dx12 or BrowserWebGpu.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// Discrete, integrated, virtual or CPU.
    pub kind: String,
    /// What it can do.
    pub tier: Tier,
}

/// What a browser says of its adapter and wgpu 30 does not pass on.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct BrowserAdapter {
    /// The device's name, as far as the browser tells it.
    pub name: String,
    /// The driver or architecture.
    pub driver: String,
    /// A software driver that runs on the CPU.
    pub cpu: bool,
    /// Subgroups are offered, and will be asked for beside what wgpu asks for.
    pub subgroups: bool,
}

/// A device and its queue.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) faults: Arc<Faults>,
    pub(super) kernels: Kernels,
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) pipelines: Pipelines,
    last_compiled: Mutex<Option<Instant>>,
    /// Kernels count the iterations of their loops.
    #[cfg(test)]
    pub(crate) counts_loops: bool,
    /// What this device can do.
    pub tier: Tier,
    /// The adapter's name.
    pub name: String,
    /// The backend's name.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// What has been asked of the device so far.
    pub counters: Arc<Counters>,
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.backend_options.noop.enable = backends.contains(wgpu::Backends::NOOP);
    descriptor.flags = wgpu::InstanceFlags::empty();
    // An allocation that would push the machine into swapping is refused instead.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    wgpu::Instance::new(descriptor)
}

/// The one adapter that is there, or that the system thinks fastest.
async fn fastest(backends: wgpu::Backends) -> Result<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance(backends).request_adapter(&options).await;
    adapter.map_err(|e| Error::NoAdapter(e.to_string()))
}

fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    AdapterReport {
        index,
        name: info.name,
        backend: format!("{:?}", info.backend),
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        kind: format!("{:?}", info.device_type),
        tier: Tier::of(adapter),
    }
}

async fn usable() -> Vec<wgpu::Adapter> {
    let mut adapters =
        instance(wgpu::Backends::PRIMARY).enumerate_adapters(wgpu::Backends::PRIMARY).await;
    // Never a null device that fakes results.
    adapters.retain(|adapter| adapter.get_info().backend != wgpu::Backend::Noop);
    adapters
}

/// Every adapter of this machine that can run the engine, in the order `--adapter` counts them.
pub async fn adapters() -> Vec<AdapterReport> {
    usable().await.iter().enumerate().map(|(index, adapter)| report(index, adapter)).collect()
}

fn rank(adapter: &wgpu::Adapter) -> u32 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter> {
    let mut adapters = usable().await;
    if adapters.is_empty() {
        return Err(Error::NoAdapter(
            "no Vulkan, Metal or DX12 driver was found; install one (a software driver will do: \
             mesa-vulkan-drivers on Debian, Ubuntu and Fedora, vulkan-swrast on Arch)"
                .to_owned(),
        ));
    }
    let reports: Vec<_> = adapters.iter().enumerate().map(|(i, a)| report(i, a)).collect();
    let found = match choice {
        AdapterChoice::Best => (0..adapters.len()).min_by_key(|&i| rank(&adapters[i])),
        AdapterChoice::Index(index) => Some(*index).filter(|&i| i < adapters.len()),
        AdapterChoice::Name(name) => {
            let name = name.to_lowercase();
            reports.iter().position(|r| {
                format!("{} {} {}", r.name, r.driver, r.backend).to_lowercase().contains(&name)
            })
        }
    };
    let Some(index) = found else {
        let wanted = match choice {
            AdapterChoice::Name(name) => format!("none is called {name:?}"),
            _ => "none has that index".to_owned(),
        };
        let list: Vec<_> = reports.iter().map(|r| format!("{} = {}", r.index, r.name)).collect();
        return Err(Error::NoAdapter(format!("{wanted}; this machine has {}", list.join(", "))));
    };
    Ok(adapters.swap_remove(index))
}

impl Gpu {
    /// Opens the chosen adapter. Fails rather than fall back to another.
    pub async fn open(choice: AdapterChoice) -> Result<Self> {
        Self::open_as(choice, Class::Own).await
    }

    /// Opens the chosen adapter as a device of another class.
    pub async fn open_as(choice: AdapterChoice, class: Class) -> Result<Self> {
        Self::opened(choice, class).await?.tried_out().await
    }

    /// The chosen adapter as a device of a class, of which nothing has been tried out.
    async fn opened(choice: AdapterChoice, class: Class) -> Result<Self> {
        let choice = match (choice, std::env::var("BROOKLET_ADAPTER")) {
            (AdapterChoice::Best, Ok(wish)) if !wish.is_empty() => AdapterChoice::parse(&wish),
            (choice, _) => choice,
        };
        let class = class.or_environment()?;
        let adapter = choose(&choice).await?;
        let mut report = report(0, &adapter);
        if class != Class::Own {
            report.name = format!("{} as {class}", report.name);
            report.tier = class.tier(report.tier);
        }
        Self::with_adapter(adapter, report, class).await
    }

    /// Opens the chosen adapter as a device of a class, and takes what drivers have compiled before from `folder`;
    /// [`Gpu::keep_pipelines`] puts it there.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open_with(
        choice: AdapterChoice,
        class: Class,
        folder: &std::path::Path,
    ) -> Result<Self> {
        let mut gpu = Self::opened(choice, class).await?;
        gpu.pipelines = Pipelines::open(&gpu.device, &gpu.device.adapter_info(), folder);
        gpu.tried_out().await
    }

    /// Opens the adapter that the browser gives.
    pub async fn open_in_browser(browser: BrowserAdapter) -> Result<Self> {
        let adapter = fastest(wgpu::Backends::PRIMARY).await?;
        let mut report = report(0, &adapter);
        report.name = browser.name;
        report.driver = browser.driver;
        report.tier.cpu |= browser.cpu;
        report.tier.subgroups = browser.subgroups;
        Self::with_adapter(adapter, report, Class::Own).await?.tried_out().await
    }

    /// A device that computes nothing, on purpose: what is left is what the host does.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open_noop() -> Result<Self> {
        let adapter = fastest(wgpu::Backends::NOOP).await?;
        let mut report = report(0, &adapter);
        // What the leanest device has: the kernels' variants follow from it.
        report.tier = Tier { subgroups: false, cpu: false, ..report.tier };
        Self::with_adapter(adapter, report, Class::Own).await
    }

    async fn with_adapter(
        adapter: wgpu::Adapter,
        report: AdapterReport,
        class: Class,
    ) -> Result<Self> {
        let mut wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::PIPELINE_CACHE;
        wanted.set(wgpu::Features::SUBGROUP, class != Class::GpuPlain);
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("brooklet"),
                required_features: adapter.features() & wanted,
                required_limits: class.limits(adapter.limits()),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::NoDevice(e.to_string()))?;
        let (faults, counters) = (Arc::new(Faults::default()), Arc::new(Counters::default()));
        let (seen, counted) = (faults.clone(), counters.clone());
        // What is made is watched by itself; this hears of the rest.
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            seen.note(error_of(error, "what was asked of the device", counted.held()));
        }));
        let seen = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            seen.lose(format!("{reason:?}: {message}"));
        });
        let AdapterReport { tier, name, backend, driver, .. } = report;
        Ok(Self {
            device,
            queue,
            faults,
            kernels: Kernels::default(),
            #[cfg(not(target_arch = "wasm32"))]
            pipelines: Pipelines::default(),
            last_compiled: Mutex::default(),
            #[cfg(test)]
            counts_loops: false,
            tier,
            name,
            backend,
            driver,
            counters,
        })
    }

    /// Notes a pipeline that was there `at` this time.
    pub(super) fn compiled(&self, at: Instant) {
        Counters::add(&self.counters.objects, 1);
        let mut last = self.last_compiled.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(at));
    }

    /// When the last pipeline was there.
    pub(crate) fn last_compiled(&self) -> Option<Instant> {
        *self.last_compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses the device on purpose, as a driver reset would.
    pub fn destroy(&self) {
        // wgpu tells of it only once all that was submitted is done.
        self.faults.lose("it was destroyed".to_owned());
        self.device.destroy();
    }
}
