// attention_columns — out[t, h] = sum_i p_i v_i,  p = softmax_i(q_i . k_i / sqrt(HD)) over the keys that token t sees,
//                     as attention, for the tokens of a chunk on software drivers
//
//   binding  name    access   type       shape                  unit
//   0        params  read     Params
//   1        frame   read     u32        [4]                    n: position of the first token, tokens, sinks kept
//   2        q       read     vec4<f32>  [T, 3, H HD/4]         queries at: this lap, lap before, sinks
//   3        k       read     vec4<u32>  [S + N, KV HD words/4] keys, as lib/kv.wgsl or lib/kv_blocks.wgsl has them
//   4        v       read     vec4<u32>  [S + N, KV HD words/4] values, the same
//   5        terms   read     vec4<f32>  [H]                    ALiBi's slope; what softmax starts from: a score, a sum; 0
//   6        out     write    vec4<f32>  [T, H HD/4]            activations; before the last span its sums
//   7        carry   write    vec2<f32>  [T, H]                 the highest score and the sum of exponentials so far
//
//   grid:      [ceil(T H/KV / QUERIES), KV, 1] workgroups, QUERIES = 256/HD WG: of neighbouring tokens, all heads that
//              share keys
//   requires:  HD = HEAD_DIM, 64 or 128; a workgroup is one subgroup, of four lanes at least
//   uses:      lib/attention_params.wgsl, lib/score.wgsl, lib/ring.wgsl, lib/kv.wgsl or lib/kv_blocks.wgsl,
//              lib/kinds.wgsl
//   twin:      src/reference/attention.rs
//
// A lane owns four queries (of 64 dimensions, or two of 128) and their sums, so that nothing is added up across lanes, and
// nothing but scores waits in workgroup memory, each lane's own. A key or value is read by a few lanes, eight
// dimensions each, and broadcast: there reading is what costs. Which of its three queries a key needs is nearly always the
// same for a whole tile; a tile that nobody sees is passed over. Tiles and the order inside them do not depend on the
// ring's size, so two caches that hold the same keys at the same places give the same bits. One dispatch looks at a span
// of slots; sums, highest and total go on to the next.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> terms: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> carry: array<vec2<f32>>;

override WG: u32 = 8u;
override HEAD_DIM: u32 = 64u;

const TILE: u32 = 64u;

var<workgroup> score_scratch: array<vec4<f32>, TILE * WG>; // a component a query

struct Sixteen {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

/// 64 neighbouring dimensions.
struct Wide {
    a: Sixteen,
    b: Sixteen,
    c: Sixteen,
    d: Sixteen,
}

/// What the workgroup's queries have in common.
struct Team {
    ring: Ring,
    last: u32,     // of all queries, counted over tokens and the heads that share a key
    sharing: u32,  // H / KV
    kv_head: u32,
}

fn position(team: Team, query: u32) -> u32 {
    return frame[0] + min(query, team.last) / team.sharing;
}

fn head_of(team: Team, query: u32) -> u32 {
    return team.kv_head * team.sharing + min(query, team.last) % team.sharing;
}

/// Where a query's dimensions are in fours, in rows of `phases` times H HD.
fn query_at(team: Team, query: u32, phases: u32) -> u32 {
    let i = min(query, team.last);
    return (i / team.sharing * phases * params.heads + head_of(team, i)) * (HEAD_DIM / 4u);
}

fn query16(at: u32) -> Sixteen {
    return Sixteen(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
}

/// 64 dimensions of a lane's query.
fn query(at: u32) -> Wide {
    return Wide(query16(at), query16(at + 4u), query16(at + 8u), query16(at + 12u));
}

/// What the first two lanes have, then the next.
fn of_first(own: Eight) -> Sixteen {
    return Sixteen(
        subgroupBroadcast(own.a, 0u), subgroupBroadcast(own.b, 0u),
        subgroupBroadcast(own.a, 1u), subgroupBroadcast(own.b, 1u),
    );
}

fn of_second(own: Eight) -> Sixteen {
    return Sixteen(
        subgroupBroadcast(own.a, 2u), subgroupBroadcast(own.b, 2u),
        subgroupBroadcast(own.a, 3u), subgroupBroadcast(own.b, 3u),
    );
}

/// 64 dimensions that four lanes have, eight of the first 32 and eight of the last each.
fn spread(near: Eight, far: Eight) -> Wide {
    return Wide(of_first(near), of_second(near), of_first(far), of_second(far));
}

/// 64 dimensions of a key, from its eight `e` on.
fn key(at: u32, e: u32, lane: u32) -> Wide {
    let own = e + lane % 4u;
    return spread(k8(at, own), k8(at, own + 4u));
}

fn value(at: u32, e: u32, lane: u32) -> Wide {
    let own = e + lane % 4u;
    return spread(v8(at, own), v8(at, own + 4u));
}

fn dots(u: Sixteen, v: Sixteen) -> vec4<f32> {
    return fma(u.a, v.a, u.b * v.b) + fma(u.c, v.c, u.d * v.d);
}

fn dot64(u: Wide, v: Wide) -> f32 {
    let sums = (dots(u.a, v.a) + dots(u.b, v.b)) + (dots(u.c, v.c) + dots(u.d, v.d));
    return (sums.x + sums.y) + (sums.z + sums.w);
}

fn plus16(sum: Sixteen, p: f32, value: Sixteen) -> Sixteen {
    let by = vec4(p);
    return Sixteen(
        fma(by, value.a, sum.a), fma(by, value.b, sum.b), fma(by, value.c, sum.c), fma(by, value.d, sum.d),
    );
}

fn plus(sum: Wide, p: f32, value: Wide) -> Wide {
    return Wide(
        plus16(sum.a, p, value.a), plus16(sum.b, p, value.b), plus16(sum.c, p, value.c), plus16(sum.d, p, value.d),
    );
}

fn times16(v: Sixteen, by: f32) -> Sixteen {
    return Sixteen(v.a * by, v.b * by, v.c * by, v.d * by);
}

fn times(v: Wide, by: f32) -> Wide {
    return Wide(times16(v.a, by), times16(v.b, by), times16(v.c, by), times16(v.d, by));
}

fn served(team: Team, n: vec4<u32>, slot: u32, kind: u32) -> vec4<bool> {
    let kept = frame[2] > params.forgets;
    return vec4(
        ring_serves(team.ring, n.x, slot, kept) == kind, ring_serves(team.ring, n.y, slot, kept) == kind,
        ring_serves(team.ring, n.z, slot, kept) == kind, ring_serves(team.ring, n.w, slot, kept) == kind,
    );
}

fn store16(at: u32, v: Sixteen) {
    out[at] = v.a;
    out[at + 1u] = v.b;
    out[at + 2u] = v.c;
    out[at + 3u] = v.d;
}

fn load16(at: u32) -> Sixteen {
    return Sixteen(out[at], out[at + 1u], out[at + 2u], out[at + 3u]);
}

/// What the span before has left of 64 dimensions of a query, from the four at `four` on.
fn load(team: Team, query: u32, four: u32) -> Wide {
    let at = query_at(team, query, 1u) + four;
    return Wide(load16(at), load16(at + 4u), load16(at + 8u), load16(at + 12u));
}

/// A query's place in `carry`.
fn carry_at(team: Team, query: u32) -> u32 {
    return query_at(team, query, 1u) / (HEAD_DIM / 4u);
}

fn leave(team: Team, query: u32, highest: f32, total: f32) {
    if query <= team.last {
        carry[carry_at(team, query)] = vec2(highest, total);
    }
}

/// Writes 64 dimensions of a query, from the four at `four` on.
fn store(team: Team, query: u32, four: u32, v: Wide) {
    if query <= team.last {
        let at = query_at(team, query, 1u) + four;
        store16(at, v.a);
        store16(at + 4u, v.b);
        store16(at + 8u, v.c);
        store16(at + 12u, v.d);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sharing = params.heads / params.kv_heads;
    let queries = frame[1] * sharing;
    let columns = 256u / HEAD_DIM;
    let begin = columns * WG * group.x;
    if begin >= queries {
        return;
    }
    let ring = Ring(params.sinks, params.window, params.slots);
    let team = Team(ring, queries - 1u, sharing, group.y);
    let seen = Range(position(team, begin), position(team, begin + columns * WG - 1u), frame[2] > params.forgets);
    let stored = min(seen.last + 1u, params.sinks + params.slots);
    let end = min(params.first + params.span, stored);
    if params.first >= stored {
        return;
    }

    // Of 64 dimensions: four queries. Of 128: the first half of two, then the other.
    let own = begin + lane + vec4(0u, WG, 2u * WG, 3u * WG);
    let n = vec4(position(team, own.x), position(team, own.y), position(team, own.z), position(team, own.w));
    var at = vec4(
        query_at(team, own.x, 3u), query_at(team, own.y, 3u), query_at(team, own.z, 3u), query_at(team, own.w, 3u),
    );
    if HEAD_DIM > 64u {
        at = vec4(at.xy, at.xy + 16u);
    }
    let none = vec4(0.0);
    let nothing = Sixteen(none, none, none, none);
    var sum0 = Wide(nothing, nothing, nothing, nothing);
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    let heads = vec4(head_of(team, own.x), head_of(team, own.y), head_of(team, own.z), head_of(team, own.w));
    let of_heads = terms_of(heads);
    var highest = of_heads.highest;
    var total = of_heads.total;
    if params.first > 0u {
        sum0 = load(team, own.x, 0u);
        sum1 = load(team, own.y, 0u);
        let c0 = carry[carry_at(team, own.x)];
        let c1 = carry[carry_at(team, own.y)];
        highest = vec4(c0.x, c1.x, LOWEST, LOWEST);
        total = vec4(c0.y, c1.y, 0.0, 0.0);
        if HEAD_DIM > 64u {
            sum2 = load(team, own.x, 16u);
            sum3 = load(team, own.y, 16u);
        } else {
            sum2 = load(team, own.z, 0u);
            sum3 = load(team, own.w, 0u);
            let c2 = carry[carry_at(team, own.z)];
            let c3 = carry[carry_at(team, own.w)];
            highest = vec4(highest.xy, c2.x, c3.x);
            total = vec4(total.xy, c2.y, c3.y);
        }
    }
    for (var first = params.first; first < end; first += TILE) {
        let count = min(TILE, end - first);
        var needed = kinds(ring, seen, first, first + count - 1u);
        if needed == 0u {
            continue;
        }
        let whole = all_recent(ring, seen, first, first + count - 1u);
        if !whole {
            for (var i = 0u; i < count; i++) {
                score_scratch[i * WG + lane] = vec4(LOWEST);
            }
        }
        var now = highest;
        for (var kind = 0u; kind < 3u; kind++) {
            if (needed >> kind) % 2u == 0u {
                continue;
            }
            let from_kind = kind * params.heads * (HEAD_DIM / 4u);
            let q0 = query(at.x + from_kind);
            let q1 = query(at.y + from_kind);
            let q2 = query(at.z + from_kind);
            let q3 = query(at.w + from_kind);
            var phases = vec4(0u);
            if ALIBI {
                phases = phases_of(team.ring, n, kind);
            }
            for (var i = 0u; i < count; i++) {
                let slot = first + i;
                // A key that is not seen may hold anything.
                if !whole && !is_seen(ring, seen, slot) {
                    continue;
                }
                let here = kv_at(slot, team.kv_head, params.kv_heads);
                let near = key(here, 0u, lane);
                var score = vec4(dot64(q0, near), dot64(q1, near), 0.0, 0.0);
                if HEAD_DIM > 64u {
                    let far = key(here, 8u, lane);
                    score += vec4(dot64(q2, far), dot64(q3, far), 0.0, 0.0);
                } else {
                    score += vec4(0.0, 0.0, dot64(q2, near), dot64(q3, near));
                }
                score = biased(scores_of(params, score), of_heads.slope, phases, slot);
                if !whole {
                    score = select(score_scratch[i * WG + lane], score, served(team, n, slot, kind));
                }
                score_scratch[i * WG + lane] = score;
                now = max(now, score);
            }
        }

        let shrink = exp(highest - now);
        highest = now;
        total *= shrink;
        sum0 = times(sum0, shrink.x);
        sum1 = times(sum1, shrink.y);
        sum2 = times(sum2, select(shrink.z, shrink.x, HEAD_DIM > 64u));
        sum3 = times(sum3, select(shrink.w, shrink.y, HEAD_DIM > 64u));
        for (var i = 0u; i < count; i++) {
            if !whole && !is_seen(ring, seen, first + i) {
                continue;
            }
            let score = score_scratch[i * WG + lane];
            let p = weights_of(score, now);
            total += p;
            let here = kv_at(first + i, team.kv_head, params.kv_heads);
            let near = value(here, 0u, lane);
            sum0 = plus(sum0, p.x, near);
            sum1 = plus(sum1, p.y, near);
            if HEAD_DIM > 64u {
                let far = value(here, 8u, lane);
                sum2 = plus(sum2, p.x, far);
                sum3 = plus(sum3, p.y, far);
            } else {
                sum2 = plus(sum2, p.z, near);
                sum3 = plus(sum3, p.w, near);
            }
        }
    }

    let unfinished = end < stored;
    if unfinished {
        leave(team, own.x, highest.x, total.x);
        leave(team, own.y, highest.y, total.y);
        if HEAD_DIM <= 64u {
            leave(team, own.z, highest.z, total.z);
            leave(team, own.w, highest.w, total.w);
        }
    }
    let by = select(1.0 / total, vec4(1.0), unfinished);
    store(team, own.x, 0u, times(sum0, by.x));
    store(team, own.y, 0u, times(sum1, by.y));
    if HEAD_DIM > 64u {
        store(team, own.x, 16u, times(sum2, by.x));
        store(team, own.y, 16u, times(sum3, by.y));
    } else {
        store(team, own.z, 0u, times(sum2, by.z));
        store(team, own.w, 0u, times(sum3, by.w));
    }
}
