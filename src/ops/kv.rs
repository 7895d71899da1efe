//! How keys and values are stored, and the kernels that read or store them: one for both kinds of floats, and one for
//! each type of blocks.
use super::formats::kept;
use crate::gpu::{Access, KernelSource};
use crate::shaders::{Files, Wgsl, files};
use crate::{Error, Result};

/// How K and V are stored. Sums are f32 always.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Half precision, packed in pairs; needs no `shader-f16`.
    #[default]
    F16,
    /// Single precision.
    F32,
    /// Blocks of 32 dimensions of a head: signed bytes with a scale in half precision, as ggml has it.
    Q8_0,
    /// Blocks of 32 dimensions of a head: four bits each with a scale in half precision, as ggml has it.
    Q4_0,
}

/// Dimensions of a block.
const BLOCK: usize = 32;

impl KvType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::F16, Self::F32, Self::Q8_0, Self::Q4_0];

    /// As settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Words of eight dimensions' quants, where it is a type of blocks.
    fn eight_words(self) -> Option<usize> {
        match self {
            Self::F16 | Self::F32 => None,
            Self::Q8_0 => Some(2),
            Self::Q4_0 => Some(1),
        }
    }

    /// Whether several dimensions share a scale: what is stored is rounded, and cannot be turned again without another
    /// rounding.
    pub fn in_blocks(self) -> bool {
        self.eight_words().is_some()
    }

    /// Whether heads of this size can be stored so.
    pub fn fits(self, head_dim: usize) -> bool {
        !self.in_blocks() || head_dim.is_multiple_of(BLOCK)
    }

    /// An error unless heads of this size can be stored so.
    pub fn expect_heads(self, head_dim: usize) -> Result<()> {
        match self.fits(head_dim) {
            true => Ok(()),
            false => Err(Error::Setting {
                which: "kv",
                found: self.name().to_owned(),
                works: format!(
                    "its blocks are of {BLOCK} dimensions, and this model has heads of {head_dim}, which is no multiple of \
                     them; f16 or f32 works"
                ),
            }),
        }
    }

    /// The type that takes less, if there is one.
    pub fn smaller(self) -> Option<Self> {
        match self {
            Self::F32 => Some(Self::F16),
            Self::F16 => Some(Self::Q8_0),
            Self::Q8_0 => Some(Self::Q4_0),
            Self::Q4_0 => None,
        }
    }

    /// Slots that share a row of a cache's tensor.
    pub fn row_slots(self) -> usize {
        if self.in_blocks() { 4 } else { 1 }
    }

    /// Words of such a row: `shaders/lib/kv.wgsl` and `shaders/lib/kv_blocks.wgsl`.
    pub fn row_words(self, kv_heads: usize, head_dim: usize) -> usize {
        let slot = match self {
            Self::F16 => head_dim / 2,
            Self::F32 => head_dim,
            Self::Q8_0 | Self::Q4_0 => {
                let quants = head_dim / 8 * self.eight_words().unwrap_or(0);
                // The halves of two blocks share a word.
                quants + head_dim.div_ceil(2 * BLOCK)
            }
        };
        self.row_slots() * kv_heads * slot
    }

    /// The shape of a cache's tensor of keys or of values.
    pub fn shape(self, slots: usize, kv_heads: usize, head_dim: usize) -> [usize; 2] {
        [slots.div_ceil(self.row_slots()), self.row_words(kv_heads, head_dim)]
    }

    /// The value of the override that tells the floats apart.
    pub(super) fn is_f16(self) -> f64 {
        f64::from(u8::from(self == Self::F16))
    }
}

/// A kernel file that reads or stores keys and values.
#[derive(Clone, Copy)]
pub struct ForKv {
    /// The file's stem, and what its name ends in.
    pub(super) stem: &'static str,
    pub(super) suffix: &'static str,
    /// What it needs whatever the type.
    pub(super) libraries: Files,
    /// How it gets at floats, and at blocks.
    pub(super) floats: Files,
    pub(super) blocks: Files,
    pub(super) file: Files,
    /// See `KernelSource`.
    pub(super) bindings: &'static [Access],
    pub(super) params_size: u64,
    pub(super) subgroups: bool,
}

impl ForKv {
    /// Keys and values are read, and not stored.
    pub(super) const READ: [Files; 2] = [
        files!["lib/eight.wgsl", "lib/unpack_half.wgsl", "lib/kv.wgsl"],
        files!["lib/eight.wgsl", "lib/unpack_half.wgsl", "lib/kv_blocks.wgsl"],
    ];

    /// The kernel for one type.
    pub fn of(&self, kv: KvType) -> KernelSource {
        let (access, own) = match kv {
            KvType::F16 | KvType::F32 => (self.floats, files![]),
            KvType::Q8_0 => (self.blocks, files!["lib/kv_q8_0.wgsl"]),
            KvType::Q4_0 => (self.blocks, files!["lib/kv_q4_0.wgsl"]),
        };
        let Self { stem, suffix, .. } = self;
        let name = match kv.in_blocks() {
            true => kept(format!("{stem}_{}{suffix}", kv.name())),
            false => kept(format!("{stem}{suffix}")),
        };
        KernelSource {
            name,
            wgsl: Wgsl::joined([self.libraries, access, own, self.file]),
            bindings: self.bindings,
            params_size: self.params_size,
            subgroups: self.subgroups,
        }
    }

    /// The kernels of all types; what two types share is there once.
    pub fn all(&self) -> Vec<KernelSource> {
        let mut all: Vec<_> = KvType::ALL.map(|kv| self.of(kv)).into();
        all.dedup_by_key(|source| source.name);
        all
    }
}
