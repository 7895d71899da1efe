//! The tensors of a folder, in one file or several.
use crate::format::DType;
use crate::format::source::FileSource;
use crate::{Error, Result};
use half::{bf16, f16};
use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

/// No list of tensors is longer.
const LONGEST_HEAD: u64 = 64 << 20;

/// The files.
#[derive(Debug)]
pub(super) struct Tensors(Vec<FileSource>);

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) dtype: DType,
    file: usize,
    offset: u64,
}

impl Tensors {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let index = folder.join("model.safetensors.index.json");
        let names: BTreeSet<String> = match index.exists() {
            false => ["model.safetensors".to_owned()].into(),
            true => {
                let json = super::config::json(&index)?;
                let map = json.get("weight_map").and_then(|map| map.as_object());
                let files = map.into_iter().flatten().filter_map(|(_, file)| file.as_str());
                files.map(str::to_owned).collect()
            }
        };
        let open = |name: &String| {
            // A name is no path: what lies elsewhere is not of this folder.
            let plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
            match plain {
                true => FileSource::open(&folder.join(name)),
                false => {
                    let text =
                        format!("{}: the file {name:?} is not in the folder", index.display());
                    Err(Error::Unsupported(text))
                }
            }
        };
        names.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// All tensors of all files.
    pub(super) fn all(&self) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        for (file, source) in self.0.iter().enumerate() {
            use crate::format::Source;
            let fault = |detail: String| Error::Format {
                file: source.name().to_owned(),
                offset: 0,
                detail,
            };
            let text = |error: safetensors::SafeTensorError| {
                fault(format!(
                    "this is no safetensors file, or not all of it is here ({error}); get it anew"
                ))
            };
            let len = source.len();
            if len < 8 {
                return Err(fault(format!("{len} bytes are no safetensors file; get it anew")));
            }
            let bytes = self.bytes(file, 0, len)?;
            let head = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
            if head > LONGEST_HEAD {
                return Err(fault(format!(
                    "a list of tensors of {head} bytes: this is no safetensors file"
                )));
            }
            let (head, metadata) = SafeTensors::read_metadata(&bytes).map_err(text)?;
            for (name, info) in metadata.tensors() {
                let dtype = match info.dtype {
                    Dtype::F32 => DType::F32,
                    Dtype::F16 => DType::F16,
                    Dtype::BF16 => DType::BF16,
                    other => {
                        return Err(Error::Unsupported(format!(
                            "{}: tensor {name} has type {other:?}; F32, F16 and BF16 can be read",
                            source.name()
                        )));
                    }
                };
                let shape = info.shape.iter().map(|&size| size as u64).collect();
                let offset = 8 + head as u64 + info.data_offsets.0 as u64;
                all.push(Stored { name, shape, dtype, file, offset });
            }
        }
        // So that the first that is at fault is always the same one.
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn bytes(&self, file: usize, start: u64, end: u64) -> Result<Cow<'_, [u8]>> {
        use crate::format::Source;
        block_on(self.0[file].bytes(start..end))
    }

    /// Some values of a tensor, from the one with this number on. They are there: the list of tensors was held to the
    /// file, and the shape to the list.
    pub(super) fn row(&self, stored: &Stored, first: u64, out: &mut [f32]) {
        let size = stored.dtype.block_bytes() as u64;
        let start = stored.offset + first * size;
        let Ok(bytes) = self.bytes(stored.file, start, start + out.len() as u64 * size) else {
            out.fill(f32::NAN);
            return;
        };
        match stored.dtype {
            DType::F16 => each(&bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            DType::BF16 => each(&bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => each(&bytes, out, f32::from_le_bytes),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.chunks_exact(N).zip(out) {
        *out = value(bytes.try_into().unwrap_or([0; N]));
    }
}
