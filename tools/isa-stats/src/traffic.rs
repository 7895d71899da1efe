//! Which buffer each load reads.
//!
//! A buffer is told by its descriptor: four scalar registers that were loaded from place 16 b of the
//! descriptor set for binding b. They are followed through moves until a load uses them.
use crate::assembly::{Instruction, Kind, Program};
use std::collections::BTreeMap;
use std::ops::Range;

/// One load of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLoad {
    /// Which instruction.
    pub at: usize,
    /// Its binding, or nothing where the descriptor could not be followed.
    pub binding: Option<u32>,
    /// Bytes a lane.
    pub bytes: u32,
    /// One load for all lanes.
    pub scalar: bool,
}

/// Every load of a buffer, in order.
pub fn buffer_loads(program: &Program) -> Vec<BufferLoad> {
    // Scalar register -> the word of the descriptor set that it holds.
    let mut holds = BTreeMap::<u32, u32>::new();
    let mut loads = Vec::new();
    for (at, instruction) in program.instructions.iter().enumerate() {
        let scalar = instruction.opcode.starts_with("s_buffer_load");
        let descriptor = instruction.operands.get(if scalar { 1 } else { 2 });
        if let (Some(bytes), true) = (instruction.bytes_loaded(), reads_buffer(instruction)) {
            let first = descriptor.and_then(|d| registers(d)).map(|r| r.start);
            let binding = first.and_then(|first| holds.get(&first)).map(|word| word / 4);
            loads.push(BufferLoad { at, binding, bytes, scalar });
        }
        follow(instruction, &mut holds);
    }
    loads
}

fn reads_buffer(instruction: &Instruction) -> bool {
    ["buffer_load", "s_buffer_load"].iter().any(|op| instruction.opcode.starts_with(op))
}

/// Notes what `instruction` does to the registers.
fn follow(instruction: &Instruction, holds: &mut BTreeMap<u32, u32>) {
    let Some(written) = instruction.operands.first().and_then(|o| registers(o)) else { return };
    let stores = ["buffer_store", "s_store", "s_cmp", "s_bitcmp"];
    if stores.iter().any(|op| instruction.opcode.starts_with(op)) {
        return;
    }
    let source = instruction.operands.get(1);
    let first_word = match instruction.opcode.as_str() {
        op if op.starts_with("s_load") => {
            instruction.operands.get(2).and_then(|o| offset(o)).map(|o| o / 4)
        }
        "s_mov_b32" | "s_mov_b64" => {
            let from = source.and_then(|s| registers(s)).map(|r| r.start);
            from.and_then(|from| holds.get(&from)).copied()
        }
        _ => None,
    };
    let wide = written.len() > 1 || instruction.opcode.starts_with("s_mov");
    for (word, register) in (0..).zip(written) {
        match first_word.filter(|_| wide) {
            Some(first) => holds.insert(register, first + word),
            None if instruction.kind() == Kind::Load || instruction.opcode.starts_with("s_") => {
                holds.remove(&register)
            }
            None => None,
        };
    }
}

/// `s4` or `s[4:7]`.
fn registers(operand: &str) -> Option<Range<u32>> {
    let name = operand.split_whitespace().next()?.strip_prefix('s')?;
    match name.strip_prefix('[').and_then(|range| range.strip_suffix(']')) {
        Some(range) => {
            let (first, last) = range.split_once(':')?;
            Some(first.parse().ok()?..last.parse::<u32>().ok()? + 1)
        }
        None => name.parse().ok().map(|only| only..only + 1),
    }
}

/// `0x20`, `null`, `32`.
fn offset(operand: &str) -> Option<u32> {
    match operand.split_whitespace().next()? {
        "null" => Some(0),
        number => match number.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        },
    }
}
