//! Instructions that `ops` executes.

use super::draft::field::{A, B, C, D, D2, E};
use super::draft::{Draft, Reg, Width};
use super::function::Builder;
use super::fuse::Step;
use crate::exec::inst::Action;
use crate::ops::{self, Class, OpDesc};
use crate::ptx::literal::Literal;
use crate::ptx::statement::{Instruction, Operand};
use crate::ptx::PtxError;

/// Fields of an operation's sources, in PTX order.
const SOURCES: [usize; 4] = [A, B, C, E];

const fn width(class: Class) -> Width {
    match class {
        Class::Pred => Width::Predicate,
        Class::W16 | Class::W32 => Width::Word,
        Class::W64 => Width::Double,
    }
}

impl<'m> Builder<'_, 'm> {
    /// Looks the opcode up in `ops` and appends it.
    pub fn arithmetic(
        &mut self,
        instruction: &Instruction<'m>,
        parts: &[&str],
    ) -> Result<(), PtxError> {
        let Some(op) = ops::lookup(parts) else {
            return Err(self.unsupported(instruction.opcode));
        };
        let count = usize::from(op.dst.is_some() || op.dst2) + op.srcs.len();
        let (operands, imm) = match (op.imm_last, instruction.operands.split_last()) {
            (true, Some((Operand::Literal(Literal::Integer { bits, .. }), rest))) => {
                (rest, *bits as i64)
            }
            (true, _) => return Err(self.bad_operands(instruction)),
            (false, _) => (&instruction.operands[..], op.imm),
        };
        if operands.len() != count {
            return Err(self.bad_operands(instruction));
        }
        let is_cvt = parts[0] == "cvt";
        let sources = &operands[count - op.srcs.len()..];
        let mut draft = Draft::new(Action::Lane(op.f), self.line)
            .imm(imm)
            .step(Step::of(parts));
        for ((field, class), operand) in SOURCES.into_iter().zip(op.srcs).zip(sources) {
            let reg = self.operand(operand, *class, &op, instruction, is_cvt)?;
            draft = draft.arg(field, reg);
        }
        let Some(destination) = operands.first().filter(|_| count > op.srcs.len()) else {
            return Err(self.bad_operands(instruction));
        };
        self.write(
            instruction,
            draft,
            destination,
            &op,
            is_cvt.then_some(parts),
        )
    }

    /// Adds the destinations and appends the instruction.
    fn write(
        &mut self,
        instruction: &Instruction<'m>,
        draft: Draft,
        destination: &Operand<'m>,
        op: &OpDesc,
        cvt: Option<&[&str]>,
    ) -> Result<(), PtxError> {
        let (first, second) = match destination {
            Operand::Pair(first, second) if op.dst2 => (
                Operand::Name {
                    name: first,
                    addend: 0,
                },
                Some(*second),
            ),
            Operand::Pair(..) => return Err(self.bad_operands(instruction)),
            single => (single.clone(), None),
        };
        let mut draft = draft;
        if let Some(name) = second.filter(|name| *name != "_") {
            draft = draft.def(D2, self.register(name, Width::Predicate)?);
        }
        let Some(class) = op.dst else {
            self.emit(draft);
            return Ok(());
        };
        if let (Some(parts), Operand::Name { name, .. }, Width::Word) = (cvt, &first, width(class))
        {
            if *name != "_" {
                let reg = self.any_register(name)?;
                if self.program.registers.width(reg) == Width::Double {
                    return self.extend(draft, reg, parts, instruction);
                }
            }
        }
        let d = self.destination(&first, width(class))?;
        self.emit(draft.def(D, d));
        Ok(())
    }

    /// A conversion to a narrow type in a 64-bit register: the result is extended by its sign.
    fn extend(
        &mut self,
        draft: Draft,
        d: Reg,
        parts: &[&str],
        instruction: &Instruction<'m>,
    ) -> Result<(), PtxError> {
        let narrow = self.temporary(Width::Word);
        self.emit(draft.def(D, narrow));
        let to = parts
            .get(parts.len().wrapping_sub(2))
            .copied()
            .unwrap_or_default();
        let wide = if to.starts_with('s') { "s64" } else { "u64" };
        let Some(op) = ops::lookup(&["cvt", wide, to]) else {
            return Err(self.unsupported(instruction.opcode));
        };
        self.emit(
            Draft::new(Action::Lane(op.f), self.line)
                .def(D, d)
                .arg(A, narrow),
        );
        Ok(())
    }

    /// One source operand as a register of `class`.
    fn operand(
        &mut self,
        operand: &Operand<'m>,
        class: Class,
        op: &OpDesc,
        instruction: &Instruction<'m>,
        is_cvt: bool,
    ) -> Result<Reg, PtxError> {
        match operand {
            Operand::Name { name, addend: 0 } => {
                let reg = self.any_register(name)?;
                match (self.program.registers.width(reg), width(class)) {
                    (found, wanted) if found == wanted => Ok(reg),
                    // A conversion takes the low bits of a wider register.
                    (Width::Double, Width::Word) if is_cvt => self.low_word(reg),
                    _ => Err(self.error(format!(
                        "register `{name}` has the wrong size for `{}`",
                        instruction.opcode
                    ))),
                }
            }
            Operand::Not(_) if class == Class::Pred => self.predicate(operand),
            Operand::Literal(literal) => {
                // Sources that are not of the float type (`cvt.rn.f32.s32`) come last in the name.
                let float_last = instruction.opcode.ends_with(['2', '4', '6'])
                    && instruction
                        .opcode
                        .rsplit('.')
                        .next()
                        .is_some_and(|ty| ty.starts_with('f'));
                let float = match (op.float, literal) {
                    (Some(_), Literal::Integer { .. }) if !float_last => 0,
                    (float, _) => float.unwrap_or(0),
                };
                let bits = self.literal_bits(*literal, float)?;
                let bits = if class == Class::W16 {
                    bits & 0xffff
                } else {
                    bits
                };
                Ok(self.constant(bits, width(class)))
            }
            _ => Err(self.bad_operands(instruction)),
        }
    }

    /// The low half of a 64-bit register.
    pub fn low_word(&mut self, wide: Reg) -> Result<Reg, PtxError> {
        let d = self.temporary(Width::Word);
        let action = Action::Lane(crate::exec::moves::truncate());
        self.emit_unguarded(Draft::new(action, self.line).def(D, d).arg(A, wide));
        Ok(d)
    }
}
