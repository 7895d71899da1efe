//! The files of `shaders/`, each of which is in the binary once. A kernel's source is a list of them.
use std::fmt;

/// A file of WGSL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    /// Where it lies in `shaders/`.
    pub path: &'static str,
    /// What it says.
    pub text: &'static str,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

/// Files that are joined in this order.
pub type Files = &'static [&'static File];

/// A file of `shaders/`, read when the crate is compiled.
macro_rules! include_file {
    ($path:expr) => {
        $crate::shaders::File {
            path: $path,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path)),
        }
    };
}
pub(crate) use include_file;

macro_rules! include_files {
    ($($path:literal),+ $(,)?) => { &[$(include_file!($path)),+] };
}

/// Every file but the formats' own, which the table of formats includes.
static FILES: &[File] = include_files![
    "enable/subgroups.wgsl",
    "add_position.wgsl",
    "argmax.wgsl",
    "attention.wgsl",
    "attention_columns.wgsl",
    "attention_join.wgsl",
    "attention_one.wgsl",
    "attention_tiles.wgsl",
    "delta_net.wgsl",
    "experts.wgsl",
    "experts_rows.wgsl",
    "experts_tiles.wgsl",
    "gate.wgsl",
    "get_rows.wgsl",
    "get_rows_normed.wgsl",
    "group_experts.wgsl",
    "half_check.wgsl",
    "head_norm.wgsl",
    "matmul.wgsl",
    "matmul_columns.wgsl",
    "matmul_few.wgsl",
    "matmul_tiles.wgsl",
    "matvec.wgsl",
    "matvec_normed.wgsl",
    "matvec_residual.wgsl",
    "nll.wgsl",
    "norm.wgsl",
    "norm_added.wgsl",
    "peak.wgsl",
    "rope_store.wgsl",
    "route.wgsl",
    "sample.wgsl",
    "sample_select.wgsl",
    "shares.wgsl",
    "shift.wgsl",
    "short_conv.wgsl",
    "softcap.wgsl",
    "subgroup_check.wgsl",
    "sum_experts.wgsl",
    "lib/advance.wgsl",
    "lib/attention_params.wgsl",
    "lib/block.wgsl",
    "lib/eight.wgsl",
    "lib/epilogue.wgsl",
    "lib/folded.wgsl",
    "lib/four_rows.wgsl",
    "lib/four_rows_floats.wgsl",
    "lib/frame.wgsl",
    "lib/grouped.wgsl",
    "lib/half.wgsl",
    "lib/inputs.wgsl",
    "lib/int8.wgsl",
    "lib/iq4_codes.wgsl",
    "lib/kinds.wgsl",
    "lib/kv.wgsl",
    "lib/kv_blocks.wgsl",
    "lib/kv_blocks_store.wgsl",
    "lib/kv_q4_0.wgsl",
    "lib/kv_q8_0.wgsl",
    "lib/kv_store.wgsl",
    "lib/lanes.wgsl",
    "lib/lanes_subgroup.wgsl",
    "lib/many_rows.wgsl",
    "lib/mass.wgsl",
    "lib/moments.wgsl",
    "lib/nibbles.wgsl",
    "lib/onto.wgsl",
    "lib/plain.wgsl",
    "lib/random.wgsl",
    "lib/reads.wgsl",
    "lib/reads_broadcast.wgsl",
    "lib/reduce.wgsl",
    "lib/reduce4.wgsl",
    "lib/reduce_subgroup.wgsl",
    "lib/ring.wgsl",
    "lib/rope.wgsl",
    "lib/sampling.wgsl",
    "lib/scale_min.wgsl",
    "lib/score.wgsl",
    "lib/store_blocks.wgsl",
    "lib/store_pairs.wgsl",
    "lib/threshold.wgsl",
    "lib/unpack_half.wgsl",
];

/// The file at `path`, found when the crate is compiled.
pub(crate) const fn file(path: &str) -> &'static File {
    let mut i = 0;
    while i < FILES.len() {
        if same(FILES[i].path.as_bytes(), path.as_bytes()) {
            return &FILES[i];
        }
        i += 1;
    }
    panic!("src/shaders.rs does not list this file")
}

/// `==`, which a `const fn` does not have.
const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Files by their paths; one that is not listed is an error of the compiler.
macro_rules! files {
    ($($path:expr),* $(,)?) => {
        const { &[$($crate::shaders::file($path)),*] as $crate::shaders::Files }
    };
}
pub(crate) use files;

/// What a kernel's source is joined from. WGSL does not mind the order of declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wgsl {
    lists: [Files; 4],
}

impl Wgsl {
    /// Of these files alone.
    pub const fn of(files: Files) -> Self {
        Self::joined([files, &[], &[], &[]])
    }

    /// Of several lists, one after another.
    pub const fn joined(lists: [Files; 4]) -> Self {
        Self { lists }
    }

    /// Of a source that is in no file, kept as long as the program.
    #[cfg(test)]
    pub(crate) fn of_text(path: &'static str, text: String) -> Self {
        let file = Box::leak(Box::new(File { path, text: text.leak() }));
        Self::of(vec![&*file].leak())
    }

    /// The files in order.
    pub fn files(&self) -> impl Iterator<Item = &'static File> {
        self.lists.into_iter().flatten().copied()
    }

    /// The whole source.
    pub fn text(&self) -> String {
        let texts: Vec<_> = self.files().map(|file| file.text).collect();
        texts.join("\n")
    }

    /// Whether a file says this.
    pub fn contains(&self, words: &str) -> bool {
        self.files().any(|file| file.text.contains(words))
    }
}

/// The source that is joined from these files.
macro_rules! wgsl {
    ($($path:literal),+ $(,)?) => {
        $crate::shaders::Wgsl::of($crate::shaders::files!($($path),+))
    };
}
pub(crate) use wgsl;
