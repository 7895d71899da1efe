//! RADV on a GPU that is not there: it compiles, and tells what it made.
use crate::shader::{Client, Shader};
use crate::{Fail, Result};
use ash::vk;
use std::collections::BTreeMap;
use std::ffi::CString;

/// A generation of AMD's GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// As RADV calls it.
    pub name: &'static str,
    /// As people call it.
    pub known_as: &'static str,
    /// Smallest and largest subgroup.
    pub subgroup_size: [u32; 2],
    /// Before RDNA.
    pub gcn: bool,
}

/// Those that are looked at.
pub const FAMILIES: [Family; 3] = [
    Family {
        name: "navi21",
        known_as: "RDNA2, Radeon RX 6800",
        subgroup_size: [32, 64],
        gcn: false,
    },
    Family {
        name: "navi31",
        known_as: "RDNA3, Radeon RX 7900",
        subgroup_size: [32, 64],
        gcn: false,
    },
    Family { name: "vega10", known_as: "GCN, Radeon RX Vega", subgroup_size: [64, 64], gcn: true },
];

/// What became of a shader.
pub struct Compiled {
    /// By the driver's own names, in lower case.
    pub statistics: BTreeMap<String, u64>,
    /// The final assembly.
    pub assembly: String,
    /// Lanes of a subgroup, as the driver chose or was told.
    pub subgroup: u32,
}

/// A device that only compiles.
pub struct Gpu {
    /// Kept, or the library would be unloaded.
    _entry: ash::Entry,
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    /// What it pretends to be.
    pub family: Family,
    /// The driver's name and version.
    pub driver: String,
}

impl Gpu {
    /// Opens `family` with the features that `client` asks for.
    pub fn open(family: Family, client: Client) -> Result<Self> {
        // SAFETY: nothing else runs yet that could read the environment; RADV does, below.
        unsafe { std::env::set_var("RADV_FORCE_FAMILY", family.name) };
        // SAFETY: Vulkan calls in the order of creation, with valid and living structures. Nothing is
        // destroyed: the process ends soon.
        unsafe {
            let entry =
                ash::Entry::load().map_err(|e| Fail(format!("there is no Vulkan loader ({e})")))?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&app);
            let instance = entry.create_instance(&info, None)?;
            let mut found = None;
            for physical in instance.enumerate_physical_devices()? {
                let mut driver = vk::PhysicalDeviceDriverProperties::default();
                let mut properties =
                    vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
                instance.get_physical_device_properties2(physical, &mut properties);
                let name =
                    properties.properties.device_name_as_c_str()?.to_string_lossy().into_owned();
                if name.to_lowercase().contains(family.name) {
                    let version = driver.driver_info_as_c_str()?.to_string_lossy().into_owned();
                    found = Some((physical, format!("RADV, {version}")));
                }
            }
            let (physical, driver) = found.ok_or_else(|| {
                Fail(format!(
                    "the Vulkan driver does not pretend to be {}: RADV is needed, and VK_DRIVER_FILES naming its manifest",
                    family.name
                ))
            })?;
            let device = device(&instance, physical, client)?;
            let executables =
                ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self { _entry: entry, device, executables, family, driver })
        }
    }

    /// Compiles one shader.
    pub fn compile(&self, shader: &Shader) -> Result<Compiled> {
        let device = &self.device;
        // SAFETY: as above; every handle was created here, from data that outlives the call.
        unsafe {
            let info = vk::ShaderModuleCreateInfo::default().code(&shader.spirv);
            let module = device.create_shader_module(&info, None)?;
            let layout = self.layout(shader)?;
            let entries: Vec<_> = (0..)
                .zip(&shader.constants)
                .map(|(at, (id, _))| vk::SpecializationMapEntry {
                    constant_id: *id,
                    offset: 4 * at,
                    size: 4,
                })
                .collect();
            let data: Vec<u8> =
                shader.constants.iter().flat_map(|(_, value)| value.to_ne_bytes()).collect();
            let constants = vk::SpecializationInfo::default().map_entries(&entries).data(&data);
            let name = CString::new(shader.entry.as_str())?;
            let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
            let mut stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&name)
                .specialization_info(&constants);
            stage = match shader.client {
                Client::Wgpu => {
                    stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                }
                Client::LlamaCpp { subgroup } => {
                    size = size.required_subgroup_size(subgroup);
                    stage
                        .flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS)
                        .push_next(&mut size)
                }
            };
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info =
                [vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout)];
            let pipeline = device
                .create_compute_pipelines(vk::PipelineCache::null(), &info, None)
                .map_err(|(_, error)| {
                    Fail(format!("{}: the driver does not compile it ({error})", shader.name))
                })?[0];
            let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let subgroup =
                self.executables.get_pipeline_executable_properties(&info)?[0].subgroup_size;
            let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
            let statistics = self.executables.get_pipeline_executable_statistics(&executable)?;
            let named = statistics.iter().filter_map(|statistic| {
                let name = statistic.name_as_c_str().ok()?.to_string_lossy().to_lowercase();
                Some((name, statistic.value.u64))
            });
            Ok(Compiled {
                statistics: named.collect(),
                assembly: self.assembly(&executable)?,
                subgroup,
            })
        }
    }

    /// # Safety
    /// The device lives.
    unsafe fn layout(&self, shader: &Shader) -> Result<vk::PipelineLayout> {
        // Binding 0 of wgpu's is a uniform with a dynamic offset. Here it is a plain one: then every
        // descriptor has 16 bytes, by which loads are told apart (traffic.rs). The loop is the same.
        let bindings: Vec<_> = (0..shader.bindings.len() as u32)
            .zip(&shader.bindings)
            .map(|(binding, uniform)| {
                let kind = match uniform {
                    true => vk::DescriptorType::UNIFORM_BUFFER,
                    false => vk::DescriptorType::STORAGE_BUFFER,
                };
                let entry = vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(kind);
                entry.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let push =
            [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(128)];
        // SAFETY: by the caller.
        unsafe {
            let sets = [self.device.create_descriptor_set_layout(&info, None)?];
            let mut info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            if shader.client != Client::Wgpu {
                info = info.push_constant_ranges(&push);
            }
            Ok(self.device.create_pipeline_layout(&info, None)?)
        }
    }

    /// # Safety
    /// The executable's pipeline lives.
    unsafe fn assembly(&self, executable: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let device = self.device.handle();
        // SAFETY: asked for the number, then the sizes, then the texts, into buffers of these sizes.
        unsafe {
            let mut count = 0;
            get(device, executable, &mut count, std::ptr::null_mut()).result()?;
            let mut found =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            get(device, executable, &mut count, found.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = found.iter().map(|one| vec![0; one.data_size]).collect();
            for (one, text) in found.iter_mut().zip(&mut texts) {
                one.p_data = text.as_mut_ptr().cast();
            }
            get(device, executable, &mut count, found.as_mut_ptr()).result()?;
            let assembly = found.iter().zip(texts).find(|(one, _)| {
                one.name_as_c_str().is_ok_and(|name| name.to_string_lossy().contains("ssembly"))
            });
            let (_, text) = assembly.ok_or_else(|| Fail("the driver shows no assembly".into()))?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
    }
}

/// # Safety
/// The instance lives, and `physical` is one of its devices.
unsafe fn device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    client: Client,
) -> Result<ash::Device> {
    let queues =
        [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let extensions = [
        ash::khr::pipeline_executable_properties::NAME.as_ptr(),
        ash::ext::robustness2::NAME.as_ptr(),
    ];
    let mut executable = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
        .pipeline_executable_info(true);
    // Both ask for checked buffers; wgpu for the stricter kind of check as well.
    let core = vk::PhysicalDeviceFeatures::default()
        .robust_buffer_access(true)
        .shader_int16(client != Client::Wgpu)
        .shader_int64(client != Client::Wgpu);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
        .robust_buffer_access2(client == Client::Wgpu);
    let mut vulkan11 =
        vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(true)
        .shader_int8(true)
        .storage_buffer8_bit_access(true);
    let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default()
        .subgroup_size_control(true)
        .compute_full_subgroups(true)
        .shader_integer_dot_product(true)
        .maintenance4(true);
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .enabled_features(&core)
        .push_next(&mut executable)
        .push_next(&mut robustness)
        .push_next(&mut vulkan11)
        .push_next(&mut vulkan12)
        .push_next(&mut vulkan13);
    // SAFETY: by the caller.
    Ok(unsafe { instance.create_device(physical, &info, None)? })
}
