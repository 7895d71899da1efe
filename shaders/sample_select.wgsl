// sample_select — of each slice of the vocabulary, the tokens that top-k can leave: keys of their logits after penalties
//
//   binding  name        access   type       shape            unit
//   0        params      read     Params
//   1        logits      read     f32        [V]              logits
//   2        banned      read     u32        [ceil(V/32)]     one bit a token
//   3        counts      read     u32        [V], or [1]      how often an id is recent; not read without penalties
//   4        candidates  write    vec2<u32>  [slices, EACH]   key and id, in the order of the ids; key 0: none
//
//   grid:      [slices, 1, 1] workgroups, slices = ceil(V/1024)
//   requires:  WG a power of two, at most 256
//   uses:      lib/random.wgsl, lib/mass.wgsl, lib/threshold.wgsl
//   twin:      src/text/sampler.rs
//
// What is among the first k of all is among the first k of its slice. Of equal logits the lowest ids come first.

struct Params {
    vocab: u32,      // V
    each: u32,       // EACH, candidates of a slice: top-k, or all of it
    penalties: u32,  // 1 where recent ids are penalised
    repeat: f32,
    presence: f32,
    frequency: f32,
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> banned: array<u32>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> candidates: array<vec2<u32>>;

override WG: u32 = 256u;

const SLICE: u32 = 1024u;
const LEAST: u32 = 0xff800000u;  // -infinity
const BROKEN: u32 = 0xffffffffu; // a key that no logit has: one of the slice is not a number that can be drawn from

var<workgroup> key_scratch: array<u32, SLICE>;
var<workgroup> lane_scratch: array<vec2<u32>, WG>;
var<workgroup> broken: atomic<u32>;

fn key_at(i: u32) -> u32 {
    return key_scratch[i];
}

/// The logit of an id that is among the recent `count` times.
fn penalties(logit: f32, count: u32) -> f32 {
    let repeated = select(logit * params.repeat, logit / params.repeat, logit > 0.0);
    return repeated - (f32(count) * params.frequency + params.presence);
}

/// The key of a token; 0 for one that may not be drawn.
fn key_of_token(id: u32) -> u32 {
    let is_banned = ((banned[id / 32u] >> (id % 32u)) & 1u) != 0u;
    var logit = logits[id];
    if is_banned || bitcast<u32>(logit) == LEAST {
        return 0u;
    }
    if params.penalties != 0u {
        let count = counts[id];
        if count > 0u {
            logit = penalties(logit, count);
        }
    }
    return key_of(logit);
}

/// How many keys of a lane's run are above the threshold, and how many equal it.
fn tally(first: u32, end: u32, floor: u32) -> vec2<u32> {
    var above = 0u;
    var equal = 0u;
    for (var i = first; i < end; i++) {
        let key = key_scratch[i];
        above += select(0u, 1u, key > floor);
        equal += select(0u, 1u, key == floor && floor > 0u);
    }
    return vec2(above, equal);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let begin = group.x * SLICE;
    let length = min(SLICE, params.vocab - begin);
    if lane == 0u {
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < length; i += WG) {
        // Infinity and what is not a number cannot be drawn from; the least of all is never drawn.
        let bits = bitcast<u32>(logits[begin + i]);
        if (bits & 0x7f800000u) == 0x7f800000u && bits != LEAST {
            atomicStore(&broken, 1u);
        }
        key_scratch[i] = key_of_token(begin + i);
    }
    workgroupBarrier();

    // Keys above `floor` stay, and `ties` of those that equal it.
    var floor = 0u;
    var ties = 0u;
    if params.each < length {
        threshold(lane, length, false, vec2(params.each, 0u), 0u, 0.0);
        floor = found.x;
        ties = select(found.y, 0u, floor == 0u);
    }
    let run = SLICE / WG;
    let first = min(lane * run, length);
    let end = min(first + run, length);
    lane_scratch[lane] = tally(first, end, floor);
    workgroupBarrier();
    var before = vec2(0u);
    var all = vec2(0u);
    for (var other = 0u; other < WG; other++) {
        if other == lane {
            before = all;
        }
        all += lane_scratch[other];
    }
    var seen = before.y;
    var to = before.x + min(seen, ties);
    let row = group.x * params.each;
    for (var i = first; i < end; i++) {
        let key = key_scratch[i];
        let tied = floor > 0u && key == floor;
        if key > floor || (tied && seen < ties) {
            candidates[row + to] = vec2(key, begin + i);
            to += 1u;
        }
        seen += select(0u, 1u, tied);
    }
    let kept = all.x + min(all.y, ties);
    for (var i = kept + lane; i < params.each; i += WG) {
        candidates[row + i] = vec2(0u);
    }
    storageBarrier();
    workgroupBarrier();
    if lane == 0u && atomicLoad(&broken) != 0u {
        candidates[row] = vec2(BROKEN);
    }
}
