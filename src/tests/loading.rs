//! How a model comes from its file.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::Result;
use crate::format::{BytesSource, Gguf, Source};
use crate::model::{KvType, Model};
use pollster::block_on;
use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

/// A file that comes once, from front to back, as from a network: what was released is gone.
struct Stream {
    bytes: BytesSource,
    released: Cell<u64>,
    furthest: Cell<u64>,
    /// The most bytes that had to be kept at a time.
    most_kept: Cell<u64>,
}

impl Source for Stream {
    fn name(&self) -> &str {
        self.bytes.name()
    }

    fn len(&self) -> u64 {
        self.bytes.len()
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        assert!(range.start >= self.released.get(), "{range:?} was released");
        self.furthest.set(self.furthest.get().max(range.end));
        self.most_kept.set(self.most_kept.get().max(self.furthest.get() - self.released.get()));
        self.bytes.bytes(range).await
    }

    fn release(&self, end: u64) {
        assert!(end >= self.released.get());
        self.released.set(end);
    }
}

#[test]
fn a_model_is_loaded_in_the_order_of_its_file_whatever_that_is() {
    let gpu = Arc::new(gpu());
    let tiny = Tiny { n_layer: 12, n_embd: 128, tied: false, bias: true, ..Tiny::default() };
    let logits = |model: &Arc<Model>| {
        let mut session = session(model, streaming(4, 12, 8, KvType::F32));
        block_on(session.feed(&[1, 2, 3])).unwrap();
        block_on(session.logits()).unwrap()
    };
    let expected = logits(&tiny.model(&gpu));
    for backwards in [false, true] {
        let mut file = tiny.parts();
        // as converters write them, by name: 10 before 2, the output last
        file.tensors.sort_by(|a, b| a.0.cmp(&b.0));
        if backwards {
            file.tensors.reverse();
        }
        let bytes = BytesSource::new("stream.gguf", file.bytes());
        let zero = || Cell::new(0);
        let stream = Stream { bytes, released: zero(), furthest: zero(), most_kept: zero() };
        let gguf = block_on(Gguf::read(&stream)).unwrap();
        stream.furthest.set(0);
        stream.most_kept.set(0);
        stream.released.set(gguf.data_offset);
        let mut last = (0, 0);
        let mut progress = |done, total| last = (done, total);
        let model = block_on(Model::load(gpu.clone(), &stream, &gguf, &mut progress)).unwrap();
        assert_eq!(last.0, last.1, "every byte was told of");
        assert_eq!(logits(&Arc::new(model)), expected, "backwards: {backwards}");
        let layer = (stream.len() - gguf.data_offset) / 12;
        let kept = stream.most_kept.get();
        assert!(kept <= 2 * layer, "{kept} bytes had to be kept, a layer has {layer}");
    }
}

/// llama.cpp adds whichever of these biases a llama has. Here some are of one layer alone, as none is of all.
#[test]
fn biases_of_every_matrix_are_added() {
    let gpu = Arc::new(gpu());
    let all = &["attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_v"];
    let (lone_up, down): (&[_], &[_]) = (&["ffn_up"], &["ffn_down", "ffn_gate"]);
    for biases in [all, lone_up, down, &["attn_output"]] {
        let tiny = Tiny { biases, tied: false, seed: 4, ..Tiny::default() };
        let model = tiny.model(&gpu);
        let plain = Tiny { biases: &[], ..tiny.clone() }.model(&gpu);
        let tokens = text(3, 24);
        let mut oracle = tiny.oracle(4, 40);
        let expected: Vec<Vec<f32>> = tokens
            .iter()
            .map(|&token| oracle.step(token).iter().map(|&logit| logit as f32).collect())
            .collect();
        let mut chunks = session(&model, streaming(4, 40, 24, KvType::F32));
        block_on(chunks.feed(&tokens)).unwrap();
        let found = block_on(chunks.logits()).unwrap();
        assert_close(&format!("{biases:?}, a chunk"), &found, &expected[23], 1e-3, 0.0);
        let mut steps = session(&model, streaming(4, 40, 1, KvType::F32));
        for (t, (token, expected)) in tokens.iter().zip(&expected).enumerate() {
            block_on(steps.feed(&[*token])).unwrap();
            let found = block_on(steps.logits()).unwrap();
            assert_close(&format!("{biases:?}, step {t}"), &found, expected, 1e-3, 0.0);
        }
        // large enough to matter
        let mut without = session(&plain, streaming(4, 40, 24, KvType::F32));
        block_on(without.feed(&tokens)).unwrap();
        let without = block_on(without.logits()).unwrap();
        let apart = without.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart > 0.02, "{biases:?} change nothing: {apart}");
        assert!(model.bytes() > plain.bytes());
    }
}
