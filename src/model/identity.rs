//! Which model this is, told without reading its weights again.
use crate::Result;
use crate::format::{Gguf, Value};
use crate::gpu::{Gpu, Tensor};
use sha2::{Digest, Sha256};

/// What a stream is tied to. Two files are taken for the same model when their hashes are equal.
#[derive(Clone, Debug, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `general.name`, for people.
    pub name: String,
    /// SHA-256, in hexadecimal, over the file's head (metadata, vocabulary, table of tensors, as JSON) and the
    /// numbers of `output_norm.weight`. The head alone would be the same for two trainings of one model; the norm,
    /// which every training changes, is a few KiB. The other weights do not count.
    pub hash: String,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// What is written is hashed, and not kept: a vocabulary has megabytes.
struct Hash(Sha256);

impl std::io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Identity {
    /// Of a head and of the norm as it lies on the device: a source that is being downloaded cannot be asked twice.
    pub(super) async fn of(gpu: &Gpu, gguf: &Gguf, output_norm: &Tensor) -> Result<Self> {
        let mut hash = Hash(Sha256::new());
        let table = gguf.tensors.iter().map(|t| (&t.name, t.type_id, &t.dims, t.offset));
        let table: Vec<_> = table.collect();
        serde_json::to_writer(&mut hash, &(gguf.version, &gguf.metadata, table))
            .map_err(|e| crate::Error::Io { path: gguf.file().to_owned(), source: e.into() })?;
        let norm: Vec<u8> = bytemuck::cast_slice(&output_norm.read::<u32>(gpu).await?).to_vec();
        hash.0.update(&norm);
        let name = match gguf.get("general.name") {
            Some(Value::String(name)) => name.chars().take(80).collect(),
            _ => String::new(),
        };
        Ok(Self { name, hash: hash.0.finalize().iter().map(|b| format!("{b:02x}")).collect() })
    }

    /// For messages: the name and the first digits.
    pub fn short(&self) -> String {
        format!("{:?} ({})", self.name, self.hash.get(..12).unwrap_or(&self.hash))
    }
}
