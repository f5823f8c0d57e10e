//! Copy propagation: `mov`, `cvta` and reads of parameters that only rename a value disappear.

use super::draft::field::{A, D};
use super::draft::{Draft, Fold, Pinned, Reg, RegMap, Registers, Width};
use super::flow::{Block, Flow};

/// Where a register is written.
#[derive(Clone, Copy)]
struct Definition {
    block: usize,
    index: usize,
    count: u32,
    /// Every read comes after it on every path.
    strict: bool,
}

/// Replaces the copies in `drafts` by what they copy, and marks them as removed in `kept`.
pub fn propagate(flow: &Flow, drafts: &mut [Draft], registers: &mut Registers) -> Vec<bool> {
    let definitions = find_definitions(flow, drafts);
    let mut kept = vec![true; drafts.len()];
    let mut alias: RegMap<Reg> = RegMap::default();
    for &block in &flow.order {
        for index in flow.blocks[block].first..flow.blocks[block].end {
            let draft = &drafts[index];
            if draft.fold == Fold::No || draft.guard.is_some() {
                continue;
            }
            let d = draft.regs[D];
            let a = resolve(&alias, draft.regs[A]);
            let Some(definition) = definitions.get(&d).filter(|d| d.count == 1) else {
                continue;
            };
            let source = match (draft.fold, registers.pinned(a)) {
                (Fold::Copy, Some(_)) => a,
                (Fold::Add, Some(Pinned::Constant(bits))) => {
                    registers.constant(bits.wrapping_add_signed(draft.imm), Width::Double)
                }
                (Fold::Copy, None) => {
                    let renames = definitions
                        .get(&a)
                        .is_some_and(|a| a.count == 1 && a.strict);
                    if !(renames && definition.strict) {
                        continue;
                    }
                    a
                }
                _ => continue,
            };
            alias.insert(d, source);
            kept[index] = false;
        }
    }
    if !alias.is_empty() {
        for draft in drafts.iter_mut() {
            rename(draft, &alias);
        }
    }
    kept
}

fn resolve(alias: &RegMap<Reg>, reg: Reg) -> Reg {
    alias.get(&reg).copied().unwrap_or(reg)
}

/// Replaces what a draft reads.
fn rename(draft: &mut Draft, alias: &RegMap<Reg>) {
    for field in 0..draft.regs.len() {
        if draft.defs >> field & 1 == 0 && draft.regs[field].exists() {
            draft.regs[field] = resolve(alias, draft.regs[field]);
        }
    }
    if let Some((reg, _)) = &mut draft.guard {
        *reg = resolve(alias, *reg);
    }
}

fn find_definitions(flow: &Flow, drafts: &[Draft]) -> RegMap<Definition> {
    let mut definitions: RegMap<Definition> = RegMap::default();
    let each = || {
        flow.order.iter().flat_map(|&block| {
            let Block { first, end, .. } = flow.blocks[block];
            (first..end).map(move |index| (block, index))
        })
    };
    for (block, index) in each() {
        for reg in drafts[index].written() {
            let fresh = Definition {
                block,
                index,
                count: 0,
                strict: true,
            };
            definitions.entry(reg).or_insert(fresh).count += 1;
        }
    }
    for (block, index) in each() {
        for reg in drafts[index].read() {
            if let Some(definition) = definitions.get_mut(&reg) {
                definition.strict &= match definition.block == block {
                    true => definition.index < index,
                    false => flow.dominates(definition.block, block),
                };
            }
        }
    }
    definitions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::inst::Action;

    fn copy(d: Reg, a: Reg) -> Draft {
        Draft::new(Action::Sleep, 1)
            .def(D, d)
            .arg(A, a)
            .fold(Fold::Copy)
    }

    fn run(drafts: &mut [Draft], registers: &mut Registers, labels: &[usize]) -> Vec<bool> {
        let flow = Flow::new(drafts, labels, &[]);
        propagate(&flow, drafts, registers)
    }

    #[test]
    fn chains_of_copies_end_at_their_source() {
        let mut registers = Registers::default();
        let constant = registers.constant(5, Width::Word);
        let [a, b, c] = [(); 3].map(|()| registers.create(Width::Word));
        let mut drafts = [
            copy(a, constant),
            copy(b, a),
            Draft::new(Action::Sleep, 1).def(D, c).arg(A, b),
            Draft::new(Action::Exit, 1),
        ];
        assert_eq!(
            run(&mut drafts, &mut registers, &[]),
            [false, false, true, true]
        );
        assert_eq!(drafts[2].regs[A], constant);
    }

    #[test]
    fn a_copy_that_outlives_its_source_stays() {
        // prev = cur at the end of a loop: cur is written again before prev is read.
        let mut registers = Registers::default();
        let [prev, cur, p] =
            [Width::Word, Width::Word, Width::Predicate].map(|w| registers.create(w));
        let mut jump = Draft::new(Action::Branch(0), 1);
        jump.guard = Some((p, false));
        let mut drafts = [
            Draft::new(Action::Sleep, 1).def(D, cur).arg(A, prev),
            copy(prev, cur),
            jump,
            Draft::new(Action::Exit, 1),
        ];
        assert_eq!(run(&mut drafts, &mut registers, &[0]), [true; 4]);
    }

    #[test]
    fn addresses_of_constants_are_added_up() {
        let mut registers = Registers::default();
        let constant = registers.constant(100, Width::Double);
        let [a, b] = [(); 2].map(|()| registers.create(Width::Double));
        let mut drafts = [
            Draft::new(Action::Sleep, 1)
                .def(D, a)
                .arg(A, constant)
                .imm(-4)
                .fold(Fold::Add),
            Draft::new(Action::Sleep, 1).def(D, b).arg(A, a),
            Draft::new(Action::Exit, 1),
        ];
        assert_eq!(run(&mut drafts, &mut registers, &[]), [false, true, true]);
        assert_eq!(
            registers.pinned(drafts[1].regs[A]),
            Some(Pinned::Constant(96))
        );
    }
}
