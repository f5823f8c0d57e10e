//! Which opcodes exist, and what they say of their operands.

use super::harness::one;
use crate::ops::{lookup, Class};

fn find(name: &str) -> Option<crate::ops::OpDesc> {
    lookup(&name.split('.').collect::<Vec<_>>())
}

/// Every form of lane arithmetic in 852 real modules: CUDA samples, CuPy, Numba, Triton and the
/// libraries that come with CuPy.
#[test]
fn forms_of_real_modules_exist() {
    let missing: Vec<&str> = include_str!("real_forms.txt")
        .lines()
        .filter(|form| find(form).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn forms_outside_the_grammar_do_not_exist() {
    for form in [
        "add",
        "add.rn.u32",
        "add.f32.rn",
        "add.sat.u32",
        "add.ftz.f64",
        "add.f32.f32",
        "fma.f32",
        "mul.u32",
        "mul.wide.u64",
        "mad.hi.sat.u32",
        "div.f32",
        "sqrt.f32",
        "sin.f32",
        "sin.approx.f64",
        "setp.lt.b32",
        "setp.num.u32",
        "setp.lo.s32",
        "setp.lt.ftz.f64",
        "cvt.f32.f64",
        "cvt.rn.f64.f32",
        "cvt.s32.f32",
        "cvt.rzi.f32.s32",
        "cvt.ftz.s32.f64",
        "cvt.rn.e4m3x2.f32",
        "bfe.b32",
        "popc.u32",
        "shl.s32",
        "shr.b8",
        "neg.u32",
        "lop3.b64",
        "min.NaN.f64",
        "tanh.approx.ftz.f32",
        "ex2.approx.ftz.f16",
        "prmt.b32.xyz",
        "ld.global.u32",
        "rcp.approx.f64",
        "rsqrt.approx",
        "nosuch.f32",
        "add.ftz.bf16",
        "shf.l.b32",
    ] {
        assert!(find(form).is_none(), "{form}");
    }
}

/// The forms that `docs/ptx.md` gives as examples after `heading`: the last column of its tables.
fn documented(heading: &str) -> Vec<&'static str> {
    let document = include_str!("../../../../../docs/ptx.md");
    let section = document
        .split("\n## ")
        .find(|section| section.starts_with(heading));
    let rows = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| "));
    let examples = rows.filter_map(|row| row.trim_end_matches(" |").rsplit_once(" | "));
    let forms = examples.flat_map(|(_, column)| column.split('`').skip(1).step_by(2));
    forms
        .filter(|form| form.contains('.') && !form.contains(['{', '|', '\\']))
        .collect()
}

#[test]
fn the_document_tells_what_exists() {
    let (executed, refused) = (documented("Arithmetic"), documented("Refused by name"));
    assert!(
        executed.len() > 50 && refused.len() > 20,
        "{executed:?} {refused:?}"
    );
    let missing: Vec<_> = executed
        .into_iter()
        .filter(|form| find(form).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let found: Vec<_> = refused
        .into_iter()
        .filter(|form| find(form).is_some())
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn operands_have_the_classes_of_their_types() {
    use Class::*;
    let classes: &[(&str, Option<Class>, &[Class])] = &[
        ("add.s16", Some(W16), &[W16, W16]),
        ("add.u64", Some(W64), &[W64, W64]),
        ("mul.wide.u16", Some(W32), &[W16, W16]),
        ("mad.wide.s32", Some(W64), &[W32, W32, W64]),
        ("shl.b64", Some(W64), &[W64, W32]),
        ("popc.b64", Some(W32), &[W64]),
        ("bfi.b64", Some(W64), &[W64, W64, W32, W32]),
        ("cvt.rn.f16.f64", Some(W16), &[W64]),
        ("cvt.u8.u64", Some(W16), &[W64]),
        ("cvt.rn.f16x2.f32", Some(W32), &[W32, W32]),
        ("cvt.rn.satfinite.e4m3x2.f32", Some(W16), &[W32, W32]),
        ("setp.lt.f64", Some(Pred), &[W64, W64]),
        ("setp.ne.and.b32", Some(Pred), &[W32, W32, Pred]),
        ("set.nan.f16.f16", Some(W16), &[W16, W16]),
        ("selp.b16", Some(W16), &[W16, W16, Pred]),
        ("slct.f64.s32", Some(W64), &[W64, W64, W32]),
        ("and.pred", Some(Pred), &[Pred, Pred]),
        ("mov.pred", Some(Pred), &[Pred]),
        ("addc.cc.u32", Some(W32), &[W32, W32]),
        ("madc.hi.u32", Some(W32), &[W32, W32, W32]),
        ("lop3.b32", Some(W32), &[W32, W32, W32]),
    ];
    for (form, dst, srcs) in classes {
        let desc = find(form).unwrap();
        assert_eq!((desc.dst, desc.srcs), (*dst, *srcs), "{form}");
    }
    assert!(find("lop3.b32").unwrap().imm_last);
    assert!(find("setp.lt.f32").unwrap().dst2 && !find("set.lt.u32.f32").unwrap().dst2);
}

#[test]
fn float_literals_are_of_the_source_type() {
    for (form, width) in [
        ("add.f32", Some(32)),
        ("setp.lt.f64", Some(64)),
        ("slct.f32.s32", Some(32)),
        ("set.lt.f32.f64", Some(64)),
        ("cvt.rn.f32.f64", Some(64)),
        ("add.u32", None),
    ] {
        assert_eq!(find(form).unwrap().float, width, "{form}");
    }
}

#[test]
fn one_line_of_each_family_computes() {
    let f = |x: f32| x.to_bits() as u64;
    assert_eq!(one("add.s32", &[3, u32::MAX as u64]), 2);
    assert_eq!(one("fma.rn.f32", &[f(2.0), f(3.0), f(1.0)]), f(7.0));
    assert_eq!(one("cvt.rzi.s32.f32", &[f(-2.7)]), -2i32 as u32 as u64);
    assert_eq!(one("setp.geu.f32", &[f(f32::NAN), f(1.0)]), 1);
    assert_eq!(one("selp.b32", &[7, 9, 0]), 9);
    assert_eq!(one("ex2.approx.ftz.f32", &[f(-3.0)]), f(0.125));
    assert_eq!(
        one("div.rn.f64", &[1.0f64.to_bits(), 4.0f64.to_bits()]),
        0.25f64.to_bits()
    );
}
