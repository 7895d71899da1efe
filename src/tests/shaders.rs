//! Holds every WGSL file and its Rust half together. Needs no GPU.
use crate::gpu::Access;
use crate::ops::kernels;
use naga::{AddressSpace, StorageAccess, TypeInner};
use std::collections::BTreeSet;

#[test]
fn every_kernel_is_valid_and_bound_as_its_source_says() {
    for kernel in kernels() {
        let (name, text) = (kernel.name, kernel.wgsl.text());
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
        // Nothing beyond the WebGPU core, of which packing halves into a u32 is a part.
        let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(naga::valid::Capabilities::SUBGROUP, kernel.subgroups);
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
        let mut bindings: Vec<_> = module
            .global_variables
            .iter()
            .filter_map(|(_, v)| v.binding.map(|b| (b.binding, v.space, v.ty)))
            .collect();
        bindings.sort_by_key(|(binding, ..)| *binding);

        let (binding, space, ty) = bindings[0];
        let TypeInner::Struct { span, .. } = module.types[ty].inner else { panic!("{name}") };
        let read_only = AddressSpace::Storage { access: StorageAccess::LOAD };
        assert_eq!((binding, space), (0, read_only), "{name}: binding 0");
        assert_eq!(u64::from(span), kernel.params_size, "{name}: size of Params");

        let found: Vec<_> = bindings[1..]
            .iter()
            .map(|(_, space, _)| match space {
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                    Access::Write
                }
                AddressSpace::Storage { .. } => Access::Read,
                other => panic!("{name}: {other:?}"),
            })
            .collect();
        assert_eq!(found, kernel.bindings, "{name}: bindings");
        assert!(bindings.len() <= 8, "{name}: more storage buffers than every device has");
    }
}

#[test]
fn a_kernel_is_called_what_no_other_is_and_has_no_file_twice() {
    let mut names = BTreeSet::new();
    for kernel in kernels() {
        assert!(names.insert(kernel.name), "two kernels are called {}", kernel.name);
        let mut files = BTreeSet::new();
        for file in kernel.wgsl.files() {
            assert!(files.insert(file.path), "{} is in {} twice", file.path, kernel.name);
        }
    }
}

/// A device may take the smallest halves for zeros: there is one place that knows what to do then.
#[test]
fn halves_are_unpacked_in_one_way() {
    for kernel in kernels() {
        let calls = kernel.wgsl.text().matches("unpack2x16float(").count();
        let by_either_way = kernel.wgsl.contains("override HALF_BY_BITS:");
        assert_eq!(calls, usize::from(by_either_way), "{}", kernel.name);
    }
}

#[test]
fn every_filter_of_the_sampler_has_a_twin_of_its_name() {
    let here = |path: &str| {
        std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let device = here("shaders/sample_select.wgsl") + &here("shaders/sample.wgsl");
    let host = here("src/text/sampler.rs");
    for filter in ["penalties", "top_k", "top_p", "min_p", "draw"] {
        for text in [&device, &host] {
            assert!(text.contains(&format!("fn {filter}(")), "there is no fn {filter}");
        }
    }
}

/// Stems of the WGSL files of a folder.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = format!("{}/shaders/{folder}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (stem, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_kernel_file_is_compiled_somewhere() {
    for (stem, text) in files("") {
        assert!(kernels().iter().any(|kernel| kernel.wgsl.contains(&text)), "{stem}.wgsl");
    }
    for (stem, text) in files("lib") {
        assert!(kernels().iter().any(|kernel| kernel.wgsl.contains(&text)), "lib/{stem}.wgsl");
    }
}

#[test]
fn every_kernel_and_library_opens_with_what_it_is() {
    for (stem, text) in files("") {
        for part in [&format!("// {stem} — "), "binding  name", "grid:", "requires:", "twin:"] {
            assert!(text.contains(part), "{stem}.wgsl does not say {part:?}");
        }
        let line = text.lines().find(|line| line.contains("twin:")).unwrap();
        let (_, twin) = line.rsplit_once(' ').unwrap();
        let twin = format!("{}/{twin}", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&twin).exists(), "{stem}.wgsl: {twin}");
    }
    for (stem, text) in files("lib") {
        assert!(text.starts_with(&format!("// lib/{stem}.wgsl — ")), "lib/{stem}.wgsl");
    }
}
