//! Loads, stores, atomics, asynchronous copies and fences.

use super::draft::field::{A, B, C, D};
use super::draft::{Draft, Pinned, Reg, RunKey, Width};
use super::function::{Builder, Located};
use super::moves::{space_of, PARTS};
use crate::exec::inst::{Action, Flags};
use crate::exec::memory::{self, Area, AtomicOp, AtomicType, Element};
use crate::ptx::statement::{Instruction, Operand};
use crate::ptx::types::{Kind, Scalar, Space};
use crate::ptx::PtxError;

/// What the suffixes of a load or store say.
struct Access {
    space: Option<Space>,
    scalar: Scalar,
    elements: usize,
    /// Another thread may be about to change what is read.
    polls: bool,
    acquires: bool,
    releases: bool,
    /// A cache policy comes as a last operand.
    policy: bool,
}

/// Suffixes that say how long a line should stay in which cache, or who else looks at it: nothing
/// that changes what is read here.
fn is_hint(part: &str) -> bool {
    matches!(
        part,
        "weak"
            | "nc"
            | "ca"
            | "cg"
            | "cs"
            | "lu"
            | "wb"
            | "wt"
            | "cta"
            | "cluster"
            | "gpu"
            | "sys"
            | "unified"
    ) || part.starts_with("L1::")
        || part.starts_with("L2::")
}

impl Access {
    fn parse(parts: &[&str]) -> Option<Access> {
        let mut access = Access {
            space: None,
            scalar: Scalar::from_name(parts.last()?)?,
            elements: 1,
            polls: false,
            acquires: false,
            releases: false,
            policy: false,
        };
        for &part in &parts[1..parts.len() - 1] {
            match part {
                "v2" => access.elements = 2,
                "v4" => access.elements = 4,
                "volatile" | "relaxed" | "mmio" | "cv" => access.polls = true,
                "acquire" => (access.polls, access.acquires) = (true, true),
                "release" => access.releases = true,
                _ if space_of(part).is_some() => access.space = space_of(part),
                _ if is_hint(part) => access.policy |= part == "L2::cache_hint",
                _ => return None,
            }
        }
        let bytes = access.scalar.bytes;
        (matches!(bytes, 1 | 2 | 4 | 8) && bytes as usize * access.elements <= 32).then_some(access)
    }

    /// What makes accesses by one base register a run.
    fn run_key(&self, area: Area, wide: bool) -> Option<RunKey> {
        let chunked = match area {
            Area::Global | Area::Generic => true,
            Area::Shared => !wide,
            Area::Local => false,
        };
        let bytes = self.scalar.bytes;
        (chunked && self.elements == 1).then_some(RunKey {
            shared: area == Area::Shared,
            bytes,
        })
    }
}

impl<'m> Builder<'_, 'm> {
    /// `ld`, `ldu`
    pub fn load(&mut self, instruction: &Instruction<'m>, parts: &[&str]) -> Result<(), PtxError> {
        let access = self.access(instruction, parts)?;
        let [destination, address] = self.without_policy(instruction, access.policy) else {
            return Err(self.bad_operands(instruction));
        };
        let destinations = self.elements(instruction, destination, access.elements)?;
        let mut regs = vec![];
        let mut width = None;
        for operand in destinations {
            let reg = match operand {
                Operand::Name { name: "_", .. } => Reg::NONE,
                Operand::Name { name, .. } => self.any_register(name)?,
                _ => return Err(self.bad_operands(instruction)),
            };
            if reg.exists() {
                let found = self.program.registers.width(reg);
                if *width.get_or_insert(found) != found {
                    return Err(self.bad_operands(instruction));
                }
            }
            regs.push(reg);
        }
        let natural = if access.scalar.bytes == 8 {
            Width::Double
        } else {
            Width::Word
        };
        let width = width.unwrap_or(natural);
        for reg in &mut regs {
            if !reg.exists() {
                *reg = self.temporary(width);
            }
        }
        let located = self.address(address)?;
        if self.entry && access.space == Some(Space::Param) && located.space == Some(Space::Param) {
            return self.load_parameter(instruction, &access, located.offset, width, &regs);
        }
        let element = self.element(instruction, access.scalar, width)?;
        let (area, base, wide) = self.area(instruction, access.space, located)?;
        let action = Action::Block(memory::load(area, element, access.elements));
        let mut draft = Draft::new(action, self.line)
            .arg(A, base)
            .imm(located.offset);
        draft.access = access.run_key(area, wide);
        for (field, reg) in PARTS.into_iter().zip(regs) {
            draft = draft.def(field, reg);
        }
        self.emit_access(draft, wide, access.polls);
        if access.acquires {
            self.emit(Draft::new(Action::Block(memory::fence), self.line));
        }
        Ok(())
    }

    /// A load of a kernel's parameter at a known place: the value is there before the block starts.
    fn load_parameter(
        &mut self,
        instruction: &Instruction<'m>,
        access: &Access,
        offset: i64,
        width: Width,
        regs: &[Reg],
    ) -> Result<(), PtxError> {
        self.element(instruction, access.scalar, width)?;
        let bytes = access.scalar.bytes;
        for (index, &reg) in regs.iter().enumerate() {
            let Some(offset) = u32::try_from(offset)
                .ok()
                .filter(|at| at % bytes == 0 && *at < 1 << 16)
            else {
                return Err(self.error("a parameter read at an odd place"));
            };
            let offset = offset + index as u32 * bytes;
            let signed = access.scalar.kind == Kind::Signed;
            let value = Pinned::Param {
                offset,
                bytes,
                signed,
            };
            let source = self.program.registers.pin(value, width);
            self.copy(reg, source, width);
        }
        Ok(())
    }

    /// `st`
    pub fn store(&mut self, instruction: &Instruction<'m>, parts: &[&str]) -> Result<(), PtxError> {
        let access = self.access(instruction, parts)?;
        let [address, source] = self.without_policy(instruction, access.policy) else {
            return Err(self.bad_operands(instruction));
        };
        let float = if access.scalar.kind == Kind::Float {
            access.scalar.bytes as u8 * 8
        } else {
            0
        };
        let natural = if access.scalar.bytes == 8 {
            Width::Double
        } else {
            Width::Word
        };
        let sources = self.elements(instruction, source, access.elements)?;
        let mut width = None;
        for operand in &sources {
            if let Operand::Name { name, addend: 0 } = operand {
                let reg = self.any_register(name)?;
                let found = self.program.registers.width(reg);
                if *width.get_or_insert(found) != found {
                    return Err(self.bad_operands(instruction));
                }
            }
        }
        let width = width.unwrap_or(natural);
        let mut regs = vec![];
        for operand in &sources {
            regs.push(match operand {
                Operand::Literal(literal) => {
                    let bits = self.literal_bits(*literal, float)?;
                    self.constant(bits, width)
                }
                operand => self.source(operand, width)?,
            });
        }
        let element = self.element(instruction, access.scalar, width)?;
        let located = self.address(address)?;
        if self.entry && located.space == Some(Space::Param) {
            return Err(self.error("a store to a kernel's parameter"));
        }
        let (area, base, wide) = self.area(instruction, access.space, located)?;
        if access.releases {
            self.emit(Draft::new(Action::Block(memory::fence), self.line));
        }
        let action = Action::Block(memory::store(area, element, access.elements));
        let mut draft = Draft::new(action, self.line)
            .arg(A, base)
            .imm(located.offset);
        draft.access = access.run_key(area, wide);
        for (field, reg) in PARTS.into_iter().zip(regs) {
            draft = draft.arg(field, reg);
        }
        self.emit_access(draft, wide, false);
        Ok(())
    }

    fn access(&self, instruction: &Instruction<'m>, parts: &[&str]) -> Result<Access, PtxError> {
        Access::parse(parts).ok_or_else(|| self.unsupported(instruction.opcode))
    }

    /// The operands less a cache policy at their end.
    fn without_policy<'i>(
        &self,
        instruction: &'i Instruction<'m>,
        policy: bool,
    ) -> &'i [Operand<'m>] {
        match (policy, instruction.operands.split_last()) {
            (true, Some((_, rest))) => rest,
            _ => &instruction.operands,
        }
    }

    /// The elements of a vector operand, or the operand itself.
    fn elements(
        &self,
        instruction: &Instruction<'m>,
        operand: &Operand<'m>,
        count: usize,
    ) -> Result<Vec<Operand<'m>>, PtxError> {
        let elements = match operand {
            Operand::Vector(elements) => elements.clone(),
            single => vec![single.clone()],
        };
        match elements.len() == count {
            true => Ok(elements),
            false => Err(self.bad_operands(instruction)),
        }
    }

    /// How one element travels between memory and a register of `width`.
    fn element(
        &self,
        instruction: &Instruction<'m>,
        scalar: Scalar,
        width: Width,
    ) -> Result<Element, PtxError> {
        let element = Element::new(
            scalar.bytes,
            scalar.kind == Kind::Signed,
            width == Width::Double,
        );
        let resized = scalar.kind == Kind::Float && (width == Width::Double) != (scalar.bytes == 8);
        match element {
            Some(element) if width != Width::Predicate && !resized => Ok(element),
            _ => Err(self.error(format!(
                "register of the wrong size for `{}`",
                instruction.opcode
            ))),
        }
    }

    /// Where an access goes: the memory, the base register, and whether that has 64 bits.
    fn area(
        &mut self,
        instruction: &Instruction<'m>,
        space: Option<Space>,
        located: Located,
    ) -> Result<(Area, Reg, bool), PtxError> {
        let area = match (space.or(located.space), located.space) {
            (Some(Space::Global | Space::Const), None | Some(Space::Global | Space::Const)) => {
                Area::Global
            }
            (Some(Space::Shared), None | Some(Space::Shared)) => Area::Shared,
            (Some(Space::Local), None | Some(Space::Local)) => Area::Local,
            (Some(Space::Param), Some(Space::Local)) => Area::Local,
            (Some(Space::Param), None) if !self.entry => Area::Local,
            (Some(Space::Param), None | Some(Space::Param)) => Area::Generic,
            (None, None) => Area::Generic,
            _ => {
                let message = format!("`{}` of a variable in another space", instruction.opcode);
                return Err(self.error(message));
            }
        };
        let small = matches!(area, Area::Shared | Area::Local);
        let width = if small { Width::Word } else { Width::Double };
        let base = self.base(located.place, width);
        match (self.program.registers.width(base), small) {
            (Width::Double, _) => Ok((area, base, true)),
            (Width::Word, true) => Ok((area, base, false)),
            _ => Err(self.error("an address register of the wrong size")),
        }
    }

    fn emit_access(&mut self, draft: Draft, wide: bool, polls: bool) {
        let mut draft = draft.site(self.program.new_site());
        if wide {
            draft.flags.add(Flags::WIDE_ADDRESS);
        }
        if polls {
            draft.flags.add(Flags::POLLS);
        }
        self.emit(draft);
    }

    /// `atom`, `red`
    pub fn atomic(
        &mut self,
        instruction: &Instruction<'m>,
        parts: &[&str],
    ) -> Result<(), PtxError> {
        let unsupported = || self.unsupported(instruction.opcode);
        let returns = parts[0] == "atom";
        let (mut space, mut op, mut elements, mut policy) = (None, None, 1, false);
        let ty = parts
            .last()
            .and_then(|ty| AtomicType::from_name(ty))
            .ok_or_else(unsupported)?;
        for &part in &parts[1..parts.len() - 1] {
            match part {
                "relaxed" | "acquire" | "release" | "acq_rel" | "noftz" => {}
                "v2" => elements = 2,
                "v4" => elements = 4,
                _ if AtomicOp::from_name(part).is_some() => op = AtomicOp::from_name(part),
                _ if space_of(part).is_some() => space = space_of(part),
                _ if is_hint(part) => policy |= part == "L2::cache_hint",
                _ => return Err(unsupported()),
            }
        }
        let op = op.ok_or_else(unsupported)?;
        let width = if ty.is_wide() {
            Width::Double
        } else {
            Width::Word
        };
        let operands = self.without_policy(instruction, policy);
        let (destination, rest) = match (returns, operands) {
            (true, [destination, rest @ ..]) => (Some(destination), rest),
            (_, rest) => (None, rest),
        };
        let (address, value, second) = match (rest, op) {
            ([address, compare, value], AtomicOp::CompareSwap) => (address, compare, Some(value)),
            ([address, value], op) if op != AtomicOp::CompareSwap => (address, value, None),
            _ => return Err(self.bad_operands(instruction)),
        };
        let located = self.address(address)?;
        let (area, base, wide) = self.area(instruction, space, located)?;
        let f = memory::atomic(area, op, ty, returns)
            .ok_or_else(|| self.unsupported(instruction.opcode))?;
        let values = self.elements(instruction, value, elements)?;
        let destinations = match destination {
            Some(operand) => Some(self.elements(instruction, operand, elements)?),
            None => None,
        };
        for (index, value) in values.iter().enumerate() {
            let b = self.atomic_source(value, ty, width)?;
            let offset = located.offset + (index * ty.bytes()) as i64;
            let mut draft = Draft::new(Action::Block(f), self.line)
                .arg(A, base)
                .arg(B, b)
                .imm(offset);
            if let Some(second) = second {
                draft = draft.arg(C, self.atomic_source(second, ty, width)?);
            }
            if let Some(destinations) = &destinations {
                draft = draft.def(D, self.destination(&destinations[index], width)?);
            }
            let polls = matches!(op, AtomicOp::CompareSwap | AtomicOp::Exchange);
            self.emit_access(draft, wide, polls);
        }
        Ok(())
    }

    fn atomic_source(
        &mut self,
        operand: &Operand<'m>,
        ty: AtomicType,
        width: Width,
    ) -> Result<Reg, PtxError> {
        match operand {
            Operand::Literal(literal) => {
                let bits = self.literal_bits(*literal, ty.float_bits())?;
                Ok(self.constant(bits, width))
            }
            operand => self.source(operand, width),
        }
    }

    /// `cp.async`: here a copy at once; groups have nothing left to wait for.
    pub fn copy_async(
        &mut self,
        instruction: &Instruction<'m>,
        parts: &[&str],
    ) -> Result<(), PtxError> {
        match parts {
            ["cp", "async", "commit_group" | "wait_group" | "wait_all"] => return Ok(()),
            ["cp", "async", "ca" | "cg", "shared" | "shared::cta", "global", hints @ ..]
                if hints.iter().all(|part| is_hint(part)) => {}
            _ => return Err(self.unsupported(instruction.opcode)),
        }
        let policy = parts.contains(&"L2::cache_hint");
        let (to, from, size, rest) = match self.without_policy(instruction, policy) {
            [to, from, Operand::Literal(size), rest @ ..] => (to, from, size.bits(), rest),
            _ => return Err(self.bad_operands(instruction)),
        };
        if !matches!(size, 4 | 8 | 16) {
            return Err(self.bad_operands(instruction));
        }
        let (to, from) = (self.address(to)?, self.address(from)?);
        let (_, to_base, to_wide) = self.area(instruction, Some(Space::Shared), to)?;
        let (_, from_base, _) = self.area(instruction, Some(Space::Global), from)?;
        // Bytes to read; the rest of `size` becomes zero. A predicate that holds means none.
        let count = match rest {
            [] => self.constant(size, Width::Word),
            [Operand::Name { name, addend: 0 }] => {
                let reg = self.any_register(name)?;
                match self.program.registers.width(reg) {
                    Width::Word => reg,
                    _ => return Err(self.unsupported(instruction.opcode)),
                }
            }
            [Operand::Literal(count)] => self.constant(count.bits(), Width::Word),
            _ => return Err(self.bad_operands(instruction)),
        };
        // Both displacements are in the bases: there is one immediate, and it says the size.
        let to_base = self.displaced(to_base, to.offset);
        let from_base = self.displaced(from_base, from.offset);
        let draft = Draft::new(Action::Block(memory::copy_async), self.line)
            .arg(A, to_base)
            .arg(B, from_base)
            .arg(C, count)
            .imm(size as i64);
        self.emit_access(draft, to_wide, false);
        Ok(())
    }

    /// The register with `base + offset`.
    fn displaced(&mut self, base: Reg, offset: i64) -> Reg {
        if offset == 0 {
            return base;
        }
        let width = self.program.registers.width(base);
        let sum = self.temporary(width);
        let f = match width {
            Width::Double => crate::exec::moves::add_double(),
            _ => crate::exec::moves::add_word(),
        };
        let action = Action::Lane(f);
        self.emit_unguarded(
            Draft::new(action, self.line)
                .def(D, sum)
                .arg(A, base)
                .imm(offset),
        );
        sum
    }

    /// `membar`, `fence`
    pub fn fence(&mut self, parts: &[&str]) -> Result<(), PtxError> {
        match parts {
            ["membar", "cta" | "gl" | "sys" | "gpu"] => {}
            ["fence", rest @ ..] if !rest.is_empty() => {}
            ["membar", "proxy", ..] => {}
            _ => return Err(self.unsupported(&parts.join("."))),
        }
        self.emit(Draft::new(Action::Block(memory::fence), self.line));
        Ok(())
    }

    /// `createpolicy`: every cache policy is the same here.
    pub fn create_policy(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let Some(destination) = instruction.operands.first() else {
            return Err(self.bad_operands(instruction));
        };
        let d = self.destination(destination, Width::Double)?;
        let zero = self.constant(0, Width::Double);
        self.copy(d, zero, Width::Double);
        Ok(())
    }
}
