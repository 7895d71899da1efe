// group_experts — the choices of a pass by their experts: each expert's, in the order of tokens, in tiles of at most TILE
//
//   binding  name    access   type       shape              unit
//   0        params  read     Params
//   1        frame   read     u32        [4]                n: position of the first token, tokens: their number
//   2        chosen  read     vec2<u32>  [T, K]             experts of each token, and the bits of their shares
//   3        groups  write    u32        [tiles, 2 + TILE]  an expert, how many of its choices; which they are: t K + s
//
//   grid:      [1, 1, 1] workgroup
//   requires:  E <= 512; a token's experts are different ones
//   uses:      nothing
//   twin:      src/reference/group_experts.rs
//
// A sort by counting. Where an expert's tiles begin is known once all choices are counted; a choice's place among those of
// its expert is the number of those before it, which lanes find a workgroup of choices at a time. Tiles that are not
// needed have no choices.

struct Params {
    experts: u32,  // E
    used: u32,     // K
    tile: u32,     // TILE
    tiles: u32,    // that there is room for
}

@group(0) @binding(0) var<storage, read> params: Params;
@group(0) @binding(1) var<storage, read> frame: array<u32>;
@group(0) @binding(2) var<storage, read> chosen: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> groups: array<u32>;

override WG: u32 = 128u;

const NONE: u32 = 0xffffffffu;

/// Each expert's choices; then the place of the next one, TILE places a tile.
var<workgroup> expert_scratch: array<atomic<u32>, 512>;
/// Tiles of each lane's experts.
var<workgroup> tiles_scratch: array<u32, WG>;
/// The expert of each lane's choice.
var<workgroup> choice_scratch: array<u32, WG>;

fn tiles_of(choices: u32) -> u32 {
    return (choices + params.tile - 1u) / params.tile;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    let choices = frame[1] * params.used;
    let stride = 2u + params.tile;
    for (var expert = lane; expert < params.experts; expert += WG) {
        atomicStore(&expert_scratch[expert], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < choices; i += WG) {
        atomicAdd(&expert_scratch[chosen[i].x], 1u);
    }
    workgroupBarrier();
    // A lane has neighbouring experts.
    let each = (params.experts + WG - 1u) / WG;
    let first = min(lane * each, params.experts);
    let end = min(first + each, params.experts);
    var own = 0u;
    for (var expert = first; expert < end; expert++) {
        own += tiles_of(atomicLoad(&expert_scratch[expert]));
    }
    tiles_scratch[lane] = own;
    workgroupBarrier();
    var tile = 0u;
    var all = 0u;
    for (var other = 0u; other < WG; other++) {
        let its = tiles_scratch[other];
        tile += select(0u, its, other < lane);
        all += its;
    }
    for (var expert = first; expert < end; expert++) {
        var left = atomicLoad(&expert_scratch[expert]);
        atomicStore(&expert_scratch[expert], tile * params.tile);
        while left > 0u {
            let count = min(left, params.tile);
            groups[tile * stride] = expert;
            groups[tile * stride + 1u] = count;
            left -= count;
            tile++;
        }
    }
    for (var unused = all + lane; unused < params.tiles; unused += WG) {
        groups[unused * stride + 1u] = 0u;
    }
    for (var begin = 0u; begin < choices; begin += WG) {
        let i = begin + lane;
        var expert = NONE;
        if i < choices {
            expert = chosen[i].x;
        }
        choice_scratch[lane] = expert;
        workgroupBarrier();
        var place = 0u;
        if i < choices {
            place = atomicLoad(&expert_scratch[expert]);
            for (var four = 0u; four < lane; four += 4u) {
                let others = vec4(four) + vec4(0u, 1u, 2u, 3u);
                let its = vec4(
                    choice_scratch[four], choice_scratch[four + 1u],
                    choice_scratch[four + 2u], choice_scratch[four + 3u],
                );
                let before = (its == vec4(expert)) & (others < vec4(lane));
                place += countOneBits(dot(vec4<u32>(before), vec4(1u, 2u, 4u, 8u)));
            }
        }
        workgroupBarrier(); // places move on
        if i < choices {
            atomicAdd(&expert_scratch[expert], 1u);
            groups[place / params.tile * stride + 2u + place % params.tile] = i;
        }
    }
}
