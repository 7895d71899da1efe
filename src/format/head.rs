//! The parser of a GGUF head. It sees a prefix of the file and trusts nothing in it: a count, a length or an
//! offset is held to the file's length before anything is allocated for it.
//!
//! ```text
//! magic "GGUF", version u32, tensor count u64, key count u64
//! key count    x (key string, type u32, value)          string: length u64, UTF-8 bytes
//! tensor count x (name string, dims u32, dims x u64, type u32, offset u64 from the data's start)
//! padding to the alignment; tensor data
//! ```
use super::cursor::{Cursor, Parsed, list};
use super::formats::DType;
use super::gguf::{Gguf, METADATA_START, TensorInfo};
use super::value::{Value, shown};

/// A key, a type and one byte of value; a key has at least one byte.
const LEAST_KEY: u64 = 8 + 1 + 4 + 1;
/// A name of one byte, one dimension, type and offset.
const LEAST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Parses a head of which `bytes` is a prefix, in a file of `len` bytes.
pub(super) fn parse(file: &str, bytes: &[u8], len: u64) -> Parsed<Gguf> {
    let mut cursor = Cursor::new(file, bytes, len);
    let version = cursor.version()?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of metadata keys")?;
    debug_assert_eq!(cursor.at, METADATA_START);
    let both = key_count
        .saturating_mul(LEAST_KEY)
        .saturating_add(tensor_count.saturating_mul(LEAST_TENSOR));
    cursor.promise(1, both, || format!("{key_count} metadata keys and {tensor_count} tensors"))?;

    let mut metadata = list(key_count);
    let mut key_offsets = list(key_count);
    let (mut raw, mut warnings) = (Vec::new(), Vec::new());
    for index in 0..key_count as usize {
        key_offsets.push(cursor.at);
        let entry = cursor.entry()?;
        if !cursor.raw.is_empty() {
            warnings.push(replaced(&entry, cursor.raw.len()));
        }
        raw.extend(cursor.raw.drain(..).map(|(element, bytes)| (index, element, bytes)));
        metadata.push(entry);
    }
    if let Some(index) = repeated(metadata.len(), |i| &metadata[i].0) {
        let key = shown(&metadata[index].0, 80);
        return Err(cursor.fault(key_offsets[index], format!("the key {key} appears twice")));
    }
    let alignment = alignment(&cursor, &metadata, &key_offsets)?;

    let mut tensors = list(tensor_count);
    let mut tensor_offsets = list(tensor_count);
    for _ in 0..tensor_count {
        tensor_offsets.push(cursor.at);
        tensors.push(cursor.tensor()?);
    }
    if let Some(index) = repeated(tensors.len(), |i| &tensors[i].name) {
        let name = shown(&tensors[index].name, 80);
        return Err(cursor.fault(tensor_offsets[index], format!("the tensor {name} appears twice")));
    }
    let data_offset = cursor.at.next_multiple_of(alignment);
    for (tensor, &at) in tensors.iter_mut().zip(&tensor_offsets) {
        place(&cursor, tensor, at, alignment, data_offset)?;
    }
    overlaps(&cursor, &tensors, &tensor_offsets)?;
    Ok(Gguf {
        version,
        metadata,
        tensors,
        alignment,
        data_offset,
        file: file.to_owned(),
        key_offsets,
        raw,
        shards: vec![(file.to_owned(), 0)],
        warnings,
    })
}

/// What is said of a value with so many strings that are not UTF-8.
fn replaced((key, value): &(String, Value), count: usize) -> String {
    let key = shown(key, 80);
    let of = match value {
        Value::Array(array) => format!(", in {count} of {} strings", array.len()),
        _ => String::new(),
    };
    format!("the value of {key} is not valid UTF-8{of}; what is not is shown as \u{fffd}")
}

/// The index of the first name, in file order, that an earlier one already has.
fn repeated<'a>(count: usize, name: impl Fn(usize) -> &'a String) -> Option<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_unstable_by_key(|&i| (name(i), i));
    order.windows(2).filter(|pair| name(pair[0]) == name(pair[1])).map(|pair| pair[1]).min()
}

/// `general.alignment`, 32 unless told.
fn alignment(cursor: &Cursor<'_>, metadata: &[(String, Value)], offsets: &[u64]) -> Parsed<u64> {
    let Some(index) = metadata.iter().position(|(key, _)| key == "general.alignment") else {
        return Ok(32);
    };
    let value = &metadata[index].1;
    match value.integer().and_then(|n| u32::try_from(n).ok()) {
        Some(n) if n.is_power_of_two() => Ok(n.into()),
        _ => Err(cursor.fault(
            offsets[index],
            format!(
                "the key general.alignment is {}, but it must be a power of two that fits u32",
                value.describe()
            ),
        )),
    }
}

/// Turns the tensor's offset into one from the file's start, and holds its bytes to the file's length.
fn place(
    cursor: &Cursor<'_>,
    tensor: &mut TensorInfo,
    at: u64,
    alignment: u64,
    data_offset: u64,
) -> Parsed<()> {
    let (name, relative) = (shown(&tensor.name, 80), tensor.offset);
    if !relative.is_multiple_of(alignment) {
        let detail = format!(
            "the tensor {name} is at offset {relative}, which is not a multiple of {alignment}"
        );
        return Err(cursor.fault(at, detail));
    }
    let start = data_offset.checked_add(relative);
    let end = start.and_then(|start| start.checked_add(tensor.size));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(cursor
            .fault(at, format!("the tensor {name} is at offset {relative}, past any file's end")));
    };
    if tensor.known.is_some() && end > cursor.len {
        let (size, len) = (tensor.size, cursor.len);
        let detail = format!(
            "the file is truncated: the tensor {name} takes {size} bytes from byte {start}, but the file ends at byte {len}"
        );
        return Err(cursor.fault(at, detail));
    }
    tensor.offset = start;
    Ok(())
}

/// No two tensors share a byte.
fn overlaps(cursor: &Cursor<'_>, tensors: &[TensorInfo], offsets: &[u64]) -> Parsed<()> {
    let mut order: Vec<usize> =
        (0..tensors.len()).filter(|&i| tensors[i].known.is_some()).collect();
    order.sort_unstable_by_key(|&i| (tensors[i].offset, i));
    for pair in order.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        if first.offset + first.size > second.offset {
            let (first, second) = (shown(&first.name, 80), shown(&second.name, 80));
            return Err(
                cursor.fault(offsets[pair[1]], format!("the tensors {first} and {second} overlap"))
            );
        }
    }
    Ok(())
}

impl Cursor<'_> {
    fn version(&mut self) -> Parsed<u32> {
        let magic: [u8; 4] = self.array("the magic GGUF")?;
        if magic != *b"GGUF" {
            let found = magic.escape_ascii();
            return Err(self.fault(
                0,
                format!("this is not a GGUF file: it begins with \"{found}\", not \"GGUF\""),
            ));
        }
        match self.u32("the version of the format")? {
            version @ (2 | 3) => Ok(version),
            1 => Err(self.unsupported(
                "a GGUF file of version 1, which only early 2023 had; convert the model again",
            )),
            version if (1..=3).contains(&version.swap_bytes()) => Err(self.unsupported(
                "a big-endian GGUF file; brooklet reads little-endian ones, as most models are",
            )),
            version => Err(self
                .unsupported(&format!("a GGUF file of version {version}; brooklet reads 2 and 3"))),
        }
    }

    /// A key and its value.
    fn entry(&mut self) -> Parsed<(String, Value)> {
        let at = self.at;
        let key = self.name("a metadata key")?;
        if key.is_empty() {
            return Err(self.fault(at, "a metadata key is empty".to_owned()));
        }
        let value = self.value(&key)?;
        Ok((key, value))
    }

    /// A tensor's entry; its offset is still the file's, from the start of the data.
    fn tensor(&mut self) -> Parsed<TensorInfo> {
        let at = self.at;
        let name = self.name("a tensor's name")?;
        if name.is_empty() {
            return Err(self.fault(at, "a tensor's name is empty".to_owned()));
        }
        let short = shown(&name, 80);
        let count = self.u32("a tensor's number of dimensions")?;
        if !(1..=4).contains(&count) {
            let detail =
                format!("the tensor {short} has {count} dimensions, but a tensor has 1 to 4");
            return Err(self.fault(at, detail));
        }
        let dims = self.bytes_of(count.into(), "a tensor's dimensions")?;
        let dims: Vec<u64> = dims.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        let type_id = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        if dims.contains(&0) {
            let detail =
                format!("the tensor {short} has shape {dims:?}, but no dimension may be 0");
            return Err(self.fault(at, detail));
        }
        let known = DType::from_ggml(type_id);
        let Some(elements) = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))
        else {
            let detail =
                format!("the tensor {short} has shape {dims:?}, more elements than fit u64");
            return Err(self.fault(at, detail));
        };
        let mut size = 0;
        if let Some(dtype) = known {
            let (len, bytes) = (dtype.block_len() as u64, dtype.block_bytes() as u64);
            if !dims[0].is_multiple_of(len) {
                let columns = dims[0];
                let detail = format!(
                    "the tensor {short} has {columns} columns, but {dtype} comes in blocks of {len}"
                );
                return Err(self.fault(at, detail));
            }
            size = (elements / len).checked_mul(bytes).ok_or_else(|| {
                self.fault(
                    at,
                    format!("the tensor {short} has shape {dims:?}, more bytes than fit u64"),
                )
            })?;
        }
        Ok(TensorInfo { name, type_id, dims, offset, size, known })
    }
}
