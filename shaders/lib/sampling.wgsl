// lib/sampling.wgsl — what the tokens of a stream are drawn by
//
// Needs from the kernel:  nothing
// Gives:                  Sampling, one to a stream

struct Sampling {
    temperature: f32, // 0 takes the likeliest
    top_k: u32,       // 0 keeps all
    top_p: f32,
    min_p: f32,
    repeat: f32,
    presence: f32,
    frequency: f32,
    recent: u32,      // ids that count as recent: 0 without penalties
    seed_low: u32,
    seed_high: u32,
    each: u32,        // EACH, candidates of a slice: top-k, or all of it
    @size(212)        // so that the next one begins after 256 bytes
    biased: u32,      // 1 where something is added to logits
}
