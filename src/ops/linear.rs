//! A matrix in GPU memory, quantised as its file has it.
use crate::format::{DType, Source, TensorInfo, repack, words_of_eight_units};
use crate::gpu::{Gpu, Tensor};
use crate::{Error, Result};
use std::ops::Range;

/// Bytes of a file that are in host memory at a time.
const PIECE: u64 = 4 << 20;

/// How several tensors become one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Their rows one after another.
    Concat,
    /// A row of the first, a row of the second, and so on.
    Interleave,
}

/// Rows of one type that one dispatch can bind.
pub struct Part {
    /// How the weights are stored.
    pub dtype: DType,
    /// Where the part starts in the whole matrix.
    pub row0: usize,
    /// How many rows it has.
    pub rows: usize,
    /// `[words]`
    pub quants: Tensor,
    /// `[words]`
    pub scales: Tensor,
}

impl Part {
    /// The same memory in slices of `most` workgroups, or few more, of so many rows `each`: cut where bindings may begin.
    pub(super) fn slices(&self, units: u32, each: u32, most: u64) -> Vec<Self> {
        let (units, each) = (units as usize, each as usize);
        let (quants, scales) = words_of_eight_units(self.dtype);
        let words = |rows: usize, of_eight: usize| rows * units * of_eight / 8;
        let begins = |rows: &usize| {
            let aligned =
                |of_eight: usize| (rows * units * of_eight).is_multiple_of(8 * Tensor::ALIGN / 4);
            aligned(quants) && aligned(scales)
        };
        // Of eight times what a binding is aligned to there is always one.
        let step = (each..).step_by(each).find(begins).unwrap_or(self.rows);
        let fit = usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(each).max(step);
        let rows = self.rows.div_ceil(self.rows.div_ceil(fit)).next_multiple_of(step);
        let slice = |first: usize| {
            let end = first + rows;
            let view = |tensor: &Tensor, of_eight| {
                let begin = words(first, of_eight);
                // The last one has the words of an odd last unit, too.
                let end = if end < self.rows { words(end, of_eight) } else { tensor.len() };
                tensor.view(&tensor.label, begin, &[end - begin])
            };
            Self {
                dtype: self.dtype,
                row0: self.row0 + first,
                rows: rows.min(self.rows - first),
                quants: view(&self.quants, quants),
                scales: view(&self.scales, scales),
            }
        };
        (0..self.rows).step_by(rows).map(slice).collect()
    }
}

/// A matrix [rows, cols]. `Y = X W^T`, as in the file.
pub struct Linear {
    /// What captures and errors call it.
    pub label: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its rows in order.
    pub parts: Vec<Part>,
}

/// Rows to come from the file: `count` rows from `first` on of one tensor, or of each of two by turns.
#[derive(Clone)]
struct Segment<'a> {
    dtype: DType,
    tensors: Vec<&'a TensorInfo>,
    first: u64,
    count: u64,
}

impl Segment<'_> {
    fn rows(&self) -> u64 {
        self.count * self.tensors.len() as u64
    }

    fn units(&self) -> u64 {
        self.rows() * self.tensors[0].cols().div_ceil(32)
    }
}

impl Linear {
    /// Streams tensors of the same width to the GPU, a few megabytes at a time.
    pub async fn load(
        gpu: &Gpu,
        source: &impl Source,
        label: &str,
        tensors: &[&TensorInfo],
        join: Join,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let limit = gpu.tier.max_binding.min(gpu.tier.max_buffer);
        Self::load_within(gpu, source, label, tensors, join, limit, progress).await
    }

    /// The same for a device that binds at most `limit` bytes.
    #[allow(clippy::too_many_arguments, reason = "load's own, and the limit that tests lower")]
    pub(crate) async fn load_within(
        gpu: &Gpu,
        source: &impl Source,
        label: &str,
        tensors: &[&TensorInfo],
        join: Join,
        limit: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let cols = tensors.first().map_or(0, |tensor| tensor.cols());
        let mut parts: Vec<Part> = Vec::new();
        let mut row0 = 0;
        for segments in plan(label, tensors, join, limit)? {
            let part = load_part(gpu, source, label, &segments, row0, progress).await?;
            row0 += part.rows;
            parts.push(part);
        }
        Ok(Self { label: label.to_owned(), rows: row0, cols: cols as usize, parts })
    }

    /// A matrix of zeros, to be timed.
    pub(crate) fn zeros(
        gpu: &Gpu,
        label: &str,
        dtype: DType,
        [rows, cols]: [usize; 2],
    ) -> Result<Self> {
        let part = empty_part(gpu, label, dtype, 0..rows, rows as u64 * cols.div_ceil(32) as u64)?;
        Ok(Self { label: label.to_owned(), rows, cols, parts: vec![part] })
    }

    /// Columns as the kernels see them: a whole number of units.
    pub fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(32)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.quants.size() + part.scales.size()).sum()
    }
}

/// What goes into each part: neighbours of one type share buffers, up to `limit` bytes.
fn plan<'a>(
    label: &str,
    tensors: &[&'a TensorInfo],
    join: Join,
    limit: u64,
) -> Result<Vec<Vec<Segment<'a>>>> {
    let whole = |tensors: Vec<&'a TensorInfo>| -> Result<Segment<'a>> {
        let (dtype, count) = (tensors[0].dtype()?, tensors[0].rows());
        Ok(Segment { dtype, tensors, first: 0, count })
    };
    let segments = match join {
        Join::Concat => tensors.iter().map(|tensor| whole(vec![tensor])).collect::<Result<_>>()?,
        Join::Interleave => {
            same_type(tensors)?;
            vec![whole(tensors.to_vec())?]
        }
    };
    let mut parts: Vec<Vec<Segment>> = Vec::new();
    for segment in segments {
        let (quants, scales) = words_of_eight_units(segment.dtype);
        // half the words of eight units are the bytes of one
        let row_bytes =
            (segment.tensors[0].cols().div_ceil(32) * quants.max(scales) as u64 / 2).max(4);
        let (fits, ways) = (limit / row_bytes, segment.tensors.len() as u64);
        // Where units share a word, a slice must end with a whole one.
        let fits = if fits < 4 { fits } else { fits & !3 };
        if fits < ways {
            return Err(Error::OutOfMemory {
                what: format!("a row of {label}"),
                needed: row_bytes,
                advice: format!("this adapter binds at most {limit} bytes at once"),
            });
        }
        let (mut first, end) = (segment.first, segment.first + segment.count);
        while first < end {
            let held: u64 = parts.last().map_or(0, |part| part.iter().map(Segment::rows).sum());
            let joins = parts.last().is_some_and(|part| {
                let units: u64 = part.iter().map(Segment::units).sum();
                part[0].dtype == segment.dtype && units.is_multiple_of(4) && held + 4 <= fits
            });
            let room = if joins { (fits - held) & !3 } else { fits };
            let count = (room / ways).min(end - first);
            let piece = Segment { first, count, ..segment.clone() };
            match parts.last_mut() {
                Some(part) if joins => part.push(piece),
                _ => parts.push(vec![piece]),
            }
            first += count;
        }
    }
    Ok(parts)
}

/// An error unless tensors that are interleaved have one type.
pub(crate) fn same_type(tensors: &[&TensorInfo]) -> Result<()> {
    let Some(other) = tensors.iter().find(|t| t.type_id != tensors[0].type_id) else {
        return Ok(());
    };
    Err(Error::Unsupported(format!(
        "{} is {} and {} is {}: the two are multiplied together and need one type",
        tensors[0].name,
        tensors[0].type_text(),
        other.name,
        other.type_text()
    )))
}

async fn load_part(
    gpu: &Gpu,
    source: &impl Source,
    label: &str,
    segments: &[Segment<'_>],
    row0: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Part> {
    let dtype = segments[0].dtype;
    let units: u64 = segments.iter().map(Segment::units).sum();
    let rows = segments.iter().map(Segment::rows).sum::<u64>() as usize;
    let part = empty_part(gpu, label, dtype, row0..row0 + rows, units)?;
    let (mut q_at, mut s_at) = (0, 0);
    for Segment { tensors, first, count, .. } in segments {
        let (cols, ways) = (tensors[0].cols() as usize, tensors.len() as u64);
        let row_bytes = tensors[0].size / tensors[0].rows();
        // A multiple of eight rows, so that no word is shared between pieces.
        let step = (PIECE / (row_bytes * ways)).max(8) & !7;
        for at in (*first..first + count).step_by(step as usize) {
            let rows = step.min(first + count - at);
            let mut pieces = Vec::with_capacity(tensors.len());
            for tensor in tensors {
                let start = tensor.offset + at * row_bytes;
                pieces.push(source.bytes(start..start + rows * row_bytes).await?);
            }
            let packed = match &pieces[..] {
                [one] => repack(dtype, one, cols),
                _ => repack(dtype, &interleaved(&pieces, row_bytes as usize), cols),
            };
            part.quants.write(gpu, q_at, &packed.quants);
            part.scales.write(gpu, s_at, &packed.scales);
            q_at += packed.quants.len();
            s_at += packed.scales.len();
            progress(rows * row_bytes * ways);
            gpu.flush();
            gpu.check()?;
        }
    }
    Ok(part)
}

/// Room for rows of one type, so many units in all.
fn empty_part(
    gpu: &Gpu,
    label: &str,
    dtype: DType,
    rows: Range<usize>,
    units: u64,
) -> Result<Part> {
    let (quants, scales) = words_of_eight_units(dtype);
    // A whole number of runs of eight units, so that an odd last unit has its words.
    let words = |of_eight: usize| (units.div_ceil(8) as usize * of_eight).next_multiple_of(4);
    let suffix = if rows.start == 0 { String::new() } else { format!("[{}..]", rows.start) };
    let make = |what, words| Tensor::zeros(gpu, format!("{label}{suffix}.{what}"), &[words]);
    let (quants, scales) = (make("quants", words(quants))?, make("scales", words(scales))?);
    Ok(Part { dtype, row0: rows.start, rows: rows.len(), quants, scales })
}

fn interleaved(pieces: &[impl AsRef<[u8]>], row_bytes: usize) -> Vec<u8> {
    let rows = pieces[0].as_ref().len() / row_bytes;
    let row = |i: usize| pieces.iter().flat_map(move |p| &p.as_ref()[i * row_bytes..][..row_bytes]);
    (0..rows).flat_map(row).copied().collect()
}
