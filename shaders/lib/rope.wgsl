// lib/rope.wgsl — a head of qkv, turned.
//
// Needs from the kernel:  params (rope_dim), qkv: array<f32>, turns: array<vec2<f32>> (cos and sin of each phase)
// Gives:                  turned(head, d, phase) -> dimension d of the head that starts at qkv[head]
//
//   (a, b) -> (a cos - b sin, a sin + b cos) for each pair of the first R dimensions of a head;
//   a pair is (2i, 2i + 1), or (i, i + R/2) with NEOX; the other dimensions pass

override NEOX: bool = false;

fn turned(head: u32, d: u32, phase: u32) -> f32 {
    let half = params.rope_dim / 2u;
    if d >= params.rope_dim {
        return qkv[head + d];
    }
    let first = select(d % 2u == 0u, d < half, NEOX);
    let pair = select(d / 2u, d % half, NEOX);
    let reach = select(1u, half, NEOX);
    let turn = turns[phase * half + pair];
    if first {
        return qkv[head + d] * turn.x - qkv[head + d + reach] * turn.y;
    }
    return qkv[head + d - reach] * turn.y + qkv[head + d] * turn.x;
}
