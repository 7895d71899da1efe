// sample_select — of each slice of the vocabulary, the tokens that top-k can leave: keys of their logits after bias and penalties
//
//   binding  name        access   type       shape                 unit
//   0        params      read     Params
//   1        sampling    read     Sampling   [S]                   of each stream
//   2        frame       read     u32        [R, FRAME_ROW]        [4] with one row: rows that there are, and each row's stream
//   3        logits      read     f32        [R, V]                logits
//   4        banned      read     u32        [S, ceil(V/32)]       one bit a token
//   5        bias        read     f32        [S, V], or [1, 1]     added to logits; not read where nothing is
//   6        counts      read     u32        [S, V], or [1, 1]     how often an id is recent; not read without penalties
//   7        candidates  write    vec2<u32>  [rows, slices, EACH]  key and id, in the order of the ids; key 0: none
//
//   grid:      [slices, rows, 1] workgroups, slices = ceil(V/1024)
//   requires:  WG a power of two, at most 256
//   uses:      lib/random.wgsl, lib/mass.wgsl, lib/threshold.wgsl, lib/frame.wgsl, lib/sampling.wgsl
//   twin:      src/text/sampler.rs
//
// What is among the first k of all is among the first k of its slice. Of equal logits the lowest ids come first. The logits
// stay as they are: somebody may read them.

struct Params {
    vocab: u32,   // V
    wide: u32,    // words from one row of logits, bias or counts to the next
    banned: u32,  // the same of bans
    room: u32,    // candidates that a row has room for
    first: u32,   // row of this dispatch
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(2) var<storage, read> frame: array<u32>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read> banned: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> counts: array<u32>;
@group(0) @binding(7) var<storage, read_write> candidates: array<vec2<u32>>;

override WG: u32 = 256u;

const SLICE: u32 = 1024u;
const LEAST: u32 = 0xff800000u;  // -infinity
const BROKEN: u32 = 0xffffffffu; // a key that no logit has: one of the slice is not a number that can be drawn from

var<workgroup> key_scratch: array<u32, SLICE>;
var<workgroup> lane_scratch: array<vec2<u32>, WG>;
var<workgroup> broken: atomic<u32>;
var<workgroup> best: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

fn key_at(i: u32) -> u32 {
    return key_scratch[i];
}

/// The logit of an id that is among the recent `count` times.
fn penalties(by: Sampling, logit: f32, count: u32) -> f32 {
    let repeated = select(logit * by.repeat, logit / by.repeat, logit > 0.0);
    return repeated - (f32(count) * by.frequency + by.presence);
}

/// Infinity and what is not a number cannot be drawn from; the least of all is never drawn. By the bits: a compiler may take
/// it for granted that all numbers are numbers.
fn is_broken(logit: f32) -> bool {
    let bits = bitcast<u32>(logit);
    return (bits & 0x7f800000u) == 0x7f800000u && bits != LEAST;
}

/// The key of a token of a row; 0 for one that may not be drawn, BROKEN where nothing can be.
fn key_of_token(by: Sampling, stream: u32, row: u32, id: u32) -> u32 {
    var logit = logits[row * params.wide + id];
    // It stays so, whatever a driver makes of a sum with it.
    let is_least = bitcast<u32>(logit) == LEAST;
    if is_broken(logit) {
        return BROKEN;
    }
    if by.biased != 0u && !is_least {
        logit += bias[stream * params.wide + id];
        if is_broken(logit) {
            return BROKEN;
        }
    }
    let is_banned = ((banned[stream * params.banned + id / 32u] >> (id % 32u)) & 1u) != 0u;
    if is_banned || is_least {
        return 0u;
    }
    if by.recent != 0u {
        let count = counts[stream * params.wide + id];
        if count > 0u {
            logit = penalties(by, logit, count);
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

/// The likeliest of the slice, by the lowest of its ids. Less work than a threshold, for whoever wants no others.
fn likeliest(lane: u32, begin: u32, length: u32, to: u32) {
    if lane == 0u {
        atomicStore(&best, 0u);
        atomicStore(&lowest, SLICE);
    }
    workgroupBarrier();
    for (var i = lane; i < length; i += WG) {
        atomicMax(&best, key_scratch[i]);
    }
    workgroupBarrier();
    let key = atomicLoad(&best);
    for (var i = lane; i < length; i += WG) {
        if key_scratch[i] == key {
            atomicMin(&lowest, i);
        }
    }
    workgroupBarrier();
    if lane == 0u {
        candidates[to] = vec2(key, begin + atomicLoad(&lowest));
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = params.first + group.y;
    if row >= frame[1] {
        return;
    }
    let stream = frame[row * FRAME_ROW + 2u] >> 1u;
    let by = sampling[stream];
    let begin = group.x * SLICE;
    let length = min(SLICE, params.vocab - begin);
    if lane == 0u {
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < length; i += WG) {
        let key = key_of_token(by, stream, row, begin + i);
        if key == BROKEN {
            atomicStore(&broken, 1u);
        }
        key_scratch[i] = key;
    }
    workgroupBarrier();

    let to = group.y * params.room + group.x * by.each;
    if by.each == 1u {
        // A broken key is the largest.
        likeliest(lane, begin, length, to);
        return;
    }
    // Keys above `floor` stay, and `ties` of those that equal it.
    var floor = 0u;
    var ties = 0u;
    if by.each < length {
        threshold(lane, length, false, vec2(by.each, 0u), 0u, 0.0);
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
    var at = to + before.x + min(seen, ties);
    for (var i = first; i < end; i++) {
        let key = key_scratch[i];
        let tied = floor > 0u && key == floor;
        if key > floor || (tied && seen < ties) {
            candidates[at] = vec2(key, begin + i);
            at += 1u;
        }
        seen += select(0u, 1u, tied);
    }
    let kept = all.x + min(all.y, ties);
    for (var i = kept + lane; i < by.each; i += WG) {
        candidates[to + i] = vec2(0u);
    }
    storageBarrier();
    workgroupBarrier();
    if lane == 0u && atomicLoad(&broken) != 0u {
        candidates[to] = vec2(BROKEN);
    }
}
