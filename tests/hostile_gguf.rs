//! Damaged GGUF files by the ten thousand: an error or a checked head, never a panic, and little memory.
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps what is not there should fail right there"
)]
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::catch_unwind;

use brooklet::Error;
use brooklet::format::{BytesSource, FileSource, Gguf, Source, dequantize, inspect::describe};
use pollster::block_on;

/// The system's allocator, keeping count of this thread's bytes.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    let now = NOW.get().wrapping_add(bytes);
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor unwind.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` has allocated at once, at most.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    NOW.set(0);
    PEAK.set(0);
    let result = work();
    (result, PEAK.get())
}

/// A generator good enough to damage files with.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

const EXTREMES: [u64; 14] = [
    0,
    1,
    2,
    9,
    31,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 61,
    i64::MAX as u64,
    u64::MAX,
];

/// One act of damage.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes.truncate(at.max(1)),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = random.below(256) as u8,
        width @ (3 | 4) => {
            let width = if width == 3 { 4 } else { 8 };
            let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        5 => {
            // A splice: a piece of the file again, in another place.
            let from = random.below(bytes.len());
            let piece = bytes[from..(from + 1 + random.below(64)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let end = (at + 1 + random.below(32)).min(bytes.len());
            if end - at < bytes.len() {
                bytes.drain(at..end);
            }
        }
    }
}

/// Reads a file as `brooklet inspect` would, and a block of each tensor; tells whether it was accepted.
fn read(source: &BytesSource) -> Result<Gguf, Error> {
    let gguf = block_on(Gguf::read(source))?;
    for tensor in &gguf.tensors {
        let Ok(dtype) = tensor.dtype() else { continue };
        assert!(tensor.offset + tensor.size <= source.len(), "{tensor:?} lies outside");
        let block = tensor.offset..tensor.offset + dtype.block_bytes() as u64;
        let block = block_on(source.bytes(block)).unwrap();
        dequantize(dtype, &block, &mut vec![0.0; dtype.block_len()]);
    }
    Ok(gguf)
}

#[test]
fn damaged_files_are_refused_or_read_in_little_memory() {
    let file = include_bytes!("fixtures/gguf/small.gguf");
    let head = 960; // where its data begins: damage to the data alone goes unnoticed
    let mut random = Random(42);
    let (mut accepted, mut refused, mut most) = (0, 0, 0);
    for round in 0..30_000 {
        let mut bytes = file.to_vec();
        for _ in 0..1 + random.below(3) {
            // Three in four strike the head, where the meaning is.
            if random.below(4) == 0 || bytes.len() <= head {
                damage(&mut bytes, &mut random);
            } else {
                let mut front = bytes[..head].to_vec();
                damage(&mut front, &mut random);
                bytes.splice(..head, front);
            }
        }
        let length = bytes.len();
        let source = BytesSource::new("damaged.gguf", bytes);
        let (result, peak) = peak(|| catch_unwind(|| read(&source)));
        let result = result.unwrap_or_else(|_| panic!("round {round} panicked"));
        most = most.max(peak);
        assert!(
            peak < 16 * length + 65_536,
            "round {round}: {peak} bytes allocated for a file of {length}"
        );
        match result {
            Ok(gguf) => {
                accepted += 1;
                assert!(!describe(&gguf).is_empty());
            }
            Err(Error::Format { .. } | Error::Unsupported(_)) => refused += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    eprintln!("{accepted} accepted, {refused} refused, {most} bytes allocated at most");
    assert!(
        accepted > 1000 && refused > 10_000,
        "{accepted} accepted, {refused} refused: the damage is lopsided"
    );
}

/// Files made to be large for what they hold: the smallest entries, many of them.
#[test]
fn dense_files_take_memory_in_proportion() {
    let count = 200_000u64;
    let array = |element: u32, bytes: &[u8]| {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([0u64, 1, 1].iter().flat_map(|n| n.to_le_bytes()));
        file.extend(b"k\x09\0\0\0");
        file.extend(element.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(bytes.repeat(count as usize));
        file
    };
    let mut keys = b"GGUF\x03\0\0\0".to_vec();
    keys.extend([0, count].iter().flat_map(|n| n.to_le_bytes()));
    for i in 0..count {
        keys.extend(5u64.to_le_bytes());
        keys.extend(format!("{i:05x}").as_bytes());
        keys.extend([0, 0, 0, 0, 1]);
    }
    for (what, bytes) in [
        ("empty strings", array(8, &[0; 8])),
        ("empty arrays", array(9, &[0; 12])),
        ("strings that are not UTF-8", array(8, b"\x01\0\0\0\0\0\0\0\xff")),
        ("tiny keys", keys),
    ] {
        let length = bytes.len();
        let source = BytesSource::new("dense.gguf", bytes);
        let start = std::time::Instant::now();
        let (_, peak) = peak(|| block_on(Gguf::read(&source)).map(|gguf| gguf.metadata.len()));
        assert!(peak < 16 * length, "{what}: {peak} bytes allocated for a file of {length}");
        assert!(start.elapsed().as_secs() < 1, "{what} took {:?}", start.elapsed());
    }
}

/// In a file of 8 GiB nearly any count is possible; none is believed before its bytes are there.
#[test]
fn a_promise_in_a_large_file_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    let element_types = [0u32, 8, 9, 12];
    let arrays = element_types.map(|element| {
        let mut head = b"GGUF\x03\0\0\0".to_vec();
        head.extend([0u64, 1, 1].iter().flat_map(|n| n.to_le_bytes()));
        head.extend(b"k\x09\0\0\0");
        head.extend(element.to_le_bytes());
        head.extend((1u64 << 29).to_le_bytes());
        head
    });
    let mut counts = b"GGUF\x03\0\0\0".to_vec();
    counts.extend([1u64 << 27, 1 << 27].iter().flat_map(|n| n.to_le_bytes()));
    for head in arrays.iter().chain([&counts]) {
        std::fs::write(&path, head).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
        let source = FileSource::open(&path).unwrap();
        let start = std::time::Instant::now();
        let (result, peak) = peak(|| block_on(Gguf::read(&source)));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("longer than 64 MiB") || error.contains("truncated"), "{error}");
        assert!(peak < 65_536, "{peak} bytes allocated: {error}");
        assert!(start.elapsed().as_secs() < 1, "{error} took {:?}", start.elapsed());
    }
}
