// attention_tiles — out[t, h] = sum_i p_i v_i,  p = softmax_i(q_i . k_i / sqrt(HD)) over the keys that token t sees,
//                   as attention, for the tokens of a chunk: a key or value is read once for 32 queries
//
//   binding  name    access   type       shape                  unit
//   0        params  read     Params
//   1        frame   read     u32        [4]                    n: position of the first token, tokens, sinks kept
//   2        q       read     vec4<f32>  [T, 3, H HD/4]         queries at: this lap, lap before, sinks
//   3        k       read     vec4<u32>  [S + N, KV HD words/4] keys, as lib/kv.wgsl or lib/kv_blocks.wgsl has them
//   4        v       read     vec4<u32>  [S + N, KV HD words/4] values, the same
//   5        terms   read     vec4<f32>  [H]                    ALiBi's slope; what softmax starts from: a score, a sum; 0
//   6        out     write    vec4<f32>  [T, H HD/4]            activations; before the last span its sums
//   7        carry   write    vec2<f32>  [T, H, HD/256 up]      the highest score and the sum of exponentials so far
//
//   grid:      [ceil(T H/KV / 32), KV, ceil(HD/256)] workgroups, 32 queries each: of neighbouring tokens, all heads that
//              share keys; 256 dimensions of their values
//   requires:  HD = HEAD_DIM, a multiple of 8
//   uses:      lib/attention_params.wgsl, lib/score.wgsl, lib/ring.wgsl, lib/kv.wgsl or lib/kv_blocks.wgsl,
//              lib/kinds.wgsl, lib/onto.wgsl
//   twin:      src/reference/attention.rs
//
// Keys go by in tiles of 32 slots. Scores are a product of matrices, 16 dimensions at a time; a lane has four queries
// and two slots. Values come in slices of 16 slots and 64 dimensions; a lane has four queries and four dimensions. What is
// staged has one place in workgroup memory, which holds 8 KiB in all, so that eight subgroups of 64 lanes fit a SIMD of
// AMD's. Which of its three queries a key needs is nearly always the same for a whole tile; a tile that nobody sees is
// passed over. Tiles and the order inside them do not depend on the ring's size, so two caches that hold the same keys
// at the same places give the same bits. One dispatch looks at a span of slots; sums, highest and total go on to the next.

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> terms: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> carry: array<vec2<f32>>;

override HEAD_DIM: u32 = 64u;

const LANES: u32 = 128u;
const QUERIES: u32 = 32u;
const TILE: u32 = 32u;
const SLICE: u32 = 16u;

// [4, 32 queries then 32 keys]: four dimensions each; [16 slots, 16]: of values; [8, 16]: a vec4 a lane
var<workgroup> stage_scratch: array<vec4<f32>, 256>;
// [32 slots, 8]: scores, then shares, of four queries
var<workgroup> p_scratch: array<vec4<f32>, 256>;

/// Four queries by four dimensions.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

/// What the workgroup's queries have in common.
struct Team {
    ring: Ring,
    first: u32,    // of its queries, counted over tokens and the heads that share a key
    last: u32,     // of all queries
    sharing: u32,  // H / KV
    kv_head: u32,
    part: u32,     // of 256 dimensions of the values
}

fn position(team: Team, query: u32) -> u32 {
    return frame[0] + min(team.first + query, team.last) / team.sharing;
}

/// Where a query's dimensions are in q, in fours, at its first phase.
fn query_at(team: Team, query: u32) -> u32 {
    let i = min(team.first + query, team.last);
    let head = team.kv_head * team.sharing + i % team.sharing;
    return (i / team.sharing * 3u * params.heads + head) * (params.head_dim / 4u);
}

/// Where a slot is in k and v.
fn slot_at(team: Team, slot: u32) -> u32 {
    return kv_at(slot, team.kv_head, params.kv_heads);
}

/// Brings dimensions 16 `piece` to 16 `piece` + 15 of 32 queries and 32 keys: half of the lanes bring each. `begin`: where
/// those of the lane start: of a query in eights.
fn stage_scores(lane: u32, begin: u32, piece: u32) {
    let eight = 2u * piece + lane / 32u % 2u;
    var part = Eight(vec4(0.0), vec4(0.0));
    if eight < params.head_dim / 8u {
        if lane < 64u {
            part = k8(begin, eight);
        } else {
            part = Eight(q[2u * (begin + eight)], q[2u * (begin + eight) + 1u]);
        }
    }
    let to = lane / 32u % 2u * 128u + lane % 32u + select(0u, 32u, lane < 64u);
    stage_scratch[to] = part.a;
    stage_scratch[to + 64u] = part.b;
}

/// The sums of four queries with one key, and four more dimensions.
fn scored(sums: vec4<f32>, query: u32, key: vec4<f32>) -> vec4<f32> {
    return vec4(
        onto(sums.x, stage_scratch[query], key), onto(sums.y, stage_scratch[query + 1u], key),
        onto(sums.z, stage_scratch[query + 2u], key), onto(sums.w, stage_scratch[query + 3u], key),
    );
}

/// Whether query n is served for the key at `slot` by its `kind`.
fn is_served(team: Team, n: u32, slot: u32, kind: u32) -> bool {
    return slot < params.sinks + params.slots && ring_serves(team.ring, n, slot, frame[2] > params.forgets) == kind;
}

/// Positions of four queries. `begin`: the position of the first of them, and how far it is among the heads that share a
/// key.
fn positions(team: Team, begin: vec2<u32>) -> vec4<u32> {
    // Which head of the first query's token each would be, had that token more of them.
    let head = begin.y + vec4(0u, 1u, 2u, 3u);
    let one = vec4<u32>(head >= vec4(team.sharing));
    let two = vec4<u32>(head >= vec4(2u * team.sharing));
    let three = vec4<u32>(head >= vec4(3u * team.sharing));
    return begin.x + one + two + three;
}

/// Heads of four queries, from `query` of the workgroup on; beyond the last its own.
fn heads_of(team: Team, query: u32) -> vec4<u32> {
    let i = min(team.first + query + vec4(0u, 1u, 2u, 3u), vec4(team.last));
    return team.kv_head * team.sharing + i % team.sharing;
}

/// The scores of four queries, from `query` of the workgroup on, with the key at `slot`, which `kind` serves.
fn scores_at(team: Team, query: u32, slot: u32, kind: u32, products: vec4<f32>) -> vec4<f32> {
    var scores = scores_of(params, products);
    if ALIBI {
        let own = team.first + query;
        let n = positions(team, vec2(frame[0] + own / team.sharing, own % team.sharing));
        let phases = phases_of(team.ring, n, kind);
        scores = biased(scores, terms_of(heads_of(team, query)).slope, phases, slot);
    }
    return scores;
}

/// Notes the scores of one slot that `kind` serves, of four queries of which the first is at `begin`.
fn note(team: Team, at: u32, begin: vec2<u32>, slot: u32, kind: u32, scores: vec4<f32>) {
    let n = positions(team, begin);
    let served = vec4(
        is_served(team, n.x, slot, kind), is_served(team, n.y, slot, kind),
        is_served(team, n.z, slot, kind), is_served(team, n.w, slot, kind),
    );
    p_scratch[at] = select(p_scratch[at], scores, served);
}

/// Shares of scores whose highest is known.
fn share(at: u32, highest: vec4<f32>) -> vec4<f32> {
    return weights_of(p_scratch[at], highest);
}

fn shrunk(sums: Sums, by: vec4<f32>) -> Sums {
    return Sums(sums.a * by.x, sums.b * by.y, sums.c * by.z, sums.d * by.w);
}

/// Brings eight dimensions of one value of a slice.
fn stage_values(team: Team, lane: u32, slot: u32, stored: u32, seen: Range, eight: u32) {
    var value = Eight(vec4(0.0), vec4(0.0));
    // A slot that is not seen may hold anything: its share is zero, its value must be a number.
    if eight < params.head_dim / 8u && slot < stored && is_seen(team.ring, seen, slot) {
        value = v8(slot_at(team, slot), eight);
    }
    stage_scratch[2u * lane] = value.a;
    stage_scratch[2u * lane + 1u] = value.b;
}

/// Adds the values of a tile to 64 dimensions of every query's sum, from eight `first_eight` on.
fn add_values(team: Team, lane: u32, first: u32, stored: u32, seen: Range, first_eight: u32, before: Sums) -> Sums {
    var sums = before;
    let end = min(first + TILE, stored);
    for (var slot = first; slot < end; slot++) {
        let i = slot % SLICE; // tiles start at multiples of it
        if i == 0u {
            workgroupBarrier();
            stage_values(team, lane, slot + lane / 8u, stored, seen, 32u * team.part + first_eight + lane % 8u);
            workgroupBarrier();
        }
        let p = p_scratch[(slot - first) * 8u + lane / 16u];
        let four = stage_scratch[i * 16u + lane % 16u];
        sums.a = fma(vec4(p.x), four, sums.a);
        sums.b = fma(vec4(p.y), four, sums.b);
        sums.c = fma(vec4(p.z), four, sums.c);
        sums.d = fma(vec4(p.w), four, sums.d);
    }
    return sums;
}

/// A query's row of out and of carry, or that of the last.
fn row_of(team: Team, query: u32) -> u32 {
    let i = min(team.first + query, team.last);
    return i / team.sharing * params.heads + team.kv_head * team.sharing + i % team.sharing;
}

/// A query's place in carry, or that of the last: each workgroup of a head's has its own.
fn carry_of(team: Team, query: u32) -> u32 {
    return row_of(team, query) * ((HEAD_DIM + 255u) / 256u) + team.part;
}

/// What the span before has left of four dimensions of four queries.
fn load_all(team: Team, lane: u32, piece: u32) -> Sums {
    let query = lane / 16u * 4u;
    let fours = params.head_dim / 4u;
    let four = min((4u * team.part + piece) * 16u + lane % 16u, fours - 1u);
    return Sums(
        out[row_of(team, query) * fours + four], out[row_of(team, query + 1u) * fours + four],
        out[row_of(team, query + 2u) * fours + four], out[row_of(team, query + 3u) * fours + four],
    );
}

/// Writes what a lane has of one query.
fn store(team: Team, query: u32, four: u32, sum: vec4<f32>) {
    if team.first + query <= team.last && four < params.head_dim / 4u {
        out[row_of(team, query) * (params.head_dim / 4u) + four] = sum;
    }
}

fn store_all(team: Team, lane: u32, piece: u32, sums: Sums) {
    let query = lane / 16u * 4u;
    let four = (4u * team.part + piece) * 16u + lane % 16u;
    store(team, query, four, sums.a);
    store(team, query + 1u, four, sums.b);
    store(team, query + 2u, four, sums.c);
    store(team, query + 3u, four, sums.d);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let sharing = params.heads / params.kv_heads;
    let queries = frame[1] * sharing;
    if QUERIES * group.x >= queries {
        return;
    }
    let ring = Ring(params.sinks, params.window, params.slots);
    let team = Team(ring, QUERIES * group.x, queries - 1u, sharing, group.y, group.z);
    let seen = Range(position(team, 0u), position(team, QUERIES - 1u), frame[2] > params.forgets);
    let stored = min(seen.last + 1u, params.sinks + params.slots);
    let end = min(params.first + params.span, stored);
    if params.first >= stored {
        return;
    }
    let four = lane / 16u;
    let column = lane % 16u;
    let here = column * 8u + four;

    let nothing = Sums(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    var sums0 = nothing;
    var sums1 = nothing;
    var sums2 = nothing;
    var sums3 = nothing;
    let own_terms = terms_of(heads_of(team, 4u * four));
    var highest = own_terms.highest;
    var total = select(vec4(0.0), own_terms.total, column == 0u);
    if params.first > 0u {
        let query = 4u * four;
        let c0 = carry[carry_of(team, query)];
        let c1 = carry[carry_of(team, query + 1u)];
        let c2 = carry[carry_of(team, query + 2u)];
        let c3 = carry[carry_of(team, query + 3u)];
        highest = vec4(c0.x, c1.x, c2.x, c3.x);
        total = select(vec4(0.0), vec4(c0.y, c1.y, c2.y, c3.y), column == 0u);
        sums0 = load_all(team, lane, 0u);
        if HEAD_DIM > 64u {
            sums1 = load_all(team, lane, 1u);
        }
        if HEAD_DIM > 128u {
            sums2 = load_all(team, lane, 2u);
        }
        if HEAD_DIM > 192u {
            sums3 = load_all(team, lane, 3u);
        }
    }
    for (var first = params.first; first < end; first += TILE) {
        let needed = kinds(ring, seen, first, min(first + TILE, end) - 1u);
        if needed == 0u {
            continue;
        }
        for (var kind = 0u; kind < 3u; kind++) {
            if (needed >> kind) % 2u == 0u {
                continue;
            }
            // Computed anew for each tile: registers are what is short.
            let key = slot_at(team, min(first + lane % 32u, end - 1u));
            let query = query_at(team, lane % 32u) / 2u;
            let begin = select(query + kind * params.heads * (params.head_dim / 8u), key, lane < 64u);
            var near = vec4(0.0);
            var far = vec4(0.0);
            // One loop, which no compiler unrolls: that would take more of them.
            for (var d = 0u; d < params.head_dim / 4u; d++) {
                if d % 4u == 0u {
                    workgroupBarrier();
                    stage_scores(lane, begin, d / 4u);
                    workgroupBarrier();
                }
                let at = d % 4u * 64u;
                near = scored(near, at + 4u * four, stage_scratch[at + 32u + column]);
                far = scored(far, at + 4u * four, stage_scratch[at + 48u + column]);
            }
            let near_scores = scores_at(team, 4u * four, first + column, kind, near);
            let far_scores = scores_at(team, 4u * four, first + column + 16u, kind, far);
            if all_recent(ring, seen, first, first + TILE - 1u) {
                p_scratch[here] = near_scores;
                p_scratch[here + 128u] = far_scores;
                continue;
            }
            if (needed & ((1u << kind) - 1u)) == 0u {
                p_scratch[here] = vec4(LOWEST);
                p_scratch[here + 128u] = vec4(LOWEST);
            }
            let own = team.first + 4u * four;
            let begin_query = vec2(frame[0] + own / sharing, own % sharing);
            note(team, here, begin_query, first + column, kind, near_scores);
            note(team, here + 128u, begin_query, first + column + 16u, kind, far_scores);
        }

        workgroupBarrier();
        stage_scratch[lane] = max(p_scratch[here], p_scratch[here + 128u]);
        workgroupBarrier();
        var now = highest;
        let mates = 16u * four;
        for (var other = mates; other < mates + 16u; other++) {
            now = max(now, stage_scratch[other]);
        }
        let shrink = exp(highest - now);
        highest = now;
        let near = share(here, now);
        let far = share(here + 128u, now);
        p_scratch[here] = near;
        p_scratch[here + 128u] = far;
        total = fma(total, shrink, near + far);

        sums0 = add_values(team, lane, first, end, seen, 0u, shrunk(sums0, shrink));
        if HEAD_DIM > 64u {
            sums1 = add_values(team, lane, first, end, seen, 8u, shrunk(sums1, shrink));
        }
        if HEAD_DIM > 128u {
            sums2 = add_values(team, lane, first, end, seen, 16u, shrunk(sums2, shrink));
        }
        if HEAD_DIM > 192u {
            sums3 = add_values(team, lane, first, end, seen, 24u, shrunk(sums3, shrink));
        }
    }

    workgroupBarrier();
    stage_scratch[lane] = total;
    workgroupBarrier();
    var whole = vec4(0.0);
    for (var other = 16u * four; other < 16u * four + 16u; other++) {
        whole += stage_scratch[other];
    }
    let unfinished = end < stored;
    if unfinished && column == 0u {
        for (var i = 0u; i < 4u; i++) {
            if team.first + 4u * four + i <= team.last {
                carry[carry_of(team, 4u * four + i)] = vec2(highest[i], whole[i]);
            }
        }
    }
    let by = select(1.0 / whole, vec4(1.0), unfinished);
    store_all(team, lane, 0u, shrunk(sums0, by));
    if HEAD_DIM > 64u {
        store_all(team, lane, 1u, shrunk(sums1, by));
    }
    if HEAD_DIM > 128u {
        store_all(team, lane, 2u, shrunk(sums2, by));
    }
    if HEAD_DIM > 192u {
        store_all(team, lane, 3u, shrunk(sums3, by));
    }
}
