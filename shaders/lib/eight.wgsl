// lib/eight.wgsl — what keys and values are read in.
//
// Gives:  Eight: eight neighbouring dimensions; TwoEights: sixteen

struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

struct TwoEights {
    first: Eight,
    second: Eight,
}
