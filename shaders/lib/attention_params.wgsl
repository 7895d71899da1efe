// lib/attention_params.wgsl — what every kernel around the cache is told: `AttentionParams` of src/ops/attention.rs.
//
// Gives:  Params; the kernel binds it as `params`, or within its own

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
}
