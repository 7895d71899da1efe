//! The readers of assembly, on a loop as RADV prints it.
use crate::assembly::{Kind, Loop, Program};
use crate::measure::hot;
use crate::shader::Reads;
use crate::traffic::{BufferLoad, buffer_loads};
use std::collections::BTreeMap;

const LISTING: &str = "BB0:
	s_load_dwordx8 s[4:11], s[2:3], 0x10                        ; f40c0101 fa000010
	s_load_dwordx4 s[12:15], s[2:3], null                       ; f4080301 fa000000
	s_mov_b64 s[16:17], s[8:9]                                  ; be900408
	s_mov_b64 s[18:19], s[10:11]                                ; be92040a
BB1:
	s_cbranch_scc0 BB5                                          ; bf840010
BB2:
	s_clause 0x1                                                ; bfa10001
	buffer_load_dwordx4 v[4:7], v3, s[4:7], 0 offen             ; e0381000 80010403
	buffer_load_ushort v8, v3, s[16:19], 0 offen offset:16      ; e0281010 80040803
	s_buffer_load_dword s20, s[12:15], 0x8                      ; f4200506 fa000008
	s_waitcnt vmcnt(0)                                          ; bf8c3f70
	v_cvt_f32_ubyte1_e32 v9, v4                                 ; 7e122504
	v_fmac_f32_e32 v1, v9, v5                                   ; 56020b09
	v_and_b32_e32 v4, 0xf0f0f0f, v4                             ; 360808ff 0f0f0f0f
	v_dot4_i32_i8 v2, v4, v5, v2                                ; cc160002 040a0b04
	s_cbranch_scc1 BB2                                          ; bf85ffee
BB4:
	s_branch BB1                                                ; bf82fff0
BB5:
	s_endpgm                                                    ; bf810000
";

#[test]
fn the_innermost_loop_is_found() {
    let program = Program::parse(LISTING);
    assert_eq!(program.instructions.len(), 17);
    assert_eq!(program.innermost_loops(), [Loop { first: 5, last: 14 }]);
}

#[test]
fn instructions_have_kinds() {
    let program = Program::parse(LISTING);
    let mut kinds = BTreeMap::<Kind, u32>::new();
    for instruction in &program.instructions[5..=14] {
        *kinds.entry(instruction.kind()).or_default() += 1;
    }
    let expected = [
        (Kind::Dot, 1),
        (Kind::Fma, 1),
        (Kind::Convert, 1),
        (Kind::Bits, 1),
        (Kind::Load, 3),
        (Kind::Scalar, 1),
        (Kind::Hint, 2),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
}

#[test]
fn loads_are_followed_to_their_bindings() {
    let load =
        |at, binding, bytes, scalar| BufferLoad { at, binding: Some(binding), bytes, scalar };
    let expected = [load(6, 1, 16, false), load(7, 2, 2, false), load(8, 0, 4, true)];
    assert_eq!(buffer_loads(&Program::parse(LISTING)), expected);
}

#[test]
fn a_register_that_is_written_anew_holds_no_descriptor() {
    let listing = LISTING.replace("s_mov_b64 s[18:19], s[10:11]", "s_mul_i32 s16, s1, s2");
    assert_eq!(buffer_loads(&Program::parse(&listing))[1].binding, None);
}

#[test]
fn a_loop_that_writes_to_a_buffer_is_not_the_hot_one() {
    let reads = Reads { weights: vec![1], ..Reads::default() };
    let hot_in = |listing: &str| hot(&Program::parse(listing), &reads);
    assert_eq!(hot_in(LISTING).unwrap().quant_loads, BTreeMap::from([(16, 1)]));
    let cbranch = "\ts_cbranch_scc1 BB2";
    let store =
        "\tbuffer_store_dwordx4 v[4:7], v3, s[4:7], 0 offen             ; e0781000 80010403\n";
    assert!(hot_in(&LISTING.replace(cbranch, &format!("{store}{cbranch}"))).is_none());
}
