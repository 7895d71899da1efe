// lib/attention_params.wgsl — what every kernel around the cache is told: `AttentionParams` of src/ops/attention.rs.
//
// Gives:  Params; the kernel binds it as `params`, or within its own; splits_of(params)

struct Params {
    heads: u32,     // H
    kv_heads: u32,  // KV
    head_dim: u32,  // HD
    rope_dim: u32,  // R
    sinks: u32,     // S
    window: u32,    // W
    slots: u32,     // N
    scale: f32,     // 1 / sqrt(HD)
    cap: f32,       // scores are kept below it, where the kernel does so
    forgets: u32,   // 1 where sinks are tokens like others, whatever the frame says
    first: u32,     // the first slot that a dispatch looks at
    span: u32,      // slots that a dispatch looks at; of one token: that a workgroup does
    stride: u32,    // slots from one stream's first to the next one's
}

/// Splits of a cache that workgroups share out.
fn splits_of(params: Params) -> u32 {
    return (params.sinks + params.slots + params.span - 1u) / params.span;
}
