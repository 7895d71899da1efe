// lib/onto.wgsl — a product of fours, added up in one order.
//
// Gives:  onto(sum, a, b) -> sum + a . b

fn onto(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
