// attention_one — one token: turns its queries and its key, stores its key and value, and attends to what it sees;
//                 a workgroup has SPLIT slots of the cache and what attention_join makes one of
//
//   binding  name    access   type       shape                    unit
//   0        params  read     Params
//   1        frame   read     u32        [4]                      n: the token's position, 1, sinks kept
//   2        qkv     read     f32        [1, (H + 2 KV) HD]       activations
//   3        turns   read     vec2<f32>  [S + 2N, R/2]            cos and sin of each phase
//   4        k       write    vec4<u32>  [S + N, KV HD words/4]   keys, f16 pairs or f32 bits
//   5        v       write    vec4<u32>  [S + N, KV HD words/4]   values, the same
//   6        out     write    f32        [splits, H, HD + 2]      sums of p v, then the highest score, the sum of p;
//                                        [1, H HD]                att, with one split
//
//   grid:      [H/GROUP, splits, 1] workgroups
//   requires:  a workgroup is one subgroup; HD = HEAD_DIM, a multiple of 8, WG a multiple of HD/8; GROUP at most 4, a
//              divisor of H/KV
//   uses:      lib/ring.wgsl, lib/rope.wgsl, lib/kv.wgsl, lib/half.wgsl, lib/kv_store.wgsl
//   twin:      src/reference/rope_store.rs, then src/reference/attention.rs
//
// A lane owns a key of a tile of WG when scores are computed, and eight dimensions when values are added up: queries
// and weights go from lane to lane by subgroupShuffle, or queries through workgroup memory behind one barrier. A key or a
// value is read once for GROUP heads. The token's own key is not read back but added last, so that no workgroup waits
// for another; tiles do not depend on the ring's size, so two caches that hold the same keys at the same places give
// the same bits.

struct Params {
    heads: u32,     // H
    kv_heads: u32,  // KV
    head_dim: u32,  // HD
    rope_dim: u32,  // R
    sinks: u32,
    window: u32,
    slots: u32,
    scale: f32,     // 1 / sqrt(HD)
    splits: u32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> k: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

override WG: u32 = 64u;
override GROUP: u32 = 1u;
override HEAD_DIM: u32 = 64u;
override SPLIT: u32 = 128u;
/// Queries wait in workgroup memory, which costs a GPU fewer registers; with 0 they come from lane to lane.
override QUERIES: u32 = 1u;

const LOWEST: f32 = -3.0e38;

var<workgroup> q_scratch: array<Eight, QUERIES * 3u * GROUP * HEAD_DIM / 8u + 1u>; // [3, GROUP, HD/8]

/// Eight dimensions of up to four heads.
struct Heads {
    h0: Eight,
    h1: Eight,
    h2: Eight,
    h3: Eight,
}

fn turned8(head: u32, d: u32, phase: u32) -> Eight {
    return Eight(
        vec4(turned(head, d, phase), turned(head, d + 1u, phase), turned(head, d + 2u, phase), turned(head, d + 3u, phase)),
        vec4(turned(head, d + 4u, phase), turned(head, d + 5u, phase), turned(head, d + 6u, phase), turned(head, d + 7u, phase)),
    );
}

/// The queries of the group, dimensions d to d + 7, at one phase.
fn queries(head: u32, d: u32, phase: u32) -> Heads {
    let nothing = Eight(vec4(0.0), vec4(0.0));
    var q = Heads(turned8(head * HEAD_DIM, d, phase), nothing, nothing, nothing);
    if GROUP > 1u {
        q.h1 = turned8((head + 1u) * HEAD_DIM, d, phase);
    }
    if GROUP > 2u {
        q.h2 = turned8((head + 2u) * HEAD_DIM, d, phase);
    }
    if GROUP > 3u {
        q.h3 = turned8((head + 3u) * HEAD_DIM, d, phase);
    }
    return q;
}

fn dot8(q: Eight, key: Eight) -> vec4<f32> {
    return fma(q.a, key.a, q.b * key.b);
}

/// Eight dimensions of the query of one head at phase `kind`; `q`: what the lane has of them.
fn query(q: Eight, kind: u32, head: u32, e: u32) -> Eight {
    if QUERIES == 1u {
        return q_scratch[(kind * GROUP + head) * (HEAD_DIM / 8u) + e];
    }
    return Eight(subgroupShuffle(q.a, e), subgroupShuffle(q.b, e));
}

fn keep(q: Heads, kind: u32, e: u32) {
    let at = kind * GROUP * (HEAD_DIM / 8u) + e;
    q_scratch[at] = q.h0;
    if GROUP > 1u {
        q_scratch[at + HEAD_DIM / 8u] = q.h1;
    }
    if GROUP > 2u {
        q_scratch[at + 2u * (HEAD_DIM / 8u)] = q.h2;
    }
    if GROUP > 3u {
        q_scratch[at + 3u * (HEAD_DIM / 8u)] = q.h3;
    }
}

fn sum(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

/// The products of every head's query with the lane's own key.
fn scores(q: Heads, kind: u32, key_at: u32) -> vec4<f32> {
    var d0 = vec4(0.0);
    var d1 = vec4(0.0);
    var d2 = vec4(0.0);
    var d3 = vec4(0.0);
    // Not a constant for the compiler: unrolled, this takes twice the registers.
    for (var e = 0u; e < params.head_dim / 8u; e++) {
        let key = k8(key_at + e);
        d0 += dot8(query(q.h0, kind, 0u, e), key);
        if GROUP > 1u {
            d1 += dot8(query(q.h1, kind, 1u, e), key);
        }
        if GROUP > 2u {
            d2 += dot8(query(q.h2, kind, 2u, e), key);
        }
        if GROUP > 3u {
            d3 += dot8(query(q.h3, kind, 3u, e), key);
        }
    }
    return vec4(sum(d0), sum(d1), sum(d2), sum(d3)) * params.scale;
}

/// shrink sum + p value
fn plus(sum: Eight, shrink: f32, p: f32, value: Eight) -> Eight {
    return Eight(fma(vec4(p), value.a, sum.a * shrink), fma(vec4(p), value.b, sum.b * shrink));
}

fn plus_heads(sums: Heads, shrink: vec4<f32>, p: vec4<f32>, value: Eight) -> Heads {
    var s = sums;
    s.h0 = plus(s.h0, shrink.x, p.x, value);
    if GROUP > 1u {
        s.h1 = plus(s.h1, shrink.y, p.y, value);
    }
    if GROUP > 2u {
        s.h2 = plus(s.h2, shrink.z, p.z, value);
    }
    if GROUP > 3u {
        s.h3 = plus(s.h3, shrink.w, p.w, value);
    }
    return s;
}

fn across(sum: Eight, step: u32) -> Eight {
    return Eight(sum.a + subgroupShuffleXor(sum.a, step), sum.b + subgroupShuffleXor(sum.b, step));
}

fn finish(head: u32, split: u32, d: u32, sum: Eight, highest: f32, total: f32) {
    let one = params.splits == 1u;
    let at = select((split * params.heads + head) * (HEAD_DIM + 2u), head * HEAD_DIM, one);
    let scale = select(1.0, 1.0 / total, one);
    for (var i = 0u; i < 4u; i++) {
        out[at + d + i] = sum.a[i] * scale;
        out[at + d + 4u + i] = sum.b[i] * scale;
    }
    if !one && d == 0u {
        out[at + HEAD_DIM] = highest;
        out[at + HEAD_DIM + 1u] = total;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let ring = Ring(params.sinks, params.window, params.slots);
    let n = frame[0];
    let first_slot = group.y * SPLIT;
    let stored = min(n + 1u, params.sinks + params.slots);
    if first_slot >= stored {
        return;
    }
    let end = min(first_slot + SPLIT, stored);
    let place = ring_place(ring, n);
    let phases = ring_phases(ring, n);
    let eights = HEAD_DIM / 8u;
    let e = lane % eights;
    let team = lane / eights * eights; // the first lane of those that share a key when values are added up
    let head = group.x * GROUP;
    let sharing = params.heads / params.kv_heads;
    let kv_head = head / sharing;
    let kv_stride = params.kv_heads * eights;
    let kv_at = kv_head * eights;

    let q_this = queries(head, 8u * e, phases.x);
    let q_before = queries(head, 8u * e, phases.y);
    let q_sinks = queries(head, 8u * e, phases.z);
    if QUERIES == 1u {
        if team == 0u {
            keep(q_this, 0u, e);
            keep(q_before, 1u, e);
            keep(q_sinks, 2u, e);
        }
        workgroupBarrier();
    }
    let nothing = Eight(vec4(0.0), vec4(0.0));
    var sums = Heads(nothing, nothing, nothing, nothing);
    var highest = vec4(LOWEST);
    var total = vec4(0.0);

    for (var first = first_slot; first < end; first += WG) {
        let i = first + lane;
        var serves = ring_serves(ring, n, i, frame[2] != 0u);
        serves = select(serves, NOT_SEEN, i >= end || i == place);
        let key_at = min(i, end - 1u) * kv_stride + kv_at;
        // Which of the three a tile needs is the same for all lanes; most need one.
        var score = vec4(LOWEST);
        if first < params.sinks {
            score = select(score, scores(q_sinks, 2u, key_at), serves == 2u);
        }
        if first + WG > params.sinks && first <= place {
            score = select(score, scores(q_this, 0u, key_at), serves == 0u);
        }
        if first + WG > params.sinks && first + WG > place + 1u {
            score = select(score, scores(q_before, 1u, key_at), serves == 1u);
        }
        let now = max(highest, subgroupMax(score));
        var shrink = exp(highest - now);
        highest = now;
        let p = select(vec4(0.0), exp(score - now), score > vec4(LOWEST));
        total = fma(total, shrink, p);
        for (var j = 0u; j < eights; j++) {
            let weight = subgroupShuffle(p, team + j);
            // A key that is not seen may hold anything: it is left out, not multiplied by zero.
            var value = nothing;
            if any(weight > vec4(0.0)) {
                value = v8((first + team + j) * kv_stride + kv_at + e);
            }
            sums = plus_heads(sums, shrink, weight, value);
            shrink = vec4(1.0);
        }
    }

    if place >= first_slot && place < end {
        // As it will be read back: rounded to what the cache holds.
        let new_key = stored_as(turned8((params.heads + kv_head) * HEAD_DIM, 8u * e, place));
        let at = (params.heads + params.kv_heads + kv_head) * HEAD_DIM + 8u * e;
        let value = stored_as(Eight(
            vec4(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]),
            vec4(qkv[at + 4u], qkv[at + 5u], qkv[at + 6u], qkv[at + 7u]),
        ));
        var score = vec4(
            sum(dot8(q_this.h0, new_key)), sum(dot8(q_this.h1, new_key)),
            sum(dot8(q_this.h2, new_key)), sum(dot8(q_this.h3, new_key)),
        );
        for (var step = 1u; step < eights; step *= 2u) {
            score += subgroupShuffleXor(score, step);
        }
        score *= params.scale;
        let now = max(highest, score);
        let shrink = exp(highest - now);
        let p = exp(score - now);
        highest = now;
        total = fma(total, shrink, select(vec4(0.0), p, lane == 0u));
        sums = plus_heads(sums, shrink, select(vec4(0.0), p, team == 0u), value);
        if head % sharing == 0u && team == 0u {
            store8(place * kv_stride + kv_at + e, new_key, value);
        }
    }

    total = subgroupAdd(total);
    for (var step = eights; step < WG; step *= 2u) {
        sums.h0 = across(sums.h0, step);
        if GROUP > 1u {
            sums.h1 = across(sums.h1, step);
        }
        if GROUP > 2u {
            sums.h2 = across(sums.h2, step);
        }
        if GROUP > 3u {
            sums.h3 = across(sums.h3, step);
        }
    }
    if team != 0u {
        return;
    }
    finish(head, group.y, 8u * e, sums.h0, highest.x, total.x);
    if GROUP > 1u {
        finish(head + 1u, group.y, 8u * e, sums.h1, highest.y, total.y);
    }
    if GROUP > 2u {
        finish(head + 2u, group.y, 8u * e, sums.h2, highest.z, total.z);
    }
    if GROUP > 3u {
        finish(head + 3u, group.y, 8u * e, sums.h3, highest.w, total.w);
    }
}
