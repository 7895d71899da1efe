//! Streams that share their passes: what each is given does not depend on the others, to the bit.
use super::support::{assert_close, gpu};
use super::tiny::{Tiny, session, streaming, text};
use crate::format::DType;
use crate::model::{CacheSettings, KvType, Model, Policy};
use crate::session::{Constraint, Generation, Logprobs, Session};
use crate::text::SamplerSettings;
use pollster::block_on;
use std::sync::Arc;

fn several(model: &Arc<Model>, settings: CacheSettings, streams: usize) -> Vec<Session> {
    block_on(Session::several(model.clone(), settings, streams)).unwrap()
}

fn greedy() -> SamplerSettings {
    SamplerSettings { temperature: 0.0, ..SamplerSettings::default() }
}

/// Rules of an output: every third token may not come, after it another third; and of each sixteen some are forced, few
/// or many in a row.
#[derive(Default)]
struct Rule {
    told: Vec<u32>,
    /// What has to come is not told beforehand.
    unforced: bool,
}

impl Rule {
    fn only(place: usize) -> Option<u32> {
        matches!(place % 16, 2..=4 | 6..=15).then_some((7 * place % 200) as u32)
    }
}

impl Constraint for Rule {
    fn ban(&mut self, banned: &mut [u32]) -> crate::Result<()> {
        let (only, last) = (Self::only(self.told.len()), self.told.last().unwrap_or(&0));
        for id in 0..32 * banned.len() as u32 {
            let may = only.map_or((id + last) % 3 != 0, |only| only == id);
            banned[id as usize / 32] |= u32::from(!may) << (id % 32);
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> crate::Result<()> {
        self.told.push(token);
        Ok(())
    }

    fn roll_back(&mut self, tokens: usize) -> crate::Result<()> {
        assert!(tokens <= self.told.len());
        self.told.truncate(self.told.len() - tokens);
        Ok(())
    }

    fn forced(&mut self) -> Vec<u32> {
        let places = self.told.len()..if self.unforced { 0 } else { usize::MAX };
        places.map_while(Self::only).collect()
    }
}

/// What a stream begins with, and how its tokens are chosen.
struct Story {
    prompt: Vec<u32>,
    by: SamplerSettings,
    /// Held to rules; and how many of the likeliest tokens are watched.
    ruled: bool,
    watched: Option<usize>,
}

impl Story {
    fn of(number: u64) -> Self {
        let sampled =
            SamplerSettings { temperature: 1.2, seed: number, ..SamplerSettings::default() };
        let by = match number % 3 {
            0 => greedy(),
            1 => sampled,
            _ => SamplerSettings { repeat_penalty: 1.3, penalty_last_n: 9, ..sampled },
        };
        let prompt = text(number, 3 + (11 * number as usize) % 40);
        let watched = (number % 5 == 3).then_some(2);
        Self { prompt, by, ruled: number % 4 == 1, watched }
    }

    fn begin(&self, stream: &mut Session) -> Generation {
        stream.reset();
        block_on(stream.feed(&self.prompt)).unwrap();
        let mut by = stream.generate(self.by.clone(), &[]).unwrap();
        if self.ruled {
            by.constrain(Box::new(Rule::default()));
        }
        self.watched.into_iter().for_each(|top| by.watch(top));
        by
    }

    /// Its tokens and the bits of the logits after them, by itself.
    fn alone(&self, stream: &mut Session, tokens: usize) -> (Vec<u32>, Vec<u32>) {
        let mut by = self.begin(stream);
        let told = (0..tokens).map(|_| next(stream, &mut by)).collect();
        (told, bits(stream))
    }
}

fn next(stream: &mut Session, by: &mut Generation) -> u32 {
    block_on(by.next(stream)).unwrap().unwrap()
}

fn bits(stream: &mut Session) -> Vec<u32> {
    block_on(stream.logits()).unwrap().into_iter().map(f32::to_bits).collect()
}

/// Numbers by chance, the same ones for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

#[test]
fn a_stream_among_others_is_that_of_a_session_by_itself() {
    let gpu = Arc::new(gpu());
    for tiny in [Tiny::default(), Tiny { tied: false, bias: true, ..Tiny::of_type(DType::Q4_0) }] {
        let model = tiny.model(&gpu);
        for (sinks, window) in [(4, 12), (0, 20), (4, 300)] {
            let settings = streaming(sinks, window, 16, KvType::F32);
            let mut streams = several(&model, settings, 3);
            let prompts = [text(1, 33), text(2, 5), text(3, 18)];
            let mut by: Vec<_> = (streams.iter_mut().zip(&prompts))
                .map(|(stream, prompt)| {
                    block_on(stream.feed(prompt)).unwrap();
                    stream.generate(greedy(), &[]).unwrap()
                })
                .collect();
            let mut told = vec![Vec::new(); 3];
            for _ in 0..40 {
                for i in 0..3 {
                    told[i].push(next(&mut streams[i], &mut by[i]));
                }
            }
            for i in 0..3 {
                let mut single = session(&model, settings);
                block_on(single.feed(&[&prompts[i][..], &told[i]].concat())).unwrap();
                let found = block_on(streams[i].logits()).unwrap();
                let expected = block_on(single.logits()).unwrap();
                assert_close("logits", &found, &expected, 1e-3, 0.0);
                assert_eq!(streams[i].position(), single.position());
            }
        }
    }
}

/// A story, its tokens, and the bits of the logits after them.
type Told = (Story, (Vec<u32>, Vec<u32>));

/// Neighbours come, go, pause and are disturbed, as chance has it.
fn schedule(streams: &mut [Session], told: &[Told], seed: u64) {
    let mut chance = Chance(seed);
    let many = streams.len();
    let mut going: Vec<Option<(usize, Generation, usize)>> = (0..many).map(|_| None).collect();
    let mut ended = 0;
    while ended < 2 * many {
        let i = chance.below(many);
        let stream = &mut streams[i];
        let Some((story, by, given)) = &mut going[i] else {
            let story = chance.below(told.len());
            let mut by = told[story].0.begin(stream);
            if chance.below(2) == 0 {
                by.submit_together(1 + chance.below(5));
            }
            going[i] = Some((story, by, 0));
            continue;
        };
        let (expected, logits) = &told[*story].1;
        for _ in 0..1 + chance.below(6) {
            if *given < expected.len() {
                assert_eq!(next(stream, by), expected[*given], "{seed}: stream {i}, token {given}");
                *given += 1;
            }
        }
        match chance.below(12) {
            0 => drop(bits(stream)), // led on by something else
            1 => going[i] = None,    // gone in the middle
            _ if *given == expected.len() => {
                assert_eq!(bits(stream), *logits, "{seed}: stream {i}");
                going[i] = None;
                ended += 1;
            }
            _ => {}
        }
    }
}

#[test]
fn a_streams_bits_do_not_depend_on_its_neighbours() {
    let gpu = Arc::new(gpu());
    let model = Tiny::of_type(DType::Q8_0).model(&gpu);
    let settings = streaming(4, 28, 16, KvType::F16);
    let told = |streams: &mut [Session]| -> Vec<_> {
        let of = |number| {
            let story = Story::of(number);
            let alone = story.alone(&mut streams[0], 45);
            (story, alone)
        };
        (0..9).map(of).collect()
    };
    let expected = told(&mut several(&model, settings, 1));
    for (seed, many) in [(1, 1), (2, 3), (3, 9)] {
        schedule(&mut several(&model, settings, many), &expected, seed);
    }
}

/// Eighty schedules of one kind of model and cache: five with every number of streams that there can be.
fn a_streams_bits_do_not_depend_on_its_neighbours_however_they_come_and_go(
    tiny: Tiny,
    kv: KvType,
    first: u64,
) {
    let gpu = Arc::new(gpu());
    let model = tiny.model(&gpu);
    let settings = streaming(4, 28, 16, kv);
    let mut one = several(&model, settings, 1);
    let of = |number| {
        let story = Story::of(number);
        let alone = story.alone(&mut one[0], 60);
        (story, alone)
    };
    let expected: Vec<_> = (0..12).map(of).collect();
    for many in 1..=16 {
        eprintln!("{many} streams");
        let mut streams = several(&model, settings, many);
        (0..5).for_each(|seed| schedule(&mut streams, &expected, 100 * many as u64 + seed + first));
    }
}

#[test]
#[ignore = "five minutes: 80 schedules"]
fn schedules_of_a_q4_0_model_over_half_precision() {
    let tiny = Tiny::of_type(DType::Q4_0);
    a_streams_bits_do_not_depend_on_its_neighbours_however_they_come_and_go(tiny, KvType::F16, 0);
}

#[test]
#[ignore = "five minutes: 80 schedules"]
fn schedules_of_a_q4_k_model_over_q8_0() {
    let tiny = Tiny::of_type(DType::Q4K);
    a_streams_bits_do_not_depend_on_its_neighbours_however_they_come_and_go(tiny, KvType::Q8_0, 1);
}

#[test]
#[ignore = "five minutes: 80 schedules"]
fn schedules_of_a_model_with_biases_over_single_precision() {
    let tiny = Tiny { bias: true, ..Tiny::default() };
    a_streams_bits_do_not_depend_on_its_neighbours_however_they_come_and_go(tiny, KvType::F32, 2);
}

/// Whatever the number of streams, and whether they are held to rules: weights once, and no dispatch more.
#[test]
fn a_step_of_many_streams_reads_the_weights_once() {
    let gpu = Arc::new(gpu());
    let model = Tiny::of_type(DType::Q8_0).model(&gpu);
    let mut found = Vec::new();
    for (many, ruled) in [(1, false), (2, false), (5, false), (8, false), (1, true), (8, true)] {
        let mut streams = several(&model, streaming(4, 28, 16, KvType::F16), many);
        let mut by: Vec<_> = streams
            .iter_mut()
            .map(|stream| {
                block_on(stream.feed(&text(1, 20))).unwrap();
                let mut by = stream.generate(greedy(), &[]).unwrap();
                by.submit_together(1);
                if ruled {
                    by.constrain(Box::new(Rule { unforced: true, ..Rule::default() }));
                }
                by
            })
            .collect();
        let mut step = || {
            for (stream, by) in streams.iter_mut().zip(&mut by) {
                next(stream, by);
            }
            gpu.counters.snapshot()
        };
        (0..4).for_each(|_| _ = step());
        let (before, steps) = (step(), 6);
        (1..steps).for_each(|_| _ = step());
        let cost = step() - before;
        found.push([cost.weight_bytes / steps, cost.dispatches / steps, cost.waits]);
    }
    let [bytes, dispatches, waits] = found[0];
    assert!(found.iter().all(|each| *each == [bytes, dispatches, waits]), "{found:?}");
    // Where a device has a kernel for it; what goes as a chunk does is not counted.
    assert!([0, model.step_bytes()].contains(&bytes), "{bytes}");
    assert_eq!(waits, 6, "one for all");
}

#[test]
fn among_others_rules_are_kept_and_what_is_watched_is_what_was_there() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let settings = streaming(4, 60, 16, KvType::F32);
    let mut streams = several(&model, settings, 4);
    // Two are held to rules, one of which is watched, too; one is watched alone; one is free.
    let stories = [(true, None), (true, Some(2)), (false, Some(3)), (false, None)];
    let stories = stories.map(|(ruled, watched)| Story { ruled, watched, ..Story::of(3) });
    let mut by: Vec<_> = stories.iter().zip(&mut streams).map(|(s, at)| s.begin(at)).collect();
    let mut told = [(); 4].map(|()| Vec::new());
    let mut single = session(&model, settings);
    let mut seen = Vec::new();
    for _ in 0..50 {
        for i in 0..4 {
            told[i].push(next(&mut streams[i], &mut by[i]));
        }
        seen.push(by[2].logprobs().unwrap().clone());
        assert!(by[0].logprobs().is_none() && by[1].logprobs().unwrap().top.len() == 2);
    }
    for told in &told[..2] {
        let mut rule = Rule::default();
        for &token in told {
            let mut banned = vec![0; 10];
            rule.ban(&mut banned).unwrap();
            assert_eq!(banned[token as usize / 32] >> (token % 32) & 1, 0, "{told:?}");
            rule.accept(token).unwrap();
        }
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[2], told[3]);
    block_on(single.feed(&stories[2].prompt)).unwrap();
    for (token, seen) in told[2].iter().zip(seen) {
        let expected = Logprobs::new(&block_on(single.logits()).unwrap(), *token, 3);
        assert!((seen.token - expected.token).abs() < 1e-3, "{seen:?} {expected:?}");
        assert_eq!(seen.top.len(), 3);
        block_on(single.feed(&[*token])).unwrap();
    }
    // Taken back, and said again.
    for i in [0, 1] {
        block_on(streams[i].rewind(7, told[i][42])).unwrap();
        by[i].roll_back(7).unwrap();
    }
    for expected in &told[0][43..] {
        for i in [1, 0] {
            assert_eq!(next(&mut streams[i], &mut by[i]), *expected);
        }
    }
}

#[test]
fn a_fork_goes_on_as_its_origin_does() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let settings = streaming(4, 28, 16, KvType::F32);
    let mut streams = several(&model, settings, 3);
    let mut by = Story::of(2).begin(&mut streams[0]);
    let before: Vec<_> = (0..50).map(|_| next(&mut streams[0], &mut by)).collect();
    // While the device is ahead with it, and in the middle of a lap.
    let [origin, fork, other] = &mut streams[..] else { unreachable!() };
    block_on(other.feed(&text(9, 40))).unwrap();
    fork.fork_from(origin).unwrap();
    assert_eq!(fork.position(), origin.position());
    assert_eq!(fork.recent().next_back(), before.last().copied());
    let mut twin = fork.generate(greedy(), &[]).unwrap();
    let mut alone = session(&model, settings);
    assert!(alone.fork_from(origin).is_ok(), "and out of those that share passes");
    let twins: Vec<_> = (0..20).map(|_| next(fork, &mut twin)).collect();
    let origins: Vec<_> = (0..20).map(|_| next(origin, &mut by)).collect();
    assert_eq!(fork.position(), origin.position());
    // The origin is what it would have been without.
    let mut again = several(&model, settings, 1);
    let (told, _) = Story::of(2).alone(&mut again[0], 70);
    assert_eq!([before, origins].concat(), told);
    let mut by = alone.generate(greedy(), &[]).unwrap();
    let by_itself: Vec<_> = (0..20).map(|_| next(&mut alone, &mut by)).collect();
    assert_eq!(twins, by_itself);
    let other = streaming(4, 20, 16, KvType::F32);
    let refused = session(&model, other).fork_from(&streams[0]).unwrap_err();
    assert!(refused.is_usage(), "{refused}");
}

#[test]
fn a_row_that_is_saved_goes_on_as_it_would_have() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let settings = streaming(4, 28, 16, KvType::F16);
    let mut streams = several(&model, settings, 2);
    let mut by = Story::of(4).begin(&mut streams[0]);
    let mut others = Story::of(3).begin(&mut streams[1]);
    for _ in 0..40 {
        next(&mut streams[0], &mut by);
        next(&mut streams[1], &mut others);
    }
    let saved = block_on(streams[0].snapshot(Some(&by), "")).unwrap();
    let expected: Vec<_> = (0..20).map(|_| next(&mut streams[0], &mut by)).collect();
    streams[1].restore(&saved).unwrap();
    let mut resumed = streams[1].resume(&saved).unwrap().unwrap();
    let found: Vec<_> = (0..20).map(|_| next(&mut streams[1], &mut resumed)).collect();
    assert_eq!(found, expected);
    // Taken back, and said again.
    let (last, position) = (streams[0].recent().rev().nth(5).unwrap(), streams[0].position());
    block_on(streams[0].rewind(5, last)).unwrap();
    assert_eq!(streams[0].position(), position - 5);
    let refused = block_on(streams[0].rewind(200, last)).unwrap_err();
    assert!(refused.is_usage(), "{refused}");
}

#[test]
fn what_cannot_share_passes_is_refused_in_words() {
    let gpu = Arc::new(gpu());
    let model = Tiny::default().model(&gpu);
    let settings = streaming(4, 28, 16, KvType::F16);
    for (settings, streams, says) in [
        (settings, 0, "streams"),
        (settings, 1000, "256"),
        (CacheSettings { policy: Policy::Recompute, sinks: 0, ..settings }, 2, "recompute"),
        (CacheSettings { policy: Policy::HalfDiscard, ..settings }, 2, "half-discard"),
    ] {
        let refused = block_on(Session::several(model.clone(), settings, streams));
        let refused = refused.err().expect("an error").to_string();
        assert!(refused.contains(says), "{refused}");
    }
}
