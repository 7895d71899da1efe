// attention_one — one token of a stream, and of others their own: turns its queries and its key, stores its key and value,
//                 and attends to what it sees; a workgroup has a split of the cache, which attention_join makes one of
//
//   binding  name    access   type       shape                    unit
//   0        params  read     Params                              span: slots of a split
//   1        frame   read     u32        [4], or [R, 64]          n: the token's position, rows (in the first one's), sinks
//                                                                 kept and twice the stream
//   2        qkv     read     f32        [R, (H + 2 KV) HD]       activations
//   3        turns   read     vec2<f32>  [S + 2N, R/2]            cos and sin of each phase
//   4        terms   read     vec4<f32>  [H]                      ALiBi's slope; what softmax starts from: a score, a sum; 0
//   5        k       write    vec4<u32>  [S + N, KV HD words/4]   keys, as lib/kv.wgsl or lib/kv_blocks.wgsl has them; of
//                                                                 several streams one after another, `stride` slots apart
//   6        v       write    vec4<u32>  [S + N, KV HD words/4]   values, the same
//   7        out     write    vec4<f32>  [R, splits, H, HD/4 + 1] sums of p v, then the highest score, the sum of p;
//                                        [R, H HD/4]              att, with one split
//
//   grid:      [H/GROUP, splits, R] workgroups
//   requires:  HD = HEAD_DIM, a multiple of 8; WG a power of two, at most 64; PIECES = ceil(HD/8 / WG), 1 unless SHUFFLED; SPLIT = span, a
//              multiple of WG; GROUP at most 4, a divisor of H/KV; TEAMS HD/8 at most WG, or 1; STEP 1, 2 or 4, a divisor
//              of HD/8; where SHUFFLED, TEAMS a power of two and STEP 1
//   uses:      lib/attention_params.wgsl, lib/frame.wgsl, lib/score.wgsl, lib/ring.wgsl, lib/rope.wgsl, lib/half.wgsl; lib/kv.wgsl and
//              lib/kv_store.wgsl, or lib/kv_blocks.wgsl and lib/kv_blocks_store.wgsl; lib/reduce4.wgsl and lib/lanes.wgsl, or lib/reduce_subgroup.wgsl and
//              lib/lanes_subgroup.wgsl where a workgroup is one subgroup (attention_one_subgroup)
//   twin:      src/reference/rope_store.rs, then src/reference/attention.rs
//
// Scores of the whole split first, a lane a key; then the highest of them, once; then what they weigh; then values, a
// lane eight dimensions, TEAMS keys at a time. So a split costs a handful of barriers, whatever its length, and nothing
// is ever weighed anew. The slots of a split that one of the three queries serves are neighbours: sinks, this lap, the
// lap before. The queries are turned for each of these in turn, into the same workgroup memory.
// A key or a value is read once for GROUP heads. The token's own key is not read back, so that no workgroup waits for
// another; splits do not depend on the ring's size, so two caches that hold the same keys at the same places give the
// same bits. What softmax starts from is the first split's: where that holds nothing else, the join has it all the same.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> terms: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> k: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> v: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

override WG: u32 = 64u;
override GROUP: u32 = 1u;
override HEAD_DIM: u32 = 64u;
override SPLIT: u32 = 128u;
/// Lanes that have a head's dimensions between them are a team; so many of them share out a split's values.
override TEAMS: u32 = 8u;
/// Eights of a key, and values, that a lane asks for at once.
override STEP: u32 = 1u;
/// A lane has so many times eight dimensions, one after another.
override PIECES: u32 = 1u;
/// The larger of GROUP HD/8 and WG.
override ROOM: u32 = 64u;

var<workgroup> eight_scratch: array<Eight, ROOM>;    // queries [GROUP, HD/8]; later what each lane has summed up
var<workgroup> p_scratch: array<f32, GROUP * SPLIT>; // [SPLIT, GROUP]: scores, then weights

/// Eight dimensions of up to four heads.
struct Heads {
    h0: Eight,
    h1: Eight,
    h2: Eight,
    h3: Eight,
}

/// Products of up to four heads, to be added up.
struct Products {
    d0: vec4<f32>,
    d1: vec4<f32>,
    d2: vec4<f32>,
    d3: vec4<f32>,
}

fn put_p(i: u32, p: vec4<f32>) {
    let at = GROUP * i;
    p_scratch[at] = p.x;
    if GROUP > 1u {
        p_scratch[at + 1u] = p.y;
    }
    if GROUP > 2u {
        p_scratch[at + 2u] = p.z;
    }
    if GROUP > 3u {
        p_scratch[at + 3u] = p.w;
    }
}

fn get_p(i: u32) -> vec4<f32> {
    let at = GROUP * i;
    var p = vec4(p_scratch[at], 0.0, 0.0, 0.0);
    if GROUP > 1u {
        p.y = p_scratch[at + 1u];
    }
    if GROUP > 2u {
        p.z = p_scratch[at + 2u];
    }
    if GROUP > 3u {
        p.w = p_scratch[at + 3u];
    }
    return p;
}

fn turned8(head: u32, d: u32, phase: u32) -> Eight {
    return Eight(
        vec4(turned(head, d, phase), turned(head, d + 1u, phase), turned(head, d + 2u, phase), turned(head, d + 3u, phase)),
        vec4(turned(head, d + 4u, phase), turned(head, d + 5u, phase), turned(head, d + 6u, phase), turned(head, d + 7u, phase)),
    );
}

fn raw8(at: u32) -> Eight {
    return Eight(
        vec4(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]),
        vec4(qkv[at + 4u], qkv[at + 5u], qkv[at + 6u], qkv[at + 7u]),
    );
}

/// Turns the queries of the group, which begin at `at`, for what comes next.
fn turn_queries(lane: u32, at: u32, phase: u32) {
    let eights = HEAD_DIM / 8u;
    workgroupBarrier();
    for (var i = lane; i < GROUP * eights; i += WG) {
        eight_scratch[i] = turned8(at + i / eights * HEAD_DIM, 8u * (i % eights), phase);
    }
    workgroupBarrier();
}

/// Dimensions 8 e to 8 e + 7 of the queries of the group.
fn kept_queries(e: u32) -> Heads {
    let nothing = Eight(vec4(0.0), vec4(0.0));
    var q = Heads(eight_scratch[e], nothing, nothing, nothing);
    if GROUP > 1u {
        q.h1 = eight_scratch[e + HEAD_DIM / 8u];
    }
    if GROUP > 2u {
        q.h2 = eight_scratch[e + 2u * (HEAD_DIM / 8u)];
    }
    if GROUP > 3u {
        q.h3 = eight_scratch[e + 3u * (HEAD_DIM / 8u)];
    }
    return q;
}

/// The same; `own`: what the lane has of them where lanes have them from one another.
fn queries(own: Heads, e: u32) -> Heads {
    if !SHUFFLED {
        return kept_queries(e);
    }
    var q = own;
    q.h0 = lane_eight(own.h0, e);
    if GROUP > 1u {
        q.h1 = lane_eight(own.h1, e);
    }
    if GROUP > 2u {
        q.h2 = lane_eight(own.h2, e);
    }
    if GROUP > 3u {
        q.h3 = lane_eight(own.h3, e);
    }
    return q;
}

fn plus_product(sum: vec4<f32>, q: Eight, key: Eight) -> vec4<f32> {
    return fma(q.a, key.a, fma(q.b, key.b, sum));
}

/// Adds the products of every head's query with eight dimensions of a key.
fn plus_products(before: Products, q: Heads, key: Eight) -> Products {
    var d = before;
    d.d0 = plus_product(d.d0, q.h0, key);
    if GROUP > 1u {
        d.d1 = plus_product(d.d1, q.h1, key);
    }
    if GROUP > 2u {
        d.d2 = plus_product(d.d2, q.h2, key);
    }
    if GROUP > 3u {
        d.d3 = plus_product(d.d3, q.h3, key);
    }
    return d;
}

fn no_products() -> Products {
    return Products(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
}

fn sum(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn summed(d: Products) -> vec4<f32> {
    return vec4(sum(d.d0), sum(d.d1), sum(d.d2), sum(d.d3));
}

/// Adds the products of every head's query with the lane's own key, of eights `begin` to `end`; `q`: what the lane has of
/// them where lanes have them from one another.
fn products(before: Products, q: Heads, key_at: u32, begin: u32, end: u32) -> Products {
    var d = before;
    // No constant bounds for the compiler: unrolled, this takes twice the registers.
    for (var e = begin; e < end; e += STEP) {
        if STEP == 1u {
            d = plus_products(d, queries(q, e - begin), k8(key_at, e));
        }
        if STEP == 2u {
            let near = k16(key_at, e);
            d = plus_products(d, queries(q, e), near.first);
            d = plus_products(d, queries(q, e + 1u), near.second);
        }
        if STEP == 4u {
            let near = k16(key_at, e);
            let far = k16(key_at, e + 2u);
            d = plus_products(d, queries(q, e), near.first);
            d = plus_products(d, queries(q, e + 1u), near.second);
            d = plus_products(d, queries(q, e + 2u), far.first);
            d = plus_products(d, queries(q, e + 3u), far.second);
        }
    }
    return d;
}

/// What the values of a split are found by.
struct Split {
    stream: u32,   // the stream's first slot of all
    first: u32,    // the split's first slot
    count: u32,    // how many are stored
    place: u32,    // the token's own slot
    kv_head: u32,
    e: u32,        // which eight of its dimensions are the lane's
}

fn value_at(split: Split, slot: u32) -> u32 {
    return kv_at(split.stream + slot, split.kv_head, params.kv_heads);
}

/// What slot i of a split weighs; nothing beyond its end.
fn weights(split: Split, i: u32) -> vec4<f32> {
    return select(vec4(0.0), get_p(min(i, split.count - 1u)), i < split.count);
}

/// Slot i's value. One that is not seen may hold anything, and the token's own comes later: they are nothing.
fn value(split: Split, i: u32, p: vec4<f32>) -> Eight {
    let slot = split.first + min(i, split.count - 1u);
    return v8_where(value_at(split, slot), split.e, any(p > vec4(0.0)) && slot != split.place);
}

fn plus(sum: Eight, p: f32, value: Eight) -> Eight {
    return Eight(fma(vec4(p), value.a, sum.a), fma(vec4(p), value.b, sum.b));
}

fn plus_heads(sums: Heads, p: vec4<f32>, value: Eight) -> Heads {
    var s = sums;
    s.h0 = plus(s.h0, p.x, value);
    if GROUP > 1u {
        s.h1 = plus(s.h1, p.y, value);
    }
    if GROUP > 2u {
        s.h2 = plus(s.h2, p.z, value);
    }
    if GROUP > 3u {
        s.h3 = plus(s.h3, p.w, value);
    }
    return s;
}

fn no_heads() -> Heads {
    let nothing = Eight(vec4(0.0), vec4(0.0));
    return Heads(nothing, nothing, nothing, nothing);
}

/// Adds up the values of a split, a slot a team at a time.
fn all_values(count: u32, split: Split, team: u32) -> Heads {
    var sums = no_heads();
    for (var i = team; i < count; i += STEP * TEAMS) {
        let p0 = weights(split, i);
        let value0 = value(split, i, p0);
        if STEP == 1u {
            sums = plus_heads(sums, p0, value0);
        }
        if STEP > 1u {
            let p1 = weights(split, i + TEAMS);
            let value1 = value(split, i + TEAMS, p1);
            if STEP == 2u {
                sums = plus_heads(sums, p0, value0);
                sums = plus_heads(sums, p1, value1);
            }
            if STEP == 4u {
                let p2 = weights(split, i + 2u * TEAMS);
                let value2 = value(split, i + 2u * TEAMS, p2);
                let p3 = weights(split, i + 3u * TEAMS);
                let value3 = value(split, i + 3u * TEAMS, p3);
                sums = plus_heads(sums, p0, value0);
                sums = plus_heads(sums, p1, value1);
                sums = plus_heads(sums, p2, value2);
                sums = plus_heads(sums, p3, value3);
            }
        }
    }
    return sums;
}

/// The same, weights going from lane to lane. The bounds of the inner loop are constants, so that it is unrolled.
fn shuffled_values(count: u32, split: Split, lane: u32, team: u32) -> Heads {
    var sums = no_heads();
    for (var first = 0u; first < count; first += WG) {
        let mine = weights(split, first + lane);
        let own = select(mine, vec4(0.0), split.first + first + lane == split.place);
        for (var i = 0u; i < WG; i += TEAMS) {
            let p = lane_four(own, i + team);
            var value = Eight(vec4(0.0), vec4(0.0));
            if any(p > vec4(0.0)) {
                value = v8(value_at(split, split.first + first + i + team), split.e);
            }
            sums = plus_heads(sums, p, value);
        }
    }
    return sums;
}

/// The sums of all teams, for the first of them.
fn joined(lane: u32, own: Eight) -> Eight {
    var sum = own;
    if TEAMS > 1u {
        workgroupBarrier();
        eight_scratch[lane] = own;
        workgroupBarrier();
        if lane < HEAD_DIM / 8u {
            for (var team = 1u; team < TEAMS; team++) {
                let other = eight_scratch[team * (HEAD_DIM / 8u) + lane];
                sum = Eight(sum.a + other.a, sum.b + other.b);
            }
        }
    }
    return sum;
}

/// `split`: counted over all rows.
fn finish(head: u32, split: u32, e: u32, sum: Eight, highest: f32, total: f32) {
    let one = params.sinks + params.slots <= params.span;
    let fours = HEAD_DIM / 4u;
    let at = (split * params.heads + head) * select(fours + 1u, fours, one);
    let by = select(1.0, 1.0 / total, one);
    out[at + 2u * e] = sum.a * by;
    out[at + 2u * e + 1u] = sum.b * by;
    if !one && e == 0u {
        out[at + fours] = vec4(highest, total, 0.0, 0.0);
    }
}

/// Every head's sums, of which the first team has eight dimensions a lane.
fn finish_all(head: u32, split: u32, lane: u32, e: u32, sums: Heads, highest: vec4<f32>, total: vec4<f32>) {
    let h0 = joined(lane, sums.h0);
    let writes = lane < HEAD_DIM / 8u && e < HEAD_DIM / 8u;
    if writes {
        finish(head, split, e, h0, highest.x, total.x);
    }
    if GROUP > 1u {
        let h1 = joined(lane, sums.h1);
        if writes {
            finish(head + 1u, split, e, h1, highest.y, total.y);
        }
    }
    if GROUP > 2u {
        let h2 = joined(lane, sums.h2);
        if writes {
            finish(head + 2u, split, e, h2, highest.z, total.z);
        }
    }
    if GROUP > 3u {
        let h3 = joined(lane, sums.h3);
        if writes {
            finish(head + 3u, split, e, h3, highest.w, total.w);
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let ring = Ring(params.sinks, params.window, params.slots);
    if group.z >= frame[1] {
        return;
    }
    let n = frame[FRAME_ROW * group.z];
    let kept = (frame[FRAME_ROW * group.z + 2u] & 1u) > params.forgets;
    let stream = params.stride * (frame[FRAME_ROW * group.z + 2u] >> 1u);
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
    let team = lane / eights;
    let head = group.x * GROUP;
    let sharing = params.heads / params.kv_heads;
    let kv_head = head / sharing;
    let row = group.z * (params.heads + 2u * params.kv_heads) * HEAD_DIM;
    let key_row = row + (params.heads + kv_head) * HEAD_DIM;
    let value_row = key_row + params.kv_heads * HEAD_DIM;

    // Softmax starts once: with the first split.
    let begins_here = group.y == 0u;
    let own = terms_of(head + min(vec4(0u, 1u, 2u, 3u), vec4(GROUP - 1u)));
    var most = select(vec4(LOWEST), own.highest, begins_here);
    for (var kind = 0u; kind < 3u; kind++) {
        // What is stored this lap, the lap before, as sinks.
        var begins = vec3(params.sinks, max(place + 1u, params.sinks), 0u)[kind];
        let ends = min(end, vec3(place + 1u, end, params.sinks)[kind]);
        begins = max(begins, first_slot);
        if begins >= ends {
            continue;
        }
        turn_queries(lane, row + head * HEAD_DIM, phases[kind]);
        for (var piece = 0u; piece < PIECES; piece++) {
            let q = kept_queries(min(piece * WG + e, eights - 1u));
            let last = select(min((piece + 1u) * WG, eights), params.head_dim / 8u, PIECES == 1u);
            for (var first = begins; first < ends; first += WG) {
                let i = first + lane;
                let key_at = kv_at(stream + min(i, ends - 1u), kv_head, params.kv_heads);
                let found = summed(products(no_products(), q, key_at, piece * WG, last));
                if i < ends && i != place {
                    var sums = found;
                    if piece > 0u {
                        sums += get_p(i - first_slot);
                    }
                    if piece + 1u == PIECES {
                        let seen = ring_serves(ring, n, i, kept) != NOT_SEEN;
                        let score = biased(scores_of(params, sums), own.slope, vec4(phases[kind]), i);
                        sums = select(vec4(LOWEST), score, seen);
                        most = max(most, sums);
                    }
                    put_p(i - first_slot, sums);
                }
            }
        }
        if begins <= place && place < ends {
            stage_own(lane, key_row, value_row, place);
            var d = no_products();
            for (var part = lane; part < eights; part += WG) {
                // As it will be read back: rounded to what the cache holds.
                let key = own_key(key_row, part, place);
                d = plus_products(d, kept_queries(part), key);
                if head % sharing == 0u {
                    store8(kv_at(stream + place, kv_head, params.kv_heads), part, key, own_value(value_row, part));
                }
            }
            // Nothing is between a token and itself.
            let score = scores_of(params, reduce_sum4(lane, summed(d)));
            most = max(most, score);
            if lane == 0u {
                put_p(place - first_slot, score);
            }
        }
    }
    workgroupBarrier();
    let highest = reduce_max4(lane, most);
    var total = vec4(0.0);
    for (var i = lane; i < end - first_slot; i += WG) {
        let p = weights_of(get_p(i), highest);
        put_p(i, p);
        total += p;
    }
    total = reduce_sum4(lane, total);
    total += select(vec4(0.0), own.total * exp(own.highest - highest), begins_here);
    workgroupBarrier();

    for (var piece = 0u; piece < PIECES; piece++) {
        let own_e = piece * WG + e;
        let at = min(own_e, eights - 1u);
        let split = Split(stream, first_slot, end - first_slot, place, kv_head, at);
        var sums = no_heads();
        if SHUFFLED {
            sums = shuffled_values(end - first_slot, split, lane, team);
        } else {
            sums = all_values(end - first_slot, split, team);
        }
        if first_slot <= place && place < end {
            let p = select(vec4(0.0), get_p(place - first_slot), team == 0u);
            sums = plus_heads(sums, p, own_value(value_row, at));
        }
        finish_all(head, group.z * splits_of(params) + group.y, lane, own_e, sums, highest, total);
    }
}
