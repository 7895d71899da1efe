// lib/five.wgsl — what reduce_sum5 gives, by either way of adding up.

struct Five {
    four: vec4<f32>,
    fifth: f32,
}
