// lib/kv_store.wgsl — how eight dimensions of a key and a value are stored.
//
// Needs from the kernel:  k, v: array<vec4<u32>>, to be written
// Gives:                  stored_as(eight) -> what will be read back; store8(at, key, value)
// Uses:                   lib/kv.wgsl

fn packed(v: Eight) -> vec4<u32> {
    return vec4(
        pack2x16float(v.a.xy), pack2x16float(v.a.zw), pack2x16float(v.b.xy), pack2x16float(v.b.zw),
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
