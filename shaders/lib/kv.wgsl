// lib/kv.wgsl — eight neighbouring dimensions of a stored key or value: f16 pairs without shader-f16, or f32 bits.
//
// Needs from the kernel:  k, v: array<vec4<u32>>
// Gives:                  k8(at), v8(at) -> the eight dimensions from 8 `at` on
//                         v8_where(at, wanted) -> the same, or nothing
// Uses:                   lib/unpack_half.wgsl

override KV_F16: bool = true;

/// Eight neighbouring dimensions.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn halves(w: vec4<u32>) -> Eight {
    return Eight(
        vec4(unpack_half2(w.x), unpack_half2(w.y)),
        vec4(unpack_half2(w.z), unpack_half2(w.w)),
    );
}

fn k8(at: u32) -> Eight {
    if KV_F16 {
        return halves(k[at]);
    }
    return Eight(bitcast<vec4<f32>>(k[2u * at]), bitcast<vec4<f32>>(k[2u * at + 1u]));
}

fn v8(at: u32) -> Eight {
    if KV_F16 {
        return halves(v[at]);
    }
    return Eight(bitcast<vec4<f32>>(v[2u * at]), bitcast<vec4<f32>>(v[2u * at + 1u]));
}

fn v8_where(at: u32, wanted: bool) -> Eight {
    if KV_F16 {
        return halves(select(vec4(0u), v[at], wanted));
    }
    let a = select(vec4(0u), v[2u * at], wanted);
    let b = select(vec4(0u), v[2u * at + 1u], wanted);
    return Eight(bitcast<vec4<f32>>(a), bitcast<vec4<f32>>(b));
}
