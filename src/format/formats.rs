//! The table of formats: a line for each type that a weight can have. A new type is a line here, its block in `layout`,
//! its `repack`, and the WGSL file that reads what that gives.
use super::blocks::dequantize_blocks;
use super::layout::{self, Block};
use super::repack::{self, Packed};
use crate::shaders::{Files, include_file};

/// What kernels make of a type's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They are f32 as they are: a product of one token has a loop over rows of their own.
    Whole,
    /// They are unpacked and multiplied.
    Unpacked,
    /// They are integers, which are multiplied with activations in bytes, too.
    Integers,
    /// They are integers of four bits that all have one scale, multiplied where they lie by software drivers.
    Nibbles,
}

/// What there is to know of a type of weights.
pub struct Format {
    /// Its number in a GGUF file.
    pub number: u32,
    /// Its name in the GGUF world, such as `Q4_K`.
    pub name: &'static str,
    /// How many elements a block stands for.
    pub block_len: usize,
    /// How many bytes a block takes.
    pub block_bytes: usize,
    /// Writes the values of whole blocks.
    pub(super) dequantize: fn(&[u8], &mut [f32]),
    /// Words that a run of eight units takes: of quants, of scales.
    pub words: (usize, usize),
    /// Repacks whole rows of so many bytes.
    pub(super) repack: fn(&mut Packed, &[u8], usize),
    /// What kernels that read it are called by.
    pub kernels: &'static str,
    /// How kernels multiply it.
    pub numbers: Numbers,
    /// The file that reads it, after the libraries which that needs.
    pub wgsl: Files,
}

macro_rules! formats {
    ($(
        $dtype:ident = $number:literal $name:literal, words $words:expr, repack $repack:ident,
        kernels $kernels:literal $numbers:ident $libraries:tt;
    )*) => {
        /// The type of a tensor's elements: every one that brooklet can multiply.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each variant is the GGUF type of the same name")]
        pub enum DType {
            $($dtype),*
        }

        impl DType {
            /// Every type, in the order of the documentation.
            pub const ALL: [Self; FORMATS.len()] = [$(Self::$dtype),*];
        }

        /// Every format, in the order of `DType`.
        static FORMATS: [Format; [$($number),*].len()] = [$(Format {
            number: $number,
            name: $name,
            block_len: layout::$dtype::LEN,
            block_bytes: size_of::<layout::$dtype>(),
            dequantize: dequantize_blocks::<layout::$dtype>,
            words: $words,
            repack: repack::$repack,
            kernels: $kernels,
            numbers: Numbers::$numbers,
            wgsl: formats!(@ $kernels $libraries),
        }),*];
    };
    (@ $kernels:literal [$($library:literal),*]) => {
        const {
            &[
                $(crate::shaders::file($library),)*
                &include_file!(concat!("lib/", $kernels, ".wgsl")),
            ]
        }
    };
}

formats! {
    F32 = 0 "F32", words (256, 0), repack floats, kernels "f32" Whole [];
    F16 = 1 "F16", words (128, 0), repack halves, kernels "f16" Unpacked ["lib/unpack_half.wgsl"];
    BF16 = 30 "BF16", words (128, 0), repack halves, kernels "bf16" Unpacked [];
    Q4_0 = 2 "Q4_0", words (32, 4), repack q4_0, kernels "q4_0" Nibbles ["lib/unpack_half.wgsl"];
    Q4_1 = 3 "Q4_1", words (32, 8), repack q4_1, kernels "q4_1" Nibbles ["lib/unpack_half.wgsl"];
    Q5_0 = 6 "Q5_0", words (32, 12), repack q5_0, kernels "q5_0" Integers ["lib/unpack_half.wgsl"];
    Q5_1 = 7 "Q5_1", words (32, 16), repack q5_1, kernels "q5_1" Integers ["lib/unpack_half.wgsl"];
    Q8_0 = 8 "Q8_0", words (64, 4), repack q8_0, kernels "q8_0" Integers ["lib/unpack_half.wgsl"];
    // Rounding activations would cost too much beside so few bytes of weights.
    Q2K = 10 "Q2_K", words (16, 5), repack q2_k, kernels "q2_k" Unpacked ["lib/unpack_half.wgsl"];
    Q3K = 11 "Q3_K", words (16, 12), repack q3_k, kernels "q3_k" Integers ["lib/unpack_half.wgsl"];
    Q4K = 12 "Q4_K", words (32, 4), repack q4_k, kernels "q4_k" Nibbles
        ["lib/scale_min.wgsl", "lib/unpack_half.wgsl"];
    Q5K = 13 "Q5_K", words (32, 12), repack q5_k, kernels "q5_k" Integers
        ["lib/scale_min.wgsl", "lib/unpack_half.wgsl"];
    Q6K = 14 "Q6_K", words (32, 21), repack q6_k, kernels "q6_k" Integers ["lib/unpack_half.wgsl"];
    IQ4NL = 20 "IQ4_NL", words (32, 4), repack iq4_nl, kernels "iq4_nl" Integers
        ["lib/iq4_codes.wgsl", "lib/unpack_half.wgsl"];
    IQ4XS = 23 "IQ4_XS", words (32, 2), repack iq4_xs, kernels "iq4_xs" Integers
        ["lib/iq4_codes.wgsl", "lib/unpack_half.wgsl"];
    MXFP4 = 39 "MXFP4", words (32, 2), repack mxfp4, kernels "mxfp4" Integers [];
    TQ2_0 = 35 "TQ2_0", words (16, 1), repack tq2_0, kernels "tq2_0" Unpacked ["lib/unpack_half.wgsl"];
    // Five numbers a byte become two bits each: no kernel divides, and it shares those of TQ2_0.
    TQ1_0 = 34 "TQ1_0", words (16, 1), repack tq1_0, kernels "tq2_0" Unpacked ["lib/unpack_half.wgsl"];
}

impl DType {
    /// All that there is to know of it.
    pub const fn format(self) -> &'static Format {
        &FORMATS[self as usize]
    }

    /// The type with this number in a GGUF file, if brooklet can multiply it.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.ggml_id() == id)
    }

    /// Its number in a GGUF file.
    pub const fn ggml_id(self) -> u32 {
        self.format().number
    }

    /// How many elements a block stands for; a row's length is a multiple of it.
    pub const fn block_len(self) -> usize {
        self.format().block_len
    }

    /// How many bytes a block takes.
    pub const fn block_bytes(self) -> usize {
        self.format().block_bytes
    }

    /// Its name in the GGUF world, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.format().name
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
