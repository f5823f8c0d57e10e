//! `mov`, `cvta`, `isspacep`: values that change place, not bits.

use super::draft::field::{A, B, C, D, E};
use super::draft::{Draft, Fold, Reg, Width};
use super::function::{Builder, Located, Origin};
use crate::exec::inst::Action;
use crate::exec::lanes::OpFn;
use crate::exec::special::{self, Named, Timer};
use crate::exec::{moves, windows};
use crate::ptx::statement::{Instruction, Operand};
use crate::ptx::types::{Kind, Scalar, Space};
use crate::ptx::PtxError;

/// Fields of the parts of a packed value.
pub const PARTS: [usize; 4] = [D, B, C, E];

impl<'m> Builder<'_, 'm> {
    /// `mov` of anything but predicates.
    pub fn mov(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let Some(ty) = instruction
            .opcode
            .strip_prefix("mov.")
            .and_then(Scalar::from_name)
        else {
            return Err(self.unsupported(instruction.opcode));
        };
        let Some(width) = Width::of_bytes(ty.bytes) else {
            return Err(self.unsupported(instruction.opcode));
        };
        match &instruction.operands[..] {
            [Operand::Vector(parts), source] => self.unpack(instruction, ty, parts, source),
            [destination, Operand::Vector(parts)] => self.pack(instruction, ty, destination, parts),
            [destination, source] => {
                let d = self.destination(destination, width)?;
                match source {
                    Operand::Literal(literal) => {
                        let float = if ty.kind == Kind::Float {
                            ty.bytes as u8 * 8
                        } else {
                            0
                        };
                        let bits = self.literal_bits(*literal, float)?;
                        let a = self.constant(bits, width);
                        self.copy(d, a, width);
                        Ok(())
                    }
                    Operand::Name { name, addend } => self.mov_name(d, name, *addend, width),
                    _ => Err(self.bad_operands(instruction)),
                }
            }
            _ => Err(self.bad_operands(instruction)),
        }
    }

    fn mov_name(&mut self, d: Reg, name: &str, addend: i64, width: Width) -> Result<(), PtxError> {
        if let Some(Named::Timer(timer)) = special::by_name(name) {
            self.emit(Draft::new(Action::Block(timer_reader(timer, width)), self.line).def(D, d));
            return Ok(());
        }
        let Located { place, offset, .. } = self.locate(name, addend)?;
        let a = match place {
            Origin::Constant(start) => self.constant(start.wrapping_add_signed(offset), width),
            origin => self.base(origin, width),
        };
        let found = self.program.registers.width(a);
        match (found, width, place) {
            (_, _, Origin::Constant(_)) => self.copy(d, a, width),
            (Width::Word, Width::Word, _) if offset == 0 => self.copy(d, a, width),
            (Width::Double, Width::Double, _) if offset == 0 => self.copy(d, a, width),
            (Width::Double, Width::Double, _) => self.add(d, a, offset),
            (Width::Word, Width::Double, Origin::Register(_)) if self.is_frame(name) => {
                let wide = self.temporary(Width::Double);
                let widen = Action::Lane(moves::zero_extend());
                self.emit_unguarded(Draft::new(widen, self.line).def(D, wide).arg(A, a));
                self.add(d, wide, offset);
            }
            _ => return Err(self.error(format!("`{name}` has the wrong size here"))),
        }
        Ok(())
    }

    /// Appends `d = a`.
    pub fn copy(&mut self, d: Reg, a: Reg, width: Width) {
        let f: OpFn = match width {
            Width::Double => moves::copy_double(),
            _ => moves::copy_word(),
        };
        let draft = Draft::new(Action::Lane(f), self.line)
            .def(D, d)
            .arg(A, a)
            .fold(Fold::Copy);
        self.emit(draft);
    }

    /// Appends `d = a + imm`, 64 bits wide.
    fn add(&mut self, d: Reg, a: Reg, imm: i64) {
        let action = Action::Lane(moves::add_double());
        self.emit(
            Draft::new(action, self.line)
                .def(D, d)
                .arg(A, a)
                .imm(imm)
                .fold(Fold::Add),
        );
    }

    /// `mov.b64 {lo, hi}, r`
    fn unpack(
        &mut self,
        instruction: &Instruction<'m>,
        ty: Scalar,
        parts: &[Operand<'m>],
        source: &Operand<'m>,
    ) -> Result<(), PtxError> {
        let (f, part): (OpFn, Width) = match (ty.bytes, parts.len()) {
            (8, 2) => (moves::unpack_double_words(), Width::Word),
            (8, 4) => (moves::unpack_double_halves(), Width::Word),
            (4, 2) => (moves::unpack_word_halves(), Width::Word),
            (4, 4) => (moves::unpack_word_bytes(), Width::Word),
            (2, 2) => (moves::unpack_half_bytes(), Width::Word),
            _ => return Err(self.unsupported(instruction.opcode)),
        };
        let width = if ty.bytes == 8 {
            Width::Double
        } else {
            Width::Word
        };
        let mut draft = Draft::new(Action::Lane(f), self.line).arg(A, self.source(source, width)?);
        for (field, operand) in PARTS.into_iter().zip(parts) {
            draft = draft.def(field, self.destination(operand, part)?);
        }
        self.emit(draft);
        Ok(())
    }

    /// `mov.b64 r, {lo, hi}`
    fn pack(
        &mut self,
        instruction: &Instruction<'m>,
        ty: Scalar,
        destination: &Operand<'m>,
        parts: &[Operand<'m>],
    ) -> Result<(), PtxError> {
        let f: OpFn = match (ty.bytes, parts.len()) {
            (8, 2) => moves::pack_double_words(),
            (8, 4) => moves::pack_double_halves(),
            (4, 2) => moves::pack_word_halves(),
            (4, 4) => moves::pack_word_bytes(),
            (2, 2) => moves::pack_half_bytes(),
            _ => return Err(self.unsupported(instruction.opcode)),
        };
        let width = if ty.bytes == 8 {
            Width::Double
        } else {
            Width::Word
        };
        let d = self.destination(destination, width)?;
        let mut draft = Draft::new(Action::Lane(f), self.line);
        for (field, operand) in PARTS.into_iter().zip(parts) {
            let part = self.source(operand, Width::Word)?;
            // The first part shares its field with the destination of other moves.
            draft = draft.arg(if field == D { A } else { field }, part);
        }
        self.emit(draft.def(D, d));
        Ok(())
    }

    /// `cvta`: between a space's own addresses and generic ones.
    pub fn cvta(&mut self, instruction: &Instruction<'m>, parts: &[&str]) -> Result<(), PtxError> {
        let (to_space, space, bits) = match parts {
            ["cvta", "to", space, bits] => (true, *space, *bits),
            ["cvta", space, bits] => (false, *space, *bits),
            _ => return Err(self.unsupported(instruction.opcode)),
        };
        let Some(start) = window_of(space).filter(|_| matches!(bits, "u64" | "b64")) else {
            return Err(self.unsupported(instruction.opcode));
        };
        let [destination, source] = &instruction.operands[..] else {
            return Err(self.bad_operands(instruction));
        };
        let d = self.destination(destination, Width::Double)?;
        let shift = if to_space {
            (start as i64).wrapping_neg()
        } else {
            start as i64
        };
        let a = match source {
            Operand::Name { name, addend } => {
                let a = self.temporary(Width::Double);
                self.mov_name(a, name, *addend, Width::Double)?;
                a
            }
            _ => self.source(source, Width::Double)?,
        };
        match shift {
            0 => self.copy(d, a, Width::Double),
            shift => self.add(d, a, shift),
        }
        Ok(())
    }

    /// `isspacep`: whether a generic address is in a space.
    pub fn isspacep(
        &mut self,
        instruction: &Instruction<'m>,
        parts: &[&str],
    ) -> Result<(), PtxError> {
        let ([destination, source], [_, space]) = (&instruction.operands[..], parts) else {
            return Err(self.bad_operands(instruction));
        };
        let Some(start) = window_of(space) else {
            return Err(self.unsupported(instruction.opcode));
        };
        let d = self.destination(destination, Width::Predicate)?;
        let a = self.source(source, Width::Double)?;
        // Constants are in global memory and cannot be told apart by address.
        let action = Action::Lane(moves::is_in_window as OpFn);
        let imm = if space.starts_with("param") {
            windows::PARAM as i64
        } else {
            start as i64
        };
        self.emit(Draft::new(action, self.line).def(D, d).arg(A, a).imm(imm));
        Ok(())
    }

    /// Whether `name` is a variable in the frame of a function.
    fn is_frame(&mut self, name: &str) -> bool {
        let symbol = self.scopes.lookup(name, &mut self.program.registers);
        matches!(symbol, Some(super::scope::Symbol::Frame(_)))
    }
}

/// What to add to an address of `space` to make it generic.
fn window_of(space: &str) -> Option<u64> {
    Some(match space {
        "global" | "const" | "param" | "param::entry" => 0,
        "shared" | "shared::cta" | "shared::cluster" => windows::SHARED,
        "local" => windows::LOCAL,
        _ => return None,
    })
}

/// The state space that a part of an opcode names.
pub fn space_of(part: &str) -> Option<Space> {
    Some(match part {
        "global" => Space::Global,
        "const" => Space::Const,
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        _ => return None,
    })
}

fn timer_reader(timer: Timer, width: Width) -> crate::exec::inst::BlockFn {
    match (timer, width) {
        (Timer::Clock, Width::Double) => moves::read_clock_double,
        (Timer::Clock, _) => moves::read_clock_word,
        (Timer::ClockHigh, _) => moves::read_clock_high,
        (Timer::Nanoseconds, Width::Double) => moves::read_nanoseconds_double,
        (Timer::Nanoseconds, _) => moves::read_nanoseconds_word,
        (Timer::NanosecondsHigh, _) => moves::read_nanoseconds_high,
    }
}
