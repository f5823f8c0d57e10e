//! The per-lane arithmetic of PTX: every instruction whose result in a lane depends on that lane
//! alone, from `add` to `cvt.rn.satfinite.e4m3x2.f32`.
//!
//! [`lookup`] turns the parts of an opcode (`["setp", "lt", "ftz", "f32"]`) into the function that
//! runs it over a whole warp group and the shape of its operands. The way from there:
//!
//! * `form` reads the parts of an opcode from left to right, as strictly as the PTX grammar;
//! * `lane` says how each PTX type lives in a register lane;
//! * `run` and `predicate` have the loops over warps and lanes, and the macros that declare one
//!   operation in a line; `modifiers` what rarer forms look at while they run;
//! * one file a family declares the operations: `integer`, `carry`, `bits`, `shift`, `float`,
//!   `approx`, `half`, `convert`, `pack`, `compare`, `select`, `logic`, `dot`, `video`;
//! * the numerics under them: `round` (directed rounding, narrow float formats), `exact`
//!   (integer-only floating point for what no machine type covers), `minmax` and `series`
//!   (polynomials of the approximate functions).
//!
//! An operation exists twice, compiled from one source: for the target's baseline and for
//! x86-64 with AVX2 and FMA. Both give equal bits; [`lookup`] picks one for this machine.
//!
//! Semantics are those of the PTX ISA manual. `docs/ptx.md` lists what is executed, what is
//! refused, and the error bounds of the approximate operations.

#[macro_use]
mod form;
#[macro_use]
mod run;

mod approx;
mod bits;
mod carry;
mod compare;
mod convert;
mod dot;
mod exact;
mod float;
mod half;
mod integer;
mod lane;
mod logic;
mod minmax;
mod modifiers;
mod pack;
mod predicate;
mod round;
mod select;
mod series;
mod shift;
#[cfg(test)]
mod tests;
mod video;

use crate::exec::lanes::OpFn;
use form::Form;
use run::Op;

/// How an operand lives in the register storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A predicate: one bit a lane.
    Pred,
    /// 16 bits or fewer in the low end of a 32-bit lane. What lies above is ignored when read;
    /// when written it is the sign or zero extension of the type. Literals are truncated to it.
    W16,
    /// A 32-bit lane.
    W32,
    /// A 64-bit lane.
    W64,
}

/// One form of a PTX instruction, ready to run.
#[derive(Clone, Copy, Debug)]
pub struct OpDesc {
    /// Runs the operation over the active lanes of a warp group.
    pub f: OpFn,
    /// The destination; `None` where the instruction writes nothing but [`OpDesc::dst2`].
    pub dst: Option<Class>,
    /// Whether a second destination predicate `|q` may follow the first.
    pub dst2: bool,
    /// The sources in PTX order. They go to `Operands::{a, b, c, e}`, literals of
    /// [`OpDesc::imm_last`] not counted.
    pub srcs: &'static [Class],
    /// Width of the floating-point type as which a float literal among the sources is read.
    pub float: Option<u8>,
    /// The last operand is a literal that goes to `Operands::imm` (`lop3`).
    pub imm_last: bool,
    /// What `Operands::imm` must hold otherwise.
    pub imm: i64,
}

/// Which compiled copy of the operations to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What every machine of this target has.
    Baseline,
    /// x86-64 with AVX2, FMA, BMI1/2, LZCNT and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// The best copy that this machine can run.
    fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
        {
            return Level::Avx2;
        }
        Level::Baseline
    }
}

/// The operation with this opcode, given as its parts split at the dots; `None` where it is not a
/// form of per-lane arithmetic that the soft GPU executes.
///
/// ```
/// use harp_softgpu_engine::ops::{lookup, Class};
/// let setp = lookup(&["setp", "lt", "ftz", "f32"]).unwrap();
/// assert_eq!(setp.dst, Some(Class::Pred));
/// assert_eq!(setp.srcs, [Class::W32, Class::W32]);
/// assert!(lookup(&["add", "rn", "u32"]).is_none());
/// ```
pub fn lookup(parts: &[&str]) -> Option<OpDesc> {
    lookup_at(parts, Level::detect())
}

fn lookup_at(parts: &[&str], level: Level) -> Option<OpDesc> {
    let mut form = Form::new(parts)?;
    let op = find(&mut form)?;
    form.is_read()
        .then(|| op.describe(level, form.float_width()))
}

/// Asks the family that has the opcode. Each reads the rest of the form and checks it.
fn find(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "add" | "sub" | "mul" | "mad" | "fma" | "abs" | "neg" | "min" | "max" | "a*b-c"
        | "c-a*b" => arithmetic(form),
        "addc" | "subc" | "madc" => carry::lookup(form),
        "div" if form.ends_in_float() => float::lookup(form),
        "div" | "rem" | "mul24" | "mad24" | "sad" => integer::lookup(form),
        "popc" | "clz" | "bfind" | "fns" | "brev" | "bfe" | "bfi" | "bmsk" | "szext" | "prmt" => {
            bits::lookup(form)
        }
        "shl" | "shr" | "shf" => shift::lookup(form),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "mov" => logic::lookup(form),
        "rcp" | "sqrt" | "copysign" | "testp" => float::lookup(form),
        "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => approx::lookup(form),
        "setp" | "set" => compare::lookup(form),
        "selp" | "slct" => select::lookup(form),
        "cvt" => convert::lookup(form),
        "dp4a" | "dp2a" => dot::lookup(form),
        opcode if opcode.starts_with('v') => video::lookup(form),
        _ => None,
    }
}

/// The opcodes that integers, floats and half floats share.
fn arithmetic(form: &mut Form) -> Option<Op> {
    if form.has("cc") {
        carry::lookup(form)
    } else if form.ends_in_half() {
        half::lookup(form)
    } else if form.ends_in_float() {
        float::lookup(form)
    } else {
        integer::lookup(form)
    }
}
