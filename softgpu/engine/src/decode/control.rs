//! Jumps, calls, barriers.

use super::draft::field::{A, B, C, D};
use super::draft::{Draft, Reg, Width};
use super::function::Builder;
use super::program::{CallDraft, Callee};
use super::scope::{FrameSpan, Symbol};
use crate::exec::barrier::BarrierOp;
use crate::exec::inst::{Action, BlockFn};
use crate::exec::memory::{self, Area, Element};
use crate::exec::system;
use crate::ptx::statement::{Instruction, Operand};
use crate::ptx::PtxError;

impl<'m> Builder<'_, 'm> {
    /// `bra`
    pub fn branch(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let [Operand::Name { name, addend: 0 }] = instruction.operands[..] else {
            return Err(self.bad_operands(instruction));
        };
        let label = self.label_use(name);
        self.emit(Draft::new(Action::Branch(label), self.line));
        Ok(())
    }

    /// `brx.idx`: a jump through a list of labels.
    pub fn branch_table(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let [index, Operand::Name { name, addend: 0 }] = &instruction.operands[..] else {
            return Err(self.bad_operands(instruction));
        };
        let symbol = self.scopes.lookup(name, &mut self.program.registers);
        let Some(Symbol::BranchTargets(targets)) = symbol else {
            return Err(self.error(format!("`{name}` is not a list of branch targets")));
        };
        let a = self.source(index, Width::Word)?;
        let labels = targets
            .into_iter()
            .map(|target| self.label_use(target))
            .collect();
        self.program.tables.push(labels);
        let site = self.program.tables.len() as u32 - 1;
        self.emit(Draft::new(Action::Table, self.line).arg(A, a).site(site));
        Ok(())
    }

    /// `ret`: ends the thread in a kernel.
    pub fn leave(&mut self) -> Result<(), PtxError> {
        let action = if self.entry {
            Action::Exit
        } else {
            Action::Return
        };
        self.emit(Draft::new(action, self.line));
        Ok(())
    }

    /// `call`: direct, through a pointer, or of a function that the engine provides.
    pub fn call(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let (results, rest) = match &instruction.operands[..] {
            [Operand::List(results), rest @ ..] => (&results[..], rest),
            rest => (&[][..], rest),
        };
        let (Operand::Name { name, addend: 0 }, rest) = rest
            .split_first()
            .ok_or_else(|| self.bad_operands(instruction))?
        else {
            return Err(self.bad_operands(instruction));
        };
        let (arguments, prototype) = match rest {
            [Operand::List(arguments), rest @ ..] => (&arguments[..], rest.first()),
            rest => (&[][..], rest.first()),
        };
        let params = self.call_parts(instruction, arguments, true)?;
        let returns = self.call_parts(instruction, results, false)?;
        let spans = |parts: &[(FrameSpan, Option<Reg>)]| parts.iter().map(|part| part.0).collect();
        let mut call = CallDraft {
            callee: Callee::System,
            params: spans(&params),
            returns: spans(&returns),
            line: self.line,
        };
        let site = self.program.calls.len() as u32;
        let draft = match self.scopes.lookup(name, &mut self.program.registers) {
            Some(Symbol::Register(target)) => {
                if self.program.registers.width(target) != Width::Double {
                    return Err(self.bad_operands(instruction));
                }
                call.callee = self.prototype(instruction, prototype)?;
                Draft::new(Action::CallIndirect, self.line).arg(A, target)
            }
            Some(_) => return Err(self.error(format!("`{name}` cannot be called"))),
            None => match self.system_function(name, &call)? {
                Some(f) => Draft::new(Action::Block(f), self.line),
                None => {
                    let Some(index) = self.program.module.function(name) else {
                        return Err(self.error(format!("function `{name}` is not declared")));
                    };
                    call.callee = Callee::Known(self.program.number(index, self.line)?);
                    Draft::new(Action::Call, self.line)
                }
            },
        };
        self.program.calls.push(call);
        self.emit(draft.site(site));
        for (span, reg) in returns {
            if let Some(reg) = reg {
                self.frame_access(span, reg, true);
            }
        }
        Ok(())
    }

    /// The arguments or results of a call: bytes of the frame, and the register behind each that
    /// is not a `.param` variable. Arguments in registers are stored before the call.
    fn call_parts(
        &mut self,
        instruction: &Instruction<'m>,
        operands: &[Operand<'m>],
        store: bool,
    ) -> Result<Vec<(FrameSpan, Option<Reg>)>, PtxError> {
        let mut parts = vec![];
        for operand in operands {
            let reg = match operand {
                Operand::Name { name, addend: 0 } => {
                    match self.scopes.lookup(name, &mut self.program.registers) {
                        Some(Symbol::Frame(span)) => {
                            parts.push((span, None));
                            continue;
                        }
                        _ => self.any_register(name)?,
                    }
                }
                Operand::Literal(literal) if store => self.constant(literal.bits(), Width::Word),
                _ => return Err(self.bad_operands(instruction)),
            };
            let bytes = match self.program.registers.width(reg) {
                Width::Word => 4,
                Width::Double => 8,
                Width::Predicate => return Err(self.bad_operands(instruction)),
            };
            let span = self.frame_bytes(bytes, bytes)?;
            if store {
                self.frame_access(span, reg, false);
            }
            parts.push((span, Some(reg)));
        }
        Ok(parts)
    }

    /// Loads or stores a register at a place in the frame.
    fn frame_access(&mut self, span: FrameSpan, reg: Reg, load: bool) {
        let wide = self.program.registers.width(reg) == Width::Double;
        let element = if wide { Element::DOUBLE } else { Element::WORD };
        let base = self.frame_base();
        let f = match load {
            true => memory::load(Area::Local, element, 1),
            false => memory::store(Area::Local, element, 1),
        };
        let draft = Draft::new(Action::Block(f), self.line)
            .arg(A, base)
            .imm(span.offset.into());
        let site = self.program.new_site();
        let draft = draft.site(site);
        self.emit(if load {
            draft.def(D, reg)
        } else {
            draft.arg(D, reg)
        });
    }

    /// What a `.callprototype` says about the functions that a pointer may hold.
    fn prototype(
        &mut self,
        instruction: &Instruction<'m>,
        operand: Option<&Operand<'m>>,
    ) -> Result<Callee, PtxError> {
        if let Some(Operand::Name { name, .. }) = operand {
            let symbol = self.scopes.lookup(name, &mut self.program.registers);
            if let Some(Symbol::Prototype { returns, params }) = symbol {
                return Ok(Callee::Unknown { returns, params });
            }
        }
        Err(self.error(format!(
            "`{}` through a pointer without a prototype",
            instruction.opcode
        )))
    }

    /// A function that device code expects the driver to provide.
    fn system_function(&self, name: &str, call: &CallDraft) -> Result<Option<BlockFn>, PtxError> {
        let (f, returns, params): (BlockFn, &[u32], &[u32]) = match name {
            "vprintf" => (system::vprintf, &[4], &[8, 8]),
            "__assertfail" => (system::assert_fail, &[], &[8, 8, 4, 8, 8]),
            "malloc" => (system::malloc, &[8], &[8]),
            "free" => (system::free, &[], &[8]),
            _ => return Ok(None),
        };
        // A module may define a function of that name itself.
        if let Some(index) = self.program.module.function(name) {
            if self.program.module.functions[index].body.is_some() {
                return Ok(None);
            }
        }
        let fits = |spans: &[FrameSpan], sizes: &[u32]| {
            spans.len() == sizes.len() && spans.iter().zip(sizes).all(|(s, size)| s.bytes == *size)
        };
        match fits(&call.params, params)
            && (call.returns.is_empty() || fits(&call.returns, returns))
        {
            true => Ok(Some(f)),
            false => Err(self.error(format!("arguments that do not fit `{name}`"))),
        }
    }

    /// `bar`, `barrier`
    pub fn barrier(
        &mut self,
        instruction: &Instruction<'m>,
        parts: &[&str],
    ) -> Result<(), PtxError> {
        let mut rest: Vec<&str> = parts[1..].to_vec();
        rest.retain(|part| !matches!(*part, "cta" | "aligned"));
        let operands = &instruction.operands[..];
        let op = match rest[..] {
            ["sync"] => BarrierOp::Sync,
            ["arrive"] => BarrierOp::Arrive,
            ["red", "popc", "u32"] => BarrierOp::Count,
            ["red", "and", "pred"] => BarrierOp::All,
            ["red", "or", "pred"] => BarrierOp::Any,
            // A cluster is one block here.
            ["cluster", "arrive", ..] => {
                self.emit(Draft::new(Action::Block(memory::fence), self.line));
                return Ok(());
            }
            ["cluster", "wait", ..] => {
                let a = self.constant(BarrierOp::CLUSTER.into(), Width::Word);
                self.emit(Draft::new(Action::Barrier(BarrierOp::Sync), self.line).arg(A, a));
                return Ok(());
            }
            _ => return Err(self.unsupported(instruction.opcode)),
        };
        let mut draft = Draft::new(Action::Barrier(op), self.line);
        let operands = match (op, operands) {
            (BarrierOp::Sync | BarrierOp::Arrive, operands) => operands,
            (_, [destination, operands @ .., predicate]) => {
                let width = match op {
                    BarrierOp::Count => Width::Word,
                    _ => Width::Predicate,
                };
                draft = draft.def(D, self.destination(destination, width)?);
                draft = draft.arg(C, self.predicate(predicate)?);
                operands
            }
            _ => return Err(self.bad_operands(instruction)),
        };
        let (number, count) = match (op, operands) {
            (BarrierOp::Arrive, [number, count]) => (number, Some(count)),
            (BarrierOp::Arrive, _) => return Err(self.bad_operands(instruction)),
            (_, [number]) => (number, None),
            (_, [number, count]) => (number, Some(count)),
            _ => return Err(self.bad_operands(instruction)),
        };
        draft = draft.arg(A, self.source(number, Width::Word)?);
        if let Some(count) = count {
            draft = draft.arg(B, self.source(count, Width::Word)?);
        }
        self.emit(draft);
        Ok(())
    }
}
