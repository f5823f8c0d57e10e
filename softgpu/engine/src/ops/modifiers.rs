//! Modifiers that an operation looks at while it runs.
//!
//! Compiling one copy of an operation for each combination of modifiers makes it fast, and makes
//! thousands of copies. So the common forms have their modifiers as constants, and the others
//! find them here: packed into `Operands::imm`, which the decoder copies from `OpDesc::imm`.

use super::form::Rounding;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub satfinite: bool,
    /// `.NaN` of `min` and `max`.
    pub nan: bool,
    /// `.xorsign.abs` of `min` and `max`.
    pub xorsign: bool,
    /// `max` rather than `min`.
    pub greatest: bool,
    pub rounding: Rounding,
    /// What else the operation encodes for itself.
    pub detail: u32,
}

impl Modifiers {
    pub fn pack(self) -> i64 {
        let flags = [
            self.ftz,
            self.sat,
            self.relu,
            self.satfinite,
            self.nan,
            self.xorsign,
            self.greatest,
        ];
        let flags = flags
            .iter()
            .rev()
            .fold(0, |bits, &flag| bits << 1 | i64::from(flag));
        i64::from(self.detail) << 32 | (self.rounding as i64) << 8 | flags
    }

    #[inline(always)]
    pub fn unpack(bits: i64) -> Modifiers {
        let flag = |index: u32| bits >> index & 1 != 0;
        Modifiers {
            ftz: flag(0),
            sat: flag(1),
            relu: flag(2),
            satfinite: flag(3),
            nan: flag(4),
            xorsign: flag(5),
            greatest: flag(6),
            rounding: match bits >> 8 & 3 {
                0 => Rounding::Nearest,
                1 => Rounding::Zero,
                2 => Rounding::Down,
                _ => Rounding::Up,
            },
            detail: (bits >> 32) as u32,
        }
    }
}
