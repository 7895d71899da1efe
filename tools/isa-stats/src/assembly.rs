//! The final assembly as RADV prints it: instructions, labels, loops.
use std::collections::BTreeMap;

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// As `v_fmac_f32_e32`.
    pub opcode: String,
    /// As `v1` or `s[4:7]`; the modifiers that follow the last one are a word of its text.
    pub operands: Vec<String>,
}

/// A whole program.
#[derive(Debug, Default)]
pub struct Program {
    /// In the order of their addresses.
    pub instructions: Vec<Instruction>,
    labels: BTreeMap<String, usize>,
}

/// A range of instructions that a backward branch repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loop {
    /// The first instruction.
    pub first: usize,
    /// The backward branch.
    pub last: usize,
}

impl Program {
    /// Reads lines such as `BB3:` and `v_add_f32_e32 v1, v2, v3   ; 06020702`.
    pub fn parse(text: &str) -> Self {
        let mut program = Self::default();
        for line in text.lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            if let Some(label) = line.strip_suffix(':') {
                program.labels.insert(label.to_owned(), program.instructions.len());
            } else if line.starts_with(|c: char| c.is_ascii_lowercase()) {
                let (opcode, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                let operands = rest.split(',').map(|o| o.trim().to_owned());
                program.instructions.push(Instruction {
                    opcode: opcode.to_owned(),
                    operands: operands.filter(|o| !o.is_empty()).collect(),
                });
            }
        }
        program
    }

    /// The loops that hold no other loop. Branches back to one place are one loop.
    pub fn innermost_loops(&self) -> Vec<Loop> {
        let mut ends = BTreeMap::<usize, usize>::new();
        for (last, instruction) in self.instructions.iter().enumerate() {
            if let Some(first) = self.target(instruction).filter(|&first| first <= last) {
                ends.insert(first, last);
            }
        }
        let loops: Vec<_> = ends.into_iter().map(|(first, last)| Loop { first, last }).collect();
        let holds = |outer: &Loop, inner: &Loop| {
            outer != inner && outer.first <= inner.first && inner.last <= outer.last
        };
        let innermost = |outer: &&Loop| !loops.iter().any(|inner| holds(outer, inner));
        loops.iter().filter(innermost).copied().collect()
    }

    /// Where a branch goes.
    fn target(&self, instruction: &Instruction) -> Option<usize> {
        let branches = ["s_branch", "s_cbranch"].iter().any(|b| instruction.opcode.starts_with(b));
        let label = instruction.operands.first().filter(|_| branches)?;
        self.labels.get(label.as_str()).copied()
    }
}

/// What an instruction is for, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Integer dot products of packed bytes.
    Dot,
    /// Multiply and add in one.
    Fma,
    /// Other arithmetic on floats.
    Float,
    /// Conversions between number types.
    Convert,
    /// Shifts, masks, permutations.
    Bits,
    /// Integer arithmetic, of addresses mostly.
    Integer,
    /// Moves, selections, comparisons.
    Move,
    /// Reads of memory.
    Load,
    /// Writes of memory, and workgroup memory either way.
    OtherMemory,
    /// On the scalar unit, branches among them.
    Scalar,
    /// Told to the scheduler; no unit executes it.
    Hint,
}

impl Instruction {
    /// Its kind, by the name of its opcode.
    pub fn kind(&self) -> Kind {
        let op = self.opcode.as_str();
        let begins = |prefixes: &[&str]| prefixes.iter().any(|p| op.starts_with(p));
        let holds = |parts: &[&str]| parts.iter().any(|p| op.contains(p));
        let hints = ["s_waitcnt", "s_wait_", "s_clause", "s_delay_alu", "s_nop", "s_inst_prefetch"];
        match () {
            () if begins(&hints) || begins(&["s_set_inst_prefetch", "s_code_end"]) => Kind::Hint,
            () if begins(&["buffer_load", "global_load", "s_load", "s_buffer_load"]) => Kind::Load,
            () if begins(&["buffer_", "global_", "flat_", "scratch_", "ds_"]) => Kind::OtherMemory,
            () if op.starts_with("s_") => Kind::Scalar,
            () if begins(&["v_dot"]) => Kind::Dot,
            () if holds(&["_fma", "_mac_f", "_mad_f", "_mad_mix", "_fmac"]) => Kind::Fma,
            () if begins(&["v_cvt", "v_pk_cvt"]) => Kind::Convert,
            () if begins(&["v_mov", "v_dual_mov", "v_cndmask", "v_dual_cndmask", "v_cmp"]) => {
                Kind::Move
            }
            () if begins(&["v_read", "v_write", "v_swap"]) => Kind::Move,
            () if holds(&["_f32", "_f16"]) => Kind::Float,
            () if holds(&[
                "_b32", "_b64", "_b16", "bfe", "bfi", "_lsh", "_ashr", "_or_", "_perm",
            ]) =>
            {
                Kind::Bits
            }
            () => Kind::Integer,
        }
    }

    /// Bytes that a lane reads, if this is a load.
    pub fn bytes_loaded(&self) -> Option<u32> {
        if self.kind() != Kind::Load {
            return None;
        }
        let op = self.opcode.trim_end_matches("_e32").trim_end_matches("_e64");
        let (_, width) = op.split_once("load_")?;
        Some(match width {
            "dword" | "b32" => 4,
            "dwordx2" | "b64" => 8,
            "dwordx3" | "b96" => 12,
            "dwordx4" | "b128" => 16,
            "dwordx8" | "b256" => 32,
            "dwordx16" | "b512" => 64,
            narrow if narrow.contains("short") || narrow.contains("16") => 2,
            _ => 1,
        })
    }
}
