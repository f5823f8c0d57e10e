//! The SIMD video instructions on four bytes or two halfwords, without operand selectors:
//! `vadd4`, `vsub4`, `vavrg4`, `vabsdiff4`, `vmin4`, `vmax4` and those ending in 2.

use super::dot::piece;
use super::form::{Form, Type};
use super::modifiers::Modifiers;
use super::run::Op;

/// What is done to each pair of pieces.
#[derive(Clone, Copy)]
enum Piecewise {
    Add,
    Sub,
    Average,
    AbsoluteDifference,
    Min,
    Max,
}

impl Piecewise {
    const ALL: [Piecewise; 6] = [
        Piecewise::Add,
        Piecewise::Sub,
        Piecewise::Average,
        Piecewise::AbsoluteDifference,
        Piecewise::Min,
        Piecewise::Max,
    ];

    #[inline(always)]
    fn apply(self, a: i32, b: i32) -> i32 {
        match self {
            Piecewise::Add => a + b,
            Piecewise::Sub => a - b,
            // Halves are rounded away from zero.
            Piecewise::Average => (a + b + i32::from(a + b >= 0)) >> 1,
            Piecewise::AbsoluteDifference => (a - b).abs(),
            Piecewise::Min => a.min(b),
            Piecewise::Max => a.max(b),
        }
    }
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    let (name, count) = form.opcode.split_at_checked(form.opcode.len() - 1)?;
    let what = match name {
        "vadd" => Piecewise::Add,
        "vsub" => Piecewise::Sub,
        "vavrg" => Piecewise::Average,
        "vabsdiff" => Piecewise::AbsoluteDifference,
        "vmin" => Piecewise::Min,
        "vmax" => Piecewise::Max,
        _ => return None,
    };
    let bytes = match count {
        "4" => true,
        "2" => false,
        _ => return None,
    };
    let (d_signed, a_signed, b_signed) = (signed(form)?, signed(form)?, signed(form)?);
    let sat = form.eat("sat");
    let add = !sat && form.eat("add");
    let flags = [bytes, d_signed, a_signed, b_signed, add];
    let detail = flags
        .iter()
        .rev()
        .fold(what as u32, |bits, &flag| bits << 1 | u32::from(flag));
    let op = ternary!(rare, m, |a: u32, b: u32, c: u32| -> u32 {
        let flag = |index: u32| m.detail >> index & 1 != 0;
        let (width, d_signed, a_signed, b_signed, add) = (
            if flag(0) { 8 } else { 16 },
            flag(1),
            flag(2),
            flag(3),
            flag(4),
        );
        let what = Piecewise::ALL[(m.detail >> 5) as usize];
        let mut result = if add { c } else { 0 };
        for index in 0..32 / width {
            let x = piece(a, index, width, a_signed) as i32;
            let y = piece(b, index, width, b_signed) as i32;
            let value = what.apply(x, y);
            if add {
                result = result.wrapping_add(value as u32);
            } else {
                let value = if m.sat {
                    in_range(value, width, d_signed)
                } else {
                    value as u32
                };
                result |= (value & ((1 << width) - 1)) << (index * width);
            }
        }
        result
    });
    Some(op.with(Modifiers {
        sat,
        detail,
        ..Modifiers::default()
    }))
}

/// Reads `.s32` or `.u32`.
fn signed(form: &mut Form) -> Option<bool> {
    match form.ty()? {
        Type::S32 => Some(true),
        Type::U32 => Some(false),
        _ => None,
    }
}

/// `.sat`: the nearest integer of `width` bits.
#[inline(always)]
fn in_range(value: i32, width: u32, signed: bool) -> u32 {
    let (least, most) = if signed {
        (-(1 << (width - 1)), (1 << (width - 1)) - 1)
    } else {
        (0, (1 << width) - 1)
    };
    value.clamp(least, most) as u32
}
