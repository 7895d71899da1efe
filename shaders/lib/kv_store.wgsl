// lib/kv_store.wgsl — how the token's own key and value are stored by the kernel that attends: f16 pairs, or f32 bits.
//
// Needs from the kernel:  k, v: array<vec4<u32>>, to be written; turned8(head, d, phase); raw8(at)
// Gives:                  stage_own(lane, key_row, value_row, place) -> nothing: here no dimension needs another
//                         own_key(key_row, e, place), own_value(value_row, e) -> dimensions 8 e to 8 e + 7 as they will be
//                         read back; store8(at, e, key, value) stores them
// Uses:                   lib/kv.wgsl, lib/half.wgsl

fn stage_own(lane: u32, key_row: u32, value_row: u32, place: u32) {}

fn own_key(key_row: u32, e: u32, place: u32) -> Eight {
    return stored_as(turned8(key_row, 8u * e, place));
}

fn own_value(value_row: u32, e: u32) -> Eight {
    return stored_as(raw8(value_row + 8u * e));
}

fn packed(v: Eight) -> vec4<u32> {
    return vec4(
        half_pair(v.a.xy), half_pair(v.a.zw), half_pair(v.b.xy), half_pair(v.b.zw),
    );
}

fn stored_as(v: Eight) -> Eight {
    if KV_F16 {
        return halves(packed(v));
    }
    return v;
}

fn store8(at: u32, e: u32, key: Eight, value: Eight) {
    let i = at + e;
    if KV_F16 {
        k[i] = packed(key);
        v[i] = packed(value);
    } else {
        k[2u * i] = bitcast<vec4<u32>>(key.a);
        k[2u * i + 1u] = bitcast<vec4<u32>>(key.b);
        v[2u * i] = bitcast<vec4<u32>>(value.a);
        v[2u * i + 1u] = bitcast<vec4<u32>>(value.b);
    }
}
