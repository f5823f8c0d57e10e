//! Choosing between two values: `selp` by a predicate, `slct` by a sign.

use super::form::{Form, Type};
use super::predicate::Select;
use super::round::flush;
use super::run::Op;

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    if form.opcode == "selp" {
        return by_type!(form.ty()?.bits()?, T in B16 B32 B64: Op::new::<Select<T>>());
    }
    let ftz = form.eat("ftz");
    let value = form.ty()?.bits()?;
    match form.ty()? {
        // -0 counts as positive, NaN as negative. Flushing a subnormal would not change its side
        // but for a negative one, which becomes -0.
        Type::F32 => by_flag!(ftz, FTZ: by_type!(value, T in B16 B32 B64:
            ternary!(rare, |a: T, b: T, c: f32| -> T { if flush(c, FTZ) >= 0.0 { a } else { b } }))),
        Type::S32 if !ftz => by_type!(value, T in B16 B32 B64:
            ternary!(rare, |a: T, b: T, c: i32| -> T { if c >= 0 { a } else { b } })),
        _ => None,
    }
}
