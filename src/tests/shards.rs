//! A model in several files, files longer than 32 bits can say, and what is no file at all.
use super::gguf_file::GgufFile;
use super::support::gpu;
use super::tiny::{Tiny, session, streaming};
use crate::Result;
use crate::format::{BytesSource, DType, FileSource, Gguf, Shards, Source, Value};
use crate::model::{KvType, Model};
use pollster::block_on;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// `gguf-split`'s keys.
fn numbered(file: GgufFile, no: u16, count: u16, tensors: usize) -> GgufFile {
    file.with("split.no", Value::U16(no))
        .with("split.count", Value::U16(count))
        .with("split.tensors.count", Value::I32(tensors as i32))
}

/// The tiny model in three files, as `gguf-split --no-tensor-first-split` cuts: metadata, then tensors.
fn three() -> [GgufFile; 3] {
    let whole = Tiny::default().parts();
    let count = whole.tensors.len();
    let of = |no: u16, tensors: Range<usize>| {
        let metadata = if no == 0 { whole.metadata.clone() } else { Vec::new() };
        let tensors = whole.tensors[tensors].to_vec();
        numbered(GgufFile { metadata, tensors, ..whole.clone() }, no, 3, count)
    };
    [of(0, 0..0), of(1, 0..7), of(2, 7..count)]
}

fn write(folder: &Path, files: &[GgufFile]) {
    for (i, file) in files.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.gguf", i + 1, files.len());
        std::fs::write(folder.join(name), file.bytes()).unwrap();
    }
}

fn logits(source: &impl Source, gguf: &Gguf, gpu: &Arc<crate::gpu::Gpu>) -> Vec<f32> {
    let model = block_on(Model::load(gpu.clone(), source, gguf, &mut |_, _| ())).unwrap();
    let mut session = session(&Arc::new(model), streaming(4, 12, 8, KvType::F32));
    block_on(session.feed(&[1, 2, 3])).unwrap();
    block_on(session.logits()).unwrap()
}

#[test]
fn any_file_of_a_split_model_is_the_whole_model() {
    let (gpu, folder) = (Arc::new(gpu()), tempfile::tempdir().unwrap());
    write(folder.path(), &three());
    let whole = Tiny::default().parts().source();
    let head = block_on(Gguf::read(&whole)).unwrap();
    let expected = logits(&whole, &head, &gpu);
    for no in 1..=3 {
        let path = folder.path().join(format!("model-{no:05}-of-00003.gguf"));
        let (source, gguf) = block_on(Shards::open(&path)).unwrap();
        assert_eq!(source.name(), path.display().to_string());
        assert_eq!(gguf.need_str("general.name").unwrap(), "tiny");
        assert_eq!(logits(&source, &gguf, &gpu), expected, "by file {no}");
        // no read goes over from one file to the next
        let border = source.shards()[1].1;
        let across = block_on(source.bytes(border - 1..border + 1)).unwrap_err();
        assert!(across.to_string().contains("model-00001-of-00003.gguf"), "{across}");
    }
    let alone = folder.path().join("alone.gguf");
    std::fs::write(&alone, Tiny::default().file()).unwrap();
    let (source, gguf) = block_on(Shards::open(&alone)).unwrap();
    assert_eq!((source.shards().len(), gguf.tensors.len()), (1, head.tensors.len()));
}

#[test]
fn a_split_model_that_is_not_whole_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |no: u32| folder.path().join(format!("model-{no:05}-of-00003.gguf"));
    let refused = |path: &Path| block_on(Shards::open(path)).unwrap_err().to_string();
    write(folder.path(), &three());
    std::fs::remove_file(path(2)).unwrap();
    for named in [1, 3] {
        let found = refused(&path(named));
        let expected = format!(
            "model-00002-of-00003.gguf: file 2 of 3 of the model that {} is a part of: there is no such file",
            path(named).display()
        );
        assert!(found.contains(&expected), "{found}");
    }
    // a copy of another
    std::fs::copy(path(3), path(2)).unwrap();
    let found = refused(&path(1));
    assert!(
        found.contains(
            "model-00002-of-00003.gguf: byte 0: this is file 3 of the model where file 2"
        ),
        "{found}"
    );
    // fewer tensors than were promised; one twice
    let [first, mut second, mut third] = three();
    let moved = second.tensors.pop().unwrap();
    write(folder.path(), &[first.clone(), second.clone(), third.clone()]);
    assert!(
        refused(&path(1)).contains("has 20 tensors, but its files have 19"),
        "{}",
        refused(&path(1))
    );
    second.tensors.push(moved.clone());
    third.tensors.push(moved);
    write(folder.path(), &[first, second, third]);
    assert!(refused(&path(1)).contains("is in two of the files"), "{}", refused(&path(1)));
    // a name that leads nowhere, and a source of one file alone
    let renamed = folder.path().join("renamed.gguf");
    std::fs::copy(path(1), &renamed).unwrap();
    assert!(refused(&renamed).contains("does not end in 00001-of-00003.gguf"));
    let alone = block_on(Gguf::read(&FileSource::open(&path(3)).unwrap())).unwrap_err();
    assert!(alone.to_string().contains("file 3 of 3 of a split model, which needs all of them"));
}

#[test]
fn the_keys_of_a_model_in_one_file_split_nothing() {
    let file = |no, count| numbered(GgufFile::new(), no, count, 0).source();
    assert!(block_on(Gguf::read(&file(0, 1))).is_ok() && block_on(Gguf::read(&file(0, 0))).is_ok());
    let error = block_on(Gguf::read(&file(2, 2))).unwrap_err().to_string();
    assert!(error.contains("split.no and split.count are 2 and 2"), "{error}");
}

/// A name is a file's own word, as its keys are.
#[test]
fn a_count_that_no_model_has_is_refused_before_names_are_made_of_it() {
    let count = 1u64 << 40;
    let file = GgufFile::new().with("split.count", Value::U64(count)).source();
    let name = format!("model-00001-of-{count}.gguf");
    let found = block_on(Shards::gather(file, &name, async |_: &str| unreachable!())).unwrap_err();
    assert!(found.to_string().contains("split.count is 1099511627776"), "{found}");
}

#[test]
fn an_offset_at_the_end_of_64_bits_in_a_later_file_is_no_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let mut odd = GgufFile::new();
    odd.tensors.push(("odd".into(), vec![32], 99, Vec::new()));
    let files = [numbered(GgufFile::new(), 0, 2, 1), numbered(odd, 1, 2, 1)];
    write(folder.path(), &files);
    let mut bytes = files[1].bytes();
    // after the name one dimension and the type; behind the head there is nothing
    let at = bytes.windows(3).position(|w| w == b"odd").unwrap() + 3 + 4 + 8 + 4;
    let offset = (u64::MAX - bytes.len() as u64) / 32 * 32;
    bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    let path = folder.path().join("model-00002-of-00002.gguf");
    std::fs::write(&path, bytes).unwrap();
    let (_, gguf) = block_on(Shards::open(&path)).unwrap();
    assert!(gguf.tensors[0].dtype().is_err());
    assert!(crate::format::describe(&gguf).contains("unknown (99)"));
}

/// What a hole in a sparse file would be: tensor data far behind the head.
const HOLE: u64 = 5 << 30;

/// A file whose tensors lie `HOLE` bytes further back than they are stored.
struct Far {
    bytes: BytesSource,
    data: u64,
}

impl Source for Far {
    fn name(&self) -> &str {
        self.bytes.name()
    }

    fn len(&self) -> u64 {
        self.bytes.len() + HOLE
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let Range { start, end } = range;
        if start >= self.data + HOLE {
            return self.bytes.bytes(start - HOLE..end - HOLE).await;
        }
        assert!(end <= self.data + HOLE, "{start}..{end}");
        let mut bytes = self.bytes.bytes(start..end.min(self.data)).await?.into_owned();
        bytes.resize((end - start) as usize, 0);
        Ok(Cow::Owned(bytes))
    }
}

/// The head of a file with every tensor's offset grown by `HOLE`, and all that follows it.
fn moved(mut bytes: Vec<u8>, gguf: &Gguf) -> Vec<u8> {
    for tensor in &gguf.tensors {
        let entry =
            [&(tensor.name.len() as u64).to_le_bytes()[..], tensor.name.as_bytes()].concat();
        let name = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
        let at = name + entry.len() + 4 + 8 * tensor.dims.len() + 4;
        let offset = tensor.offset - gguf.data_offset + HOLE;
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    }
    bytes
}

/// Only what is read at once must be addressed by this machine. In a browser that is 32 bits, and there the same file
/// is loaded in `web/tests`, by the head that this test keeps.
#[test]
fn tensors_beyond_4_gib_are_read() {
    let bytes = Tiny { dtype: DType::F16, ..Tiny::default() }.file();
    let near = BytesSource::new("tiny.gguf", bytes.clone());
    let gguf = block_on(Gguf::read(&near)).unwrap();
    let data = gguf.data_offset;
    let bytes = moved(bytes, &gguf);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/tiny_far.head");
    if std::env::var_os("BROOKLET_BLESS").is_some() {
        std::fs::write(path, &bytes[..data as usize]).unwrap();
    }
    let kept = std::fs::read(path).unwrap();
    assert!(kept == bytes[..data as usize], "run with BROOKLET_BLESS=1 to make it anew");
    let far = Far { bytes: BytesSource::new("far.gguf", bytes), data };
    let head = block_on(Gguf::read(&far)).unwrap();
    assert!(head.tensors.iter().all(|tensor| tensor.offset >= HOLE));
    let gpu = Arc::new(gpu());
    assert_eq!(logits(&far, &head, &gpu), logits(&near, &gguf, &gpu));
    // and as a part of a model: the files behind it lie further still
    let split = block_on(Shards::gather(far, "far.gguf", async |_: &str| unreachable!())).unwrap();
    assert_eq!(split.0.len(), near.len() + HOLE);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/null")] {
        let error = FileSource::open(path).unwrap_err();
        assert!(matches!(error, crate::Error::Io { .. }));
        assert!(error.to_string().contains("a model must be a file"), "{error}");
    }
}
