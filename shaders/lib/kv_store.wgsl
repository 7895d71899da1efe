// lib/kv_store.wgsl — how eight dimensions of a key and a value are stored.
//
// Needs from the kernel:  k, v: array<vec4<u32>>, to be written
// Gives:                  stored_as(eight) -> what will be read back; store8(at, key, value)
// Uses:                   lib/kv.wgsl, lib/half.wgsl

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

fn store8(at: u32, key: Eight, value: Eight) {
    if KV_F16 {
        k[at] = packed(key);
        v[at] = packed(value);
    } else {
        k[2u * at] = bitcast<vec4<u32>>(key.a);
        k[2u * at + 1u] = bitcast<vec4<u32>>(key.b);
        v[2u * at] = bitcast<vec4<u32>>(value.a);
        v[2u * at + 1u] = bitcast<vec4<u32>>(value.b);
    }
}
