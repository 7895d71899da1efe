// lib/kv.wgsl — eight neighbouring dimensions of a stored key or value: f16 pairs without shader-f16, or f32 bits.
//
// Needs from the kernel:  k, v: array<vec4<u32>>, [S + N, KV, HD words/4]; HEAD_DIM
// Gives:                  kv_at(slot, kv_head, kv_heads) -> where a head of a slot is
//                         k8(at, e), v8(at, e) -> its dimensions 8 e to 8 e + 7; k16(at, e) -> and eight more
//                         v8_where(at, e, wanted) -> the same, or nothing
// Uses:                   lib/eight.wgsl, lib/unpack_half.wgsl

override KV_F16: bool = true;

fn kv_at(slot: u32, kv_head: u32, kv_heads: u32) -> u32 {
    return (slot * kv_heads + kv_head) * (HEAD_DIM / 8u);
}

fn halves(w: vec4<u32>) -> Eight {
    return Eight(
        vec4(unpack_half2(w.x), unpack_half2(w.y)),
        vec4(unpack_half2(w.z), unpack_half2(w.w)),
    );
}

fn k8(at: u32, e: u32) -> Eight {
    let i = at + e;
    if KV_F16 {
        return halves(k[i]);
    }
    return Eight(bitcast<vec4<f32>>(k[2u * i]), bitcast<vec4<f32>>(k[2u * i + 1u]));
}

fn k16(at: u32, e: u32) -> TwoEights {
    return TwoEights(k8(at, e), k8(at, e + 1u));
}

fn v8(at: u32, e: u32) -> Eight {
    let i = at + e;
    if KV_F16 {
        return halves(v[i]);
    }
    return Eight(bitcast<vec4<f32>>(v[2u * i]), bitcast<vec4<f32>>(v[2u * i + 1u]));
}

fn v8_where(at: u32, e: u32, wanted: bool) -> Eight {
    let i = at + e;
    if KV_F16 {
        return halves(select(vec4(0u), v[i], wanted));
    }
    let a = select(vec4(0u), v[2u * i], wanted);
    let b = select(vec4(0u), v[2u * i + 1u], wanted);
    return Eight(bitcast<vec4<f32>>(a), bitcast<vec4<f32>>(b));
}
