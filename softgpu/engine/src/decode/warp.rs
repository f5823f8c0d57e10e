//! Instructions that exchange values between the lanes of a warp.

use super::draft::field::{A, B, C, D, D2, E};
use super::draft::{Draft, Fold, Reg, Width};
use super::function::Builder;
use crate::exec::inst::Action;
use crate::exec::warp::{self, Reduction, ShuffleMode, VoteMode, WarpOp};
use crate::ops;
use crate::ptx::statement::{Instruction, Operand};
use crate::ptx::PtxError;

impl<'m> Builder<'_, 'm> {
    /// `bar.warp.sync`
    pub fn warp_sync(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let ("bar.warp.sync", [members]) = (instruction.opcode, &instruction.operands[..]) else {
            return Err(self.unsupported(instruction.opcode));
        };
        let e = self.source(members, Width::Word)?;
        self.emit(Draft::new(Action::Warp(WarpOp::Sync), self.line).arg(E, e));
        Ok(())
    }

    /// `shfl`, `vote`, `match`, `redux`, `activemask`, `elect`
    pub fn warp(&mut self, instruction: &Instruction<'m>, parts: &[&str]) -> Result<(), PtxError> {
        let mut rest: Vec<&str> = parts[1..].to_vec();
        let before = rest.len();
        rest.retain(|part| *part != "sync");
        let synchronous = rest.len() != before;
        // Forms without `.sync` take the lanes that happen to be there, and no member mask.
        let (operands, members) = match (synchronous, instruction.operands.split_last()) {
            (true, Some((members, operands))) => {
                (operands, Some(self.source(members, Width::Word)?))
            }
            (true, None) => return Err(self.bad_operands(instruction)),
            (false, _) => (&instruction.operands[..], None),
        };
        let unsupported = self.unsupported(instruction.opcode);
        let (op, draft) = match (parts[0], &rest[..], operands) {
            ("activemask", ["b32"], [d]) if !synchronous => {
                let d = self.destination(d, Width::Word)?;
                self.emit(Draft::new(Action::Block(warp::active_mask), self.line).def(D, d));
                return Ok(());
            }
            ("elect", [], [d]) if synchronous => {
                let draft = self.destinations(instruction, d, Width::Word)?;
                (WarpOp::Elect, draft)
            }
            ("shfl", [mode, "b32"], [d, a, b, c]) => {
                let mode = match *mode {
                    "idx" => ShuffleMode::Index,
                    "up" => ShuffleMode::Up,
                    "down" => ShuffleMode::Down,
                    "bfly" => ShuffleMode::Butterfly,
                    _ => return Err(unsupported),
                };
                let draft = self.destinations(instruction, d, Width::Word)?;
                let draft = draft
                    .arg(A, self.source(a, Width::Word)?)
                    .arg(B, self.source(b, Width::Word)?)
                    .arg(C, self.source(c, Width::Word)?);
                (WarpOp::Shuffle(mode), draft)
            }
            ("vote", [mode, ty], [d, a]) => {
                let (mode, width) = match (*mode, *ty) {
                    ("ballot", "b32") => (VoteMode::Ballot, Width::Word),
                    ("all", "pred") => (VoteMode::All, Width::Predicate),
                    ("any", "pred") => (VoteMode::Any, Width::Predicate),
                    ("uni", "pred") => (VoteMode::Uniform, Width::Predicate),
                    _ => return Err(unsupported),
                };
                let d = self.destination(d, width)?;
                let a = self.predicate(a)?;
                (
                    WarpOp::Vote(mode),
                    Draft::new(Action::Exit, self.line).def(D, d).arg(A, a),
                )
            }
            ("match", [mode @ ("any" | "all"), ty @ ("b32" | "b64")], [d, a]) if synchronous => {
                let width = if *ty == "b64" {
                    Width::Double
                } else {
                    Width::Word
                };
                let draft = self.destinations(instruction, d, Width::Word)?;
                let draft = draft.arg(A, self.source(a, width)?);
                (
                    WarpOp::Match {
                        all: *mode == "all",
                        wide: width == Width::Double,
                    },
                    draft,
                )
            }
            ("redux", [op, ty], [d, a]) if synchronous => {
                let Some(reduction) = Reduction::from_names(op, ty) else {
                    return Err(unsupported);
                };
                let draft = self.destinations(instruction, d, Width::Word)?;
                (
                    WarpOp::Reduce(reduction),
                    draft.arg(A, self.source(a, Width::Word)?),
                )
            }
            _ => return Err(unsupported),
        };
        let mut draft = Draft {
            action: Action::Warp(op),
            fold: Fold::No,
            ..draft
        };
        if let Some(members) = members {
            draft = draft.arg(E, members);
        }
        self.emit(draft);
        Ok(())
    }

    /// A draft with destination `d` or `d|p`.
    fn destinations(
        &mut self,
        instruction: &Instruction<'m>,
        operand: &Operand<'m>,
        width: Width,
    ) -> Result<Draft, PtxError> {
        let draft = Draft::new(Action::Exit, self.line);
        match operand {
            Operand::Pair(d, p) => {
                let d = self.destination(&Operand::Name { name: d, addend: 0 }, width)?;
                let p =
                    self.destination(&Operand::Name { name: p, addend: 0 }, Width::Predicate)?;
                Ok(draft.def(D, d).def(D2, p))
            }
            Operand::Name { .. } => Ok(draft.def(D, self.destination(operand, width)?)),
            _ => Err(self.bad_operands(instruction)),
        }
    }

    /// A predicate, or the register with its negation.
    pub fn predicate(&mut self, operand: &Operand<'m>) -> Result<Reg, PtxError> {
        match operand {
            Operand::Not(name) => {
                let a = self.register(name, Width::Predicate)?;
                let d = self.temporary(Width::Predicate);
                let Some(not) = ops::lookup(&["not", "pred"]) else {
                    return Err(self.unsupported("not.pred"));
                };
                self.emit_unguarded(
                    Draft::new(Action::Lane(not.f), self.line)
                        .def(D, d)
                        .arg(A, a),
                );
                Ok(d)
            }
            operand => self.source(operand, Width::Predicate),
        }
    }
}
