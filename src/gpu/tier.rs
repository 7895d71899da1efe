//! What a device can do, and as which class of device it is used.
use crate::{Error, Result};
use std::fmt;

/// What a device offers beyond the WebGPU core, decided once at opening.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tier {
    /// `shader-f16` is offered. No kernel needs it.
    pub f16: bool,
    /// Subgroup operations are offered. No kernel needs them.
    pub subgroups: bool,
    /// Smallest and largest subgroup size; the same twice on most devices.
    pub subgroup_size: [u32; 2],
    /// Timestamps inside passes are offered.
    pub timestamps: bool,
    /// A software driver that runs on the CPU.
    pub cpu: bool,
    /// Bytes one binding may span.
    pub max_binding: u64,
    /// Bytes one buffer may hold.
    pub max_buffer: u64,
    /// Workgroup memory in bytes.
    pub workgroup_memory: u32,
    /// Lanes of a workgroup in kernels that split a sum over lanes, where not those that suit the rest.
    #[serde(skip)]
    pub lanes: Option<u32>,
    /// A workgroup of so many lanes is one subgroup, as a trial at opening has shown.
    #[serde(skip)]
    pub one_subgroup: bool,
    /// The device unpacks the smallest halves to zeros, as a trial at opening has shown: kernels unpack by integers.
    #[serde(skip)]
    pub half_by_bits: bool,
}

impl Tier {
    /// What an adapter says of itself.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        let (features, limits, info) = (adapter.features(), adapter.limits(), adapter.get_info());
        Self {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            lanes: None,
            one_subgroup: false,
            half_by_bits: false,
        }
    }

    /// Lanes of a workgroup in kernels that split a sum over lanes: one vector register of a software driver, so that
    /// its barriers cost nothing; one subgroup where those are wide; otherwise a size that suits every GPU.
    pub fn lanes(&self) -> u32 {
        self.lanes.unwrap_or(match self.subgroup_size[0] {
            least if self.cpu && self.subgroups => least.clamp(4, 16),
            // A browser that offers no subgroups may tell of any size.
            _ if self.cpu => 8,
            least if self.subgroups && (32..=64).contains(&least) => least,
            _ => 64,
        })
    }

    /// Lanes of a workgroup that may be taken for one subgroup where a trial finds it so. Where sizes are a range that
    /// begins below, drivers choose anew for each kernel, and a trial with one speaks for no other. For Metal, which tells
    /// no sizes, 4 to 64 is said, but Apple's own GPUs have 32.
    pub(crate) fn may_be_one_subgroup(&self, name: &str) -> Option<u32> {
        let [least, most] = self.subgroup_size;
        let apple = !self.cpu && most >= 32 && name.to_lowercase().contains("apple");
        let lanes = if apple && self.lanes() > least { 32 } else { self.lanes() };
        (self.subgroups && (apple || lanes <= least)).then_some(lanes)
    }

    /// Lanes of a workgroup that walks over a whole vocabulary or cache by itself: so many that none of them loops too
    /// long ([`super::MOST_ITERATIONS`]).
    pub fn lanes_alone(&self) -> u32 {
        if self.cpu { 128 } else { 256 }
    }
}

/// As which class of device an adapter is opened. A software driver can stand in for GPUs and then runs the kernels that
/// those would, within the limits that every WebGPU device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// As `$BROOKLET_AS` names if set, else as what it is.
    #[default]
    Own,
    /// A GPU that says its subgroups have 32 lanes.
    Gpu32,
    /// A GPU that says its subgroups have 64 lanes.
    Gpu64,
    /// A GPU without subgroups.
    GpuPlain,
    /// A GPU whose subgroups, and workgroups, are as wide as the adapter's.
    GpuSubgroup,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "itself",
            Self::Gpu32 => "gpu32",
            Self::Gpu64 => "gpu64",
            Self::GpuPlain => "gpu-plain",
            Self::GpuSubgroup => "gpu-subgroup",
        })
    }
}

impl Class {
    /// Every class of GPUs.
    pub const GPUS: [Self; 4] = [Self::Gpu32, Self::Gpu64, Self::GpuPlain, Self::GpuSubgroup];

    /// By its name; `gpu` is what most GPUs are, `gpu32`.
    pub fn parse(name: &str) -> Result<Self> {
        let wanted = if name == "gpu" { "gpu32" } else { name };
        Self::GPUS.into_iter().find(|class| class.to_string() == wanted).ok_or_else(|| {
            let names = Self::GPUS.map(|class| class.to_string()).join(", ");
            Error::Usage(format!("there is no class of devices called {name:?}; there are {names}"))
        })
    }

    /// What `$BROOKLET_AS` names, where nothing else is wanted.
    pub(super) fn or_environment(self) -> Result<Self> {
        match (self, std::env::var("BROOKLET_AS")) {
            (Self::Own, Ok(name)) if !name.is_empty() => Self::parse(&name),
            _ => Ok(self),
        }
    }

    /// What is asked of an adapter that can do so much: of a GPU no more than every WebGPU device has.
    pub(super) fn limits(self, able: wgpu::Limits) -> wgpu::Limits {
        match self {
            Self::Own => able,
            _ => wgpu::Limits {
                // Kernels that count their loops bind one more than any others, which a test holds to the least.
                max_storage_buffers_per_shader_stage: if cfg!(test) { 9 } else { 8 },
                ..wgpu::Limits::defaults()
            }
            .or_worse_values_from(&able),
        }
    }

    /// What such a device has, where the adapter has so much.
    pub(super) fn tier(self, own: Tier) -> Tier {
        let limits = wgpu::Limits::defaults();
        let subgroup_size = match self {
            Self::Own => return own,
            Self::Gpu32 => [32; 2],
            Self::Gpu64 => [64; 2],
            Self::GpuPlain | Self::GpuSubgroup => own.subgroup_size,
        };
        Tier {
            lanes: (self == Self::GpuSubgroup).then_some(subgroup_size[0]),
            subgroups: own.subgroups && self != Self::GpuPlain,
            subgroup_size,
            cpu: false,
            max_binding: own.max_binding.min(limits.max_storage_buffer_binding_size),
            max_buffer: own.max_buffer.min(limits.max_buffer_size),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            ..own
        }
    }
}
