//! Families whose streams share their passes: against transformers, too.
use super::{Sequence, Tiny};
use crate::model::{Model, Policy};
use crate::session::Session;
use crate::tests::support::gpu;
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;

impl Tiny {
    /// The tokens that transformers chooses, beside a stream that says something else.
    fn goes_in_rows(&self, model: &Arc<Model>) {
        let settings = Tiny::settings(model, Policy::Dense, 64);
        let mut sessions = match block_on(Session::several(model.clone(), settings, 3)) {
            Ok(sessions) => sessions,
            Err(error) => {
                let states = model.config.layers.iter().any(|kind| !kind.attends());
                assert!(states && error.to_string().contains("states"), "{}: {error}", self.name);
                return;
            }
        };
        let [session, other, _] = &mut sessions[..] else { unreachable!() };
        let Sequence { tokens, .. } = self.sequence("long");
        block_on(other.feed(&tokens[..tokens.len() / 2])).unwrap();
        let mut beside = other.generate(SamplerSettings::default(), &[]).unwrap();
        for _ in 0..3 {
            block_on(beside.next(other)).unwrap();
        }
        self.agrees(session, self.sequence("long"));
    }
}

fn holds(names: &[&'static str]) {
    let gpu = Arc::new(gpu());
    for name in names {
        let tiny = Tiny::of(name);
        tiny.goes_in_rows(&tiny.model(&gpu, |_| ()));
    }
}

#[test]
fn learned_positions_are_in_no_pass_of_several_streams() {
    let gpu = Arc::new(gpu());
    let model = Tiny::of("gpt2").model(&gpu, |_| ());
    let settings = Tiny::settings(&model, Policy::Dense, 64);
    let refused = block_on(Session::several(model, settings, 2)).err().expect("an error");
    assert!(refused.to_string().contains("learned positions"), "{refused}");
}

/// Norms in every place, ALiBi, experts, states.
#[test]
fn families_of_many_kinds_share_passes() {
    holds(&["gemma3", "bloom", "qwen3moe", "lfm2"]);
}

#[test]
#[ignore = "a minute: the other families"]
fn all_families_share_passes() {
    holds(&[
        "qwen2",
        "qwen3",
        "gptneox",
        "mpt",
        "falcon40",
        "gemma",
        "gemma2",
        "gemma4",
        "phi3",
        "smollm3",
        "granite",
        "stablelm",
        "starcoder2",
        "phi2",
        "olmo2",
        "olmo3",
        "glm4",
        "exaone4",
        "mixtral",
        "mistral3",
        "gptoss_mxfp4",
        "qwen35",
    ]);
}
