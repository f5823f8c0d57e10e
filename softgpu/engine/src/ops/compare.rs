//! Comparisons: `setp` into predicates and `set` into registers.
//!
//! The plain `setp` on 32 and 64 bits has its comparison as a constant. Everything else goes
//! through one loop a type that finds comparison, boolean and result in the [`Modifiers`].
//!
//! Unsafe by nature as `run.rs` is, and for the same reason sound.

use super::form::{Form, Type};
use super::lane::{Bf16, Lane, F16};
use super::modifiers::Modifiers;
use super::round::{flush, Half};
use super::run::{active_warps, bits_where, store, store_bits, Op, Operation};
use super::Class;
use crate::exec::lanes::{Lanes, Operands, LANES};
use std::marker::PhantomData;

/// The comparison operators. Those that end in `u` also hold where an operand is NaN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

impl Comparison {
    const ALL: [Comparison; 14] = [
        Comparison::Eq,
        Comparison::Ne,
        Comparison::Lt,
        Comparison::Le,
        Comparison::Gt,
        Comparison::Ge,
        Comparison::Equ,
        Comparison::Neu,
        Comparison::Ltu,
        Comparison::Leu,
        Comparison::Gtu,
        Comparison::Geu,
        Comparison::Num,
        Comparison::Nan,
    ];

    fn read(part: &str) -> Option<Comparison> {
        const NAMES: [&str; 14] = [
            "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num",
            "nan",
        ];
        let index = NAMES.iter().position(|name| *name == part)?;
        Some(Comparison::ALL[index])
    }

    /// `lo`, `ls`, `hi`, `hs`: names for unsigned comparison.
    fn read_unsigned(part: &str) -> Option<Comparison> {
        Some(match part {
            "lo" => Comparison::Lt,
            "ls" => Comparison::Le,
            "hi" => Comparison::Gt,
            "hs" => Comparison::Ge,
            _ => return None,
        })
    }

    /// Whether it makes sense for numbers without NaN.
    fn is_ordered(self) -> bool {
        (self as usize) < Comparison::Equ as usize
    }
}

#[inline(always)]
#[allow(
    clippy::double_comparisons,
    clippy::eq_op,
    clippy::neg_cmp_op_on_partial_ord,
    clippy::nonminimal_bool
)]
fn holds<K: PartialOrd>(comparison: Comparison, a: K, b: K) -> bool {
    match comparison {
        Comparison::Eq => a == b,
        Comparison::Ne => a < b || a > b,
        Comparison::Lt => a < b,
        Comparison::Le => a <= b,
        Comparison::Gt => a > b,
        Comparison::Ge => a >= b,
        Comparison::Equ => !(a < b || a > b),
        Comparison::Neu => a != b,
        Comparison::Ltu => !(a >= b),
        Comparison::Leu => !(a > b),
        Comparison::Gtu => !(a <= b),
        Comparison::Geu => !(a < b),
        Comparison::Num => a == a && b == b,
        Comparison::Nan => a != a || b != b,
    }
}

/// The comparison as a constant of what follows.
macro_rules! by_comparison {
    ($comparison:expr, $NAME:ident: $op:expr) => {
        by_value!($comparison, $NAME: Comparison in
            Eq Ne Lt Le Gt Ge Equ Neu Ltu Leu Gtu Geu Num Nan: $op)
    };
}

/// Declares the plain `setp` of one comparison.
macro_rules! plain {
    ($X:ty, $COMPARISON:ident) => {{
        struct F;
        impl CompareFn for F {
            type T = $X;
            const COMPARISON: Comparison = $COMPARISON;
        }
        Op::new::<SetPredicate<F>>()
    }};
}

/// Lanes that compare.
trait Comparable: Lane {
    type Key: PartialOrd;
    /// The value that is compared, subnormals as zero where `ftz`.
    fn key(self, ftz: bool) -> Self::Key;
}

macro_rules! comparables {
    ($($type:ty: $Key:ty, |$value:ident, $ftz:ident| $key:expr;)*) => {$(
        impl Comparable for $type {
            type Key = $Key;
            #[inline(always)]
            fn key(self, $ftz: bool) -> $Key {
                let $value = self;
                $key
            }
        }
    )*};
}

comparables! {
    u16: u16, |value, _ftz| value;
    i16: i16, |value, _ftz| value;
    u32: u32, |value, _ftz| value;
    i32: i32, |value, _ftz| value;
    u64: u64, |value, _ftz| value;
    i64: i64, |value, _ftz| value;
    f32: f32, |value, ftz| flush(value, ftz);
    f64: f64, |value, _ftz| value;
    F16: f32, |value, ftz| value.flushed(ftz).widen();
    Bf16: f32, |value, ftz| value.flushed(ftz).widen();
}

/// The lanes of one warp in which `comparison` holds between the sources `a` and `b`, which lie
/// `shift` bits up in their lanes.
#[inline(always)]
unsafe fn lanes_where<T: Comparable>(
    comparison: Comparison,
    ftz: bool,
    shift: u32,
    (lanes, operands, warp): (&Lanes, &Operands, usize),
) -> u32 {
    // SAFETY: see the head of `run.rs`.
    unsafe {
        let a = lanes.reg::<T::Raw>(operands.a, warp);
        let b = lanes.reg::<T::Raw>(operands.b, warp);
        let key = |raw: T::Raw| T::read(raw >> shift).key(ftz);
        bits_where(|lane| holds(comparison, key((*a)[lane]), key((*b)[lane])))
    }
}

/// `setp` with nothing but a comparison: `p` is that, `q` its complement.
struct SetPredicate<F>(PhantomData<F>);

/// A comparison of a type.
trait CompareFn {
    type T: Comparable;
    const COMPARISON: Comparison;
}

impl<F: CompareFn> Operation for SetPredicate<F> {
    const DST: Option<Class> = Some(Class::Pred);
    const SRCS: &'static [Class] = &[F::T::CLASS, F::T::CLASS];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        let ftz = Modifiers::unpack(operands.imm).ftz;
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`; `q` is looked at only where it is given.
            unsafe {
                let holds = lanes_where::<F::T>(F::COMPARISON, ftz, 0, (lanes, operands, warp));
                store_bits(&mut (*lanes.pred(operands.d))[warp], mask, holds);
                if operands.d2 != u32::MAX {
                    store_bits(&mut (*lanes.pred(operands.d2))[warp], mask, !holds);
                }
            }
        }
    }
}

/// The boolean that combines a comparison with a third, predicate operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Boolean {
    None,
    And,
    Or,
    Xor,
}

impl Boolean {
    const ALL: [Boolean; 4] = [Boolean::None, Boolean::And, Boolean::Or, Boolean::Xor];
}

/// What `set` writes for true.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Ones32,
    Ones16,
    F32,
    F16,
    Bf16,
}

impl Truth {
    const ALL: [Truth; 5] = [
        Truth::Ones32,
        Truth::Ones16,
        Truth::F32,
        Truth::F16,
        Truth::Bf16,
    ];

    fn bits(self) -> u32 {
        match self {
            Truth::Ones32 => u32::MAX,
            Truth::Ones16 => 0xffff,
            Truth::F32 => 1.0f32.to_bits(),
            Truth::F16 => 0x3c00,
            Truth::Bf16 => 0x3f80,
        }
    }
}

/// What a comparison that is not plain looks at while it runs.
#[derive(Clone, Copy)]
struct Comparing {
    comparison: Comparison,
    boolean: Boolean,
    truth: Truth,
    ftz: bool,
}

impl Comparing {
    fn pack(self) -> Modifiers {
        let Comparing {
            comparison,
            boolean,
            truth,
            ftz,
        } = self;
        let detail = (truth as u32) << 8 | (boolean as u32) << 4 | comparison as u32;
        Modifiers {
            ftz,
            detail,
            ..Modifiers::default()
        }
    }

    fn unpack(operands: &Operands) -> Comparing {
        let Modifiers { detail, ftz, .. } = Modifiers::unpack(operands.imm);
        Comparing {
            comparison: Comparison::ALL[(detail & 15) as usize],
            boolean: Boolean::ALL[(detail >> 4 & 3) as usize],
            truth: Truth::ALL[(detail >> 8) as usize],
            ftz,
        }
    }

    /// The lanes of one warp in which the comparison holds.
    #[inline(always)]
    unsafe fn lanes<T: Comparable>(self, shift: u32, at: (&Lanes, &Operands, usize)) -> u32 {
        // SAFETY: the caller's promise is the same.
        unsafe {
            by_comparison!(self.comparison, COMPARISON:
                lanes_where::<T>(COMPARISON, self.ftz, shift, at))
        }
    }

    /// `holds` combined with the predicate operand, if there is one.
    #[inline(always)]
    unsafe fn combine(self, holds: u32, at: (&Lanes, &Operands, usize)) -> u32 {
        let (lanes, operands, warp) = at;
        // SAFETY: see the head of `run.rs`; without a boolean, operand `c` is not looked at.
        let with = || unsafe { (*lanes.pred(operands.c))[warp] };
        match self.boolean {
            Boolean::None => holds,
            Boolean::And => holds & with(),
            Boolean::Or => holds | with(),
            Boolean::Xor => holds ^ with(),
        }
    }
}

/// `setp` with any modifiers. For a pair, `p` is the comparison of the low halves and `q` that of
/// the high ones; otherwise `q` is the complement.
struct SetPredicateAny<T, const PAIR: bool>(PhantomData<T>);

impl<T: Comparable, const PAIR: bool> Operation for SetPredicateAny<T, PAIR> {
    const DST: Option<Class> = Some(Class::Pred);
    const SRCS: &'static [Class] = &[];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        let comparing = Comparing::unpack(operands);
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`; `q` is looked at only where it is given.
            unsafe {
                let at = (&*lanes, operands, warp);
                let holds = comparing.lanes::<T>(0, at);
                let other = if PAIR {
                    comparing.lanes::<T>(16, at)
                } else {
                    !holds
                };
                let p = comparing.combine(holds, at);
                let q = comparing.combine(other, at);
                store_bits(&mut (*lanes.pred(operands.d))[warp], mask, p);
                if operands.d2 != u32::MAX {
                    store_bits(&mut (*lanes.pred(operands.d2))[warp], mask, q);
                }
            }
        }
    }
}

/// `set`: the comparison as a number, for a pair in each half.
struct SetRegister<T, const PAIR: bool>(PhantomData<T>);

impl<T: Comparable, const PAIR: bool> Operation for SetRegister<T, PAIR> {
    const DST: Option<Class> = None;
    const SRCS: &'static [Class] = &[];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        let comparing = Comparing::unpack(operands);
        let truth = comparing.truth.bits();
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let at = (&*lanes, operands, warp);
                let low = comparing.combine(comparing.lanes::<T>(0, at), at);
                let mut result = [0; LANES];
                for (lane, result) in result.iter_mut().enumerate() {
                    *result = truth * (low >> lane & 1);
                }
                if PAIR {
                    let high = comparing.combine(comparing.lanes::<T>(16, at), at);
                    for (lane, result) in result.iter_mut().enumerate() {
                        *result |= (truth << 16) * (high >> lane & 1);
                    }
                }
                store(lanes.reg::<u32>(operands.d, warp), mask, &result);
            }
        }
    }
}

/// The classes of two `class` and a predicate if there is a boolean.
fn sources(class: Class, boolean: Boolean) -> &'static [Class] {
    match (class, boolean) {
        (Class::W16, Boolean::None) => &[Class::W16, Class::W16],
        (Class::W16, _) => &[Class::W16, Class::W16, Class::Pred],
        (Class::W64, Boolean::None) => &[Class::W64, Class::W64],
        (Class::W64, _) => &[Class::W64, Class::W64, Class::Pred],
        (_, Boolean::None) => &[Class::W32, Class::W32],
        (_, _) => &[Class::W32, Class::W32, Class::Pred],
    }
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    let any = form.parse(Comparison::read);
    let for_unsigned = any.is_none();
    let comparison = any.or_else(|| form.parse(Comparison::read_unsigned))?;
    let boolean = form.parse(|part| {
        Some(match part {
            "and" => Boolean::And,
            "or" => Boolean::Or,
            "xor" => Boolean::Xor,
            _ => return None,
        })
    });
    let boolean = boolean.unwrap_or(Boolean::None);
    let ftz = form.eat("ftz");
    let to = if form.opcode == "set" {
        Some(form.ty()?)
    } else {
        None
    };
    let ty = form.ty()?;
    let fits = match ty {
        Type::U16 | Type::U32 | Type::U64 => comparison.is_ordered() && !ftz,
        Type::B16 | Type::B32 | Type::B64 => {
            matches!(comparison, Comparison::Eq | Comparison::Ne) && !for_unsigned && !ftz
        }
        Type::S16 | Type::S32 | Type::S64 => comparison.is_ordered() && !for_unsigned && !ftz,
        Type::F32 | Type::F16 | Type::F16x2 => !for_unsigned,
        Type::F64 | Type::Bf16 | Type::Bf16x2 => !for_unsigned && !ftz,
        _ => false,
    };
    if !fits {
        return None;
    }
    let truth = match to {
        None => Truth::Ones32,
        Some(to) => truth(to, ty)?,
    };
    let modifiers = Comparing {
        comparison,
        boolean,
        truth,
        ftz,
    }
    .pack();
    let op = match to {
        None if boolean == Boolean::None => plain(comparison, ty).or_else(|| into_predicate(ty)),
        None => into_predicate(ty),
        Some(_) => into_register(ty),
    }?
    .with(modifiers);
    let class = match ty.width() {
        16 => Class::W16,
        64 => Class::W64,
        _ => Class::W32,
    };
    let srcs = sources(class, boolean);
    Some(match to {
        None => op.of_classes(Class::Pred, srcs).with_second_destination(),
        Some(to) if to.width() == 16 => op.of_classes(Class::W16, srcs),
        Some(_) => op.of_classes(Class::W32, srcs),
    })
}

/// What `set.to.ty` writes for true; for a pair, in each half.
fn truth(to: Type, ty: Type) -> Option<Truth> {
    let pair = matches!(ty, Type::F16x2 | Type::Bf16x2);
    let half = matches!(ty, Type::F16 | Type::Bf16);
    Some(match (to, ty) {
        (Type::U32 | Type::S32, _) if pair => Truth::Ones16,
        (Type::F16x2, Type::F16x2) => Truth::F16,
        (Type::Bf16x2, Type::Bf16x2) => Truth::Bf16,
        _ if pair => return None,
        (Type::U16 | Type::S16, _) if half => Truth::Ones16,
        (Type::F16, Type::F16) => Truth::F16,
        (Type::Bf16, Type::Bf16) => Truth::Bf16,
        (Type::U32 | Type::S32, _) => Truth::Ones32,
        (Type::F32, _) if !half => Truth::F32,
        _ => return None,
    })
}

fn plain(comparison: Comparison, ty: Type) -> Option<Op> {
    match ty.bits()? {
        Type::B16 => None,
        _ if matches!(ty, Type::F32 | Type::F64) => by_comparison!(comparison, COMPARISON:
            by_type!(ty, X in F32 F64: plain!(X, COMPARISON))),
        bits => {
            // Equality does not ask for the sign.
            let ty = if matches!(comparison, Comparison::Eq | Comparison::Ne) {
                bits
            } else {
                ty
            };
            by_value!(comparison, COMPARISON: Comparison in Eq Ne Lt Le Gt Ge:
                by_type!(ty, X in B32 B64 U32 S32 U64 S64: plain!(X, COMPARISON)), else None)
        }
    }
}

fn into_predicate(ty: Type) -> Option<Op> {
    match ty {
        Type::F16x2 => Some(Op::rare::<SetPredicateAny<F16, true>>()),
        Type::Bf16x2 => Some(Op::rare::<SetPredicateAny<Bf16, true>>()),
        _ => by_type!(ty, T in B16 B32 B64 U16 S16 U32 S32 U64 S64 F16 Bf16 F32 F64:
            Op::new::<SetPredicateAny<T, false>>()),
    }
}

fn into_register(ty: Type) -> Option<Op> {
    match ty {
        Type::F16x2 => Some(Op::rare::<SetRegister<F16, true>>()),
        Type::Bf16x2 => Some(Op::rare::<SetRegister<Bf16, true>>()),
        _ => by_type!(ty, T in B16 B32 B64 U16 S16 U32 S32 U64 S64 F16 Bf16 F32 F64:
            Op::rare::<SetRegister<T, false>>()),
    }
}
