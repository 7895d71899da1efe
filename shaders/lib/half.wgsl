// lib/half.wgsl — two numbers as halves, as the cache keeps them.
//
// Gives:  half_pair(pair) -> two halves; what is beyond the largest half becomes that one
//
// pack2x16float may give anything for a number that no half is near. What is not a number stays so: a model that is
// damaged is to be seen. By its bits, as a compiler may take it for granted that all numbers are numbers.

const MOST_HALF: vec2<f32> = vec2(65504.0);

fn half_pair(pair: vec2<f32>) -> u32 {
    let is_number = (bitcast<vec2<u32>>(pair) & vec2(0x7fffffffu)) <= vec2(0x7f800000u);
    return pack2x16float(select(pair, clamp(pair, -MOST_HALF, MOST_HALF), is_number));
}
