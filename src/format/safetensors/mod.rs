//! A folder as transformers saves a model (`config.json`, `tokenizer.json`, `*.safetensors`), read as the GGUF file that
//! llama.cpp's converter would make of it: its head is made when it is opened, its tensors when they are asked for.
mod config;
mod head;
mod names;
mod quantize;
mod quantize_k;
mod stored;
mod vocab;

use super::formats::DType;
use super::source::{Source, check_range};
use crate::{Error, Result};
use config::Settings;
use head::Head;
use names::{Family, Place};
use quantize::quantize;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use stored::{Stored, Tensors};

/// The type that matrices get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// Halves.
    F16,
    /// Bytes, 32 to a scale.
    Q8_0,
    /// Four bits, 32 to a scale; those that begin and end the model get bytes.
    Q4_0,
    /// Four bits, 32 to a scale and a least value of six bits each, 256 to those of all; the same get bytes, and so do those
    /// whose rows are no whole number of 256.
    Q4K,
}

/// A model in a folder.
#[derive(Debug)]
pub struct Folder {
    name: String,
    files: Tensors,
    head: Vec<u8>,
    /// In order, each where the one before ends, but for alignment.
    tensors: Vec<Piece>,
    len: u64,
}

/// A tensor of the file that is made.
#[derive(Debug)]
struct Piece {
    name: String,
    start: u64,
    rows: u64,
    cols: u64,
    dtype: DType,
    from: Origin,
}

/// Where its values come from.
#[derive(Debug)]
enum Origin {
    /// What is stored, with rows in another order in each of so many heads.
    Stored(Stored, Option<u64>),
    /// Numbers of the settings.
    Values(Vec<f32>),
}

impl Piece {
    fn row_bytes(&self) -> u64 {
        self.cols / self.dtype.block_len() as u64 * self.dtype.block_bytes() as u64
    }

    fn size(&self) -> u64 {
        self.rows * self.row_bytes()
    }
}

impl Folder {
    /// Reads what the model is, and nothing of its weights.
    pub fn open(path: &Path, quant: Option<Quant>) -> Result<Self> {
        let name = path.display().to_string();
        let settings = Settings::read(path)?;
        let family = Family::of(&settings)?;
        let files = Tensors::open(path)?;
        let mut tensors = Vec::new();
        for stored in files.all()? {
            let fault = |what: String| {
                Error::Unsupported(format!("{name}: tensor {}: {what}", stored.name))
            };
            let Some(Place { name: to, heads }) =
                family.place(&settings, &stored.name).map_err(fault)?
            else {
                continue;
            };
            let (rows, cols) = match stored.shape[..] {
                [cols] => (1, cols),
                [rows, cols] => (rows, cols),
                _ => {
                    return Err(fault(format!(
                        "{:?} is no shape of a vector or a matrix",
                        stored.shape
                    )));
                }
            };
            let vector = stored.shape.len() == 1;
            let turned = if vector { cols } else { rows };
            let fits = heads.is_none_or(|heads| heads > 0 && turned.is_multiple_of(2 * heads));
            if rows == 0 || cols == 0 || !fits {
                return Err(fault(format!(
                    "its shape is {:?}, which does not fit config.json",
                    stored.shape
                )));
            }
            // A bias is turned as the rows of its matrix are: a row each.
            let (rows, cols) = if vector && heads.is_some() { (cols, 1) } else { (rows, cols) };
            let dtype = if vector { DType::F32 } else { chosen(quant, &to, stored.dtype, cols) };
            let from = Origin::Stored(stored, heads);
            tensors.push(Piece { name: to, start: 0, rows, cols, dtype, from });
        }
        if let Some(values) = settings.rope_factors()? {
            let (name, cols) = ("rope_freqs.weight".to_owned(), values.len() as u64);
            let from = Origin::Values(values);
            tensors.push(Piece { name, start: 0, rows: 1, cols, dtype: DType::F32, from });
        }
        // The embedding first, then layer by layer, as files in the wild have it.
        tensors.sort_by_key(|piece| names::order(&piece.name));
        let mut head = Head::default();
        settings.write(&family, path, &mut head)?;
        vocab::write(path, &settings, &mut head)?;
        head.key_u32("general.file_type", file_type(quant, &tensors));
        head.key_u32("general.quantization_version", 2);
        let (mut offset, mut infos) = (0, Vec::new());
        for piece in &mut tensors {
            piece.start = offset;
            let vector = piece.rows == 1
                || piece.cols == 1 && piece.dtype == DType::F32 && is_vector(&piece.from);
            let dims =
                if vector { vec![piece.rows * piece.cols] } else { vec![piece.cols, piece.rows] };
            infos.push((piece.name.clone(), dims, piece.dtype.ggml_id(), offset));
            offset = (offset + piece.size()).next_multiple_of(head::ALIGNMENT);
        }
        let head = head.finish(&infos);
        let start = head.len() as u64;
        tensors.iter_mut().for_each(|piece| piece.start += start);
        Ok(Self { name, files, head, tensors, len: start + offset })
    }

    /// Some bytes of a tensor, which begin at byte `from` of it.
    fn make(&self, piece: &Piece, from: u64, out: &mut [u8]) {
        let row_bytes = piece.row_bytes();
        let first = from / row_bytes;
        let last = (from + out.len() as u64).div_ceil(row_bytes);
        let mut whole = vec![0; ((last - first) * row_bytes) as usize];
        whole.par_chunks_mut(row_bytes as usize).enumerate().for_each(|(i, row)| {
            let mut values = vec![0.0; piece.cols as usize];
            match &piece.from {
                Origin::Stored(stored, heads) => {
                    let at = turned(first + i as u64, piece.rows, *heads);
                    self.files.row(stored, at * piece.cols, &mut values);
                }
                Origin::Values(all) => values.copy_from_slice(all),
            }
            quantize(piece.dtype, &values, row);
        });
        let skip = (from - first * row_bytes) as usize;
        out.copy_from_slice(&whole[skip..skip + out.len()]);
    }
}

fn is_vector(from: &Origin) -> bool {
    matches!(from, Origin::Stored(stored, _) if stored.shape.len() == 1)
}

/// Which stored row becomes row `at`: transformers has the halves of a head one after the other, llama's files pairs.
fn turned(at: u64, rows: u64, heads: Option<u64>) -> u64 {
    let Some(heads) = heads else { return at };
    let size = rows / heads;
    let (head, within) = (at / size, at % size);
    head * size + within % 2 * (size / 2) + within / 2
}

/// The type of a matrix in the file that is made.
fn chosen(quant: Option<Quant>, name: &str, stored: DType, cols: u64) -> DType {
    let at_an_end = ["token_embd.weight", "output.weight"].contains(&name);
    let wanted = match quant {
        None => stored,
        Some(Quant::F16) => DType::F16,
        Some(Quant::Q4_0) if !at_an_end => DType::Q4_0,
        Some(Quant::Q4K) if !at_an_end && cols.is_multiple_of(256) => DType::Q4K,
        Some(Quant::Q8_0 | Quant::Q4_0 | Quant::Q4K) => DType::Q8_0,
    };
    // What is no whole number of blocks stays as it nearly is.
    if cols.is_multiple_of(wanted.block_len() as u64) { wanted } else { DType::F16 }
}

/// llama.cpp's number for what most tensors are.
fn file_type(quant: Option<Quant>, tensors: &[Piece]) -> u32 {
    match quant {
        Some(Quant::F16) => 1,
        Some(Quant::Q8_0) => 7,
        Some(Quant::Q4_0) => 2,
        Some(Quant::Q4K) => 14,
        None => match tensors.iter().find(|piece| piece.rows > 1).map(|piece| piece.dtype) {
            Some(DType::F16) => 1,
            Some(DType::BF16) => 32,
            _ => 0,
        },
    }
}

impl Source for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let length = check_range(self, &range)?;
        let head = self.head.len() as u64;
        if range.end <= head {
            return Ok(Cow::Borrowed(&self.head[range.start as usize..range.end as usize]));
        }
        let mut out = vec![0; length];
        let mut fill = |start: u64, end: u64, make: &dyn Fn(u64, &mut [u8])| {
            let (from, to) = (start.max(range.start), end.min(range.end));
            if from < to {
                let part = &mut out[(from - range.start) as usize..(to - range.start) as usize];
                make(from - start, part);
            }
        };
        fill(0, head, &|from, part| {
            part.copy_from_slice(&self.head[from as usize..][..part.len()]);
        });
        for piece in &self.tensors {
            fill(piece.start, piece.start + piece.size(), &|from, part| {
                self.make(piece, from, part)
            });
        }
        Ok(Cow::Owned(out))
    }
}
