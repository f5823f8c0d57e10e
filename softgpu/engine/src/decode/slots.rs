//! Gives virtual registers their slots.
//!
//! Two registers may share a slot if no lane needs both at once. Lanes follow the control flow
//! each on its own and writes are masked, so that this is the ordinary question of liveness, asked
//! per function. An instruction's destinations never share with its sources: slots of different
//! widths overlap in ways that the operations do not expect.

use std::collections::BTreeSet;
use std::ops::Range;

use super::draft::{Reg, RegMap, Registers, Width};
use super::flow::Layout;

/// Most bits of all liveness sets of a function; beyond it, registers that live across blocks get
/// slots of their own.
const SET_BITS_MAX: usize = 1 << 28;

/// Storage of one width, by number.
#[derive(Default)]
struct Pool {
    top: u32,
    free: BTreeSet<u32>,
}

impl Pool {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.top += 1;
            self.top - 1
        })
    }
}

/// The storage of one function: where its 64-bit registers, 32-bit registers (in slots) and
/// predicates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    pub doubles: Range<u32>,
    pub words: Range<u32>,
    pub predicates: Range<u32>,
}

/// Slots of registers, over all functions of a kernel.
#[derive(Default)]
pub struct Assignment {
    slots: RegMap<u32>,
    /// Slots and predicates in use so far.
    pub slots_used: u32,
    pub predicates_used: u32,
}

impl Assignment {
    /// The slot (or predicate number) of a register.
    pub fn slot(&self, reg: Reg) -> Option<u32> {
        self.slots.get(&reg).copied()
    }

    /// Gives a register that keeps its value for the whole launch a slot of its own.
    pub fn pin(&mut self, reg: Reg, width: Width) -> u32 {
        let (used, size) = match width {
            Width::Predicate => (&mut self.predicates_used, 1),
            Width::Word => (&mut self.slots_used, 1),
            Width::Double => (&mut self.slots_used, 2),
        };
        let slot = *used;
        *used += size;
        self.slots.insert(reg, slot);
        slot
    }

    /// Gives the registers of one function storage behind what is already in use.
    pub fn assign(&mut self, layout: &Layout, registers: &Registers) -> Storage {
        let mut pools: [Pool; 3] = Default::default();
        let mut chosen = vec![];
        let mut active: BTreeSet<(usize, Width, u32)> = BTreeSet::new();
        for Interval { reg, first, last } in intervals(layout, registers) {
            while let Some(&ended) = active.first().filter(|(end, ..)| *end < first) {
                active.remove(&ended);
                pools[ended.1 as usize].free.insert(ended.2);
            }
            let width = registers.width(reg);
            let number = pools[width as usize].take();
            chosen.push((reg, width, number));
            active.insert((last, width, number));
        }
        let top = |width: Width| pools[width as usize].top;
        let doubles = self.slots_used..self.slots_used + 2 * top(Width::Double);
        let words = doubles.end..doubles.end + top(Width::Word);
        let predicates = self.predicates_used..self.predicates_used + top(Width::Predicate);
        for (reg, width, number) in chosen {
            let slot = match width {
                Width::Predicate => predicates.start + number,
                Width::Word => words.start + number,
                Width::Double => doubles.start + 2 * number,
            };
            self.slots.insert(reg, slot);
        }
        (self.slots_used, self.predicates_used) = (words.end, predicates.end);
        Storage {
            doubles,
            words,
            predicates,
        }
    }
}

/// Where a register holds a value that is needed, in instructions of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    reg: Reg,
    first: usize,
    last: usize,
}

/// The intervals of all registers that are not pinned, by where they start.
fn intervals(layout: &Layout, registers: &Registers) -> Vec<Interval> {
    let mut spans: RegMap<Occurrences> = RegMap::default();
    for block in 0..layout.starts.len() {
        for index in layout.block(block) {
            let draft = &layout.code[index];
            for reg in draft.read() {
                Occurrences::note(&mut spans, reg, block, index, false);
            }
            for reg in draft.written() {
                Occurrences::note(&mut spans, reg, block, index, draft.guard.is_none());
            }
        }
    }
    spans.retain(|&reg, _| registers.pinned(reg).is_none());
    let mut global: Vec<Reg> = spans
        .iter()
        .filter(|(_, o)| o.crosses)
        .map(|(&reg, _)| reg)
        .collect();
    global.sort_unstable();
    extend_across_blocks(layout, &global, &mut spans);
    let mut intervals: Vec<Interval> = spans
        .into_iter()
        .map(|(reg, o)| Interval {
            reg,
            first: o.first,
            last: o.last,
        })
        .collect();
    intervals.sort_unstable_by_key(|interval| (interval.first, interval.reg));
    intervals
}

/// Where a register occurs.
struct Occurrences {
    block: usize,
    first: usize,
    last: usize,
    /// Its value may be needed in a block other than where it was written.
    crosses: bool,
}

impl Occurrences {
    fn note(spans: &mut RegMap<Occurrences>, reg: Reg, block: usize, index: usize, sure: bool) {
        let fresh = Occurrences {
            block,
            first: index,
            last: index,
            crosses: !sure,
        };
        let span = spans.entry(reg).or_insert(fresh);
        span.last = index;
        span.crosses |= span.block != block;
    }
}

/// A set of registers for each block.
struct Sets {
    words: usize,
    bits: Vec<u64>,
}

impl Sets {
    fn new(blocks: usize, registers: usize) -> Sets {
        let words = registers.div_ceil(64);
        Sets {
            words,
            bits: vec![0; blocks * words],
        }
    }

    fn of(&self, block: usize) -> &[u64] {
        &self.bits[block * self.words..][..self.words]
    }

    fn of_mut(&mut self, block: usize) -> &mut [u64] {
        &mut self.bits[block * self.words..][..self.words]
    }

    fn add(&mut self, block: usize, reg: usize) {
        self.of_mut(block)[reg / 64] |= 1 << (reg % 64);
    }

    fn has(&self, block: usize, reg: usize) -> bool {
        self.of(block)[reg / 64] >> (reg % 64) & 1 == 1
    }
}

/// Extends the spans of registers that live across blocks to where they may be live, which is
/// where a read may follow and a write may have come before.
fn extend_across_blocks(layout: &Layout, global: &[Reg], spans: &mut RegMap<Occurrences>) {
    let blocks = layout.starts.len();
    if blocks * global.len() > SET_BITS_MAX {
        for reg in global {
            if let Some(span) = spans.get_mut(reg) {
                (span.first, span.last) = (0, layout.code.len());
            }
        }
        return;
    }
    let number: RegMap<usize> = global
        .iter()
        .enumerate()
        .map(|(n, &reg)| (reg, n))
        .collect();
    let new = || Sets::new(blocks, global.len());
    let (mut needed, mut killed, mut written) = (new(), new(), new());
    for block in 0..blocks {
        for index in layout.block(block) {
            let draft = &layout.code[index];
            for reg in draft.read().filter_map(|reg| number.get(&reg)) {
                if !killed.has(block, *reg) {
                    needed.add(block, *reg);
                }
            }
            for reg in draft.written().filter_map(|reg| number.get(&reg)) {
                written.add(block, *reg);
                if draft.guard.is_none() {
                    killed.add(block, *reg);
                }
            }
        }
    }
    let live = solve_backward(layout, needed, &killed);
    let reached = solve_forward(layout, &written);
    for block in 0..blocks {
        let range = layout.block(block);
        for word in 0..live.words {
            let held = |block: usize| live.of(block)[word] & reached.of(block)[word];
            let after = layout.successors[block]
                .iter()
                .fold(0, |bits, &next| bits | held(next));
            let leaving = after & (reached.of(block)[word] | written.of(block)[word]);
            for (bits, at) in [
                (held(block), range.start),
                (leaving, range.end.saturating_sub(1)),
            ] {
                for bit in bits_of(bits) {
                    if let Some(span) = spans.get_mut(&global[64 * word + bit]) {
                        (span.first, span.last) = (span.first.min(at), span.last.max(at));
                    }
                }
            }
        }
    }
}

/// The numbers of the bits that are set.
fn bits_of(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

/// For each block, the registers that are live where it starts.
fn solve_backward(layout: &Layout, needed: Sets, killed: &Sets) -> Sets {
    let mut live = needed;
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..layout.starts.len()).rev() {
            for &next in &layout.successors[block] {
                for word in 0..live.words {
                    let incoming = live.of(next)[word] & !killed.of(block)[word];
                    let here = &mut live.of_mut(block)[word];
                    changed |= incoming & !*here != 0;
                    *here |= incoming;
                }
            }
        }
    }
    live
}

/// For each block, the registers that may have been written before it starts.
fn solve_forward(layout: &Layout, written: &Sets) -> Sets {
    let mut reached = Sets {
        words: written.words,
        bits: vec![0; written.bits.len()],
    };
    let mut changed = true;
    while changed {
        changed = false;
        for block in 0..layout.starts.len() {
            for &next in &layout.successors[block] {
                for word in 0..reached.words {
                    let outgoing = reached.of(block)[word] | written.of(block)[word];
                    let there = &mut reached.of_mut(next)[word];
                    changed |= outgoing & !*there != 0;
                    *there |= outgoing;
                }
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::super::draft::field::{A, B, D};
    use super::super::draft::Draft;
    use super::super::flow::Flow;
    use super::*;
    use crate::exec::inst::Action;

    fn assign(drafts: &[Draft], labels: &[usize], registers: &Registers) -> Assignment {
        let flow = Flow::new(drafts, labels, &[]);
        let layout = Layout::new(&flow, drafts, &vec![true; drafts.len()], labels, &[]);
        let mut assignment = Assignment::default();
        assignment.assign(&layout, registers);
        assignment
    }

    fn step(d: Reg, a: Reg, b: Reg) -> Draft {
        Draft::new(Action::Sleep, 1).def(D, d).arg(A, a).arg(B, b)
    }

    fn exit() -> Draft {
        Draft::new(Action::Exit, 1)
    }

    #[test]
    fn registers_share_only_when_one_is_dead() {
        let mut registers = Registers::default();
        let [a, b, c, d] = [(); 4].map(|()| registers.create(Width::Word));
        let drafts = [
            step(a, Reg::NONE, Reg::NONE),
            step(b, a, a),
            step(c, b, b),
            step(d, c, b),
            exit(),
        ];
        let assignment = assign(&drafts, &[], &registers);
        let slot = |reg| assignment.slot(reg).unwrap();
        assert_ne!(slot(a), slot(b), "a destination beside its source");
        assert_eq!(slot(a), slot(c), "a is dead when c is written");
        assert_ne!(slot(b), slot(c));
        assert_eq!(assignment.slots_used, 3);
    }

    #[test]
    fn values_carried_around_a_loop_keep_their_slot() {
        // sum is written at the end of the loop and read at its start; t lives in between.
        let mut registers = Registers::default();
        let [sum, t, u] = [(); 3].map(|()| registers.create(Width::Word));
        let p = registers.create(Width::Predicate);
        let mut jump = Draft::new(Action::Branch(0), 1);
        jump.guard = Some((p, false));
        let drafts = [
            step(sum, Reg::NONE, Reg::NONE),
            step(t, sum, sum),
            step(u, t, t),
            step(sum, u, u),
            jump,
            exit(),
        ];
        let assignment = assign(&drafts, &[1], &registers);
        let slot = |reg| assignment.slot(reg).unwrap();
        assert_ne!(slot(sum), slot(t));
        assert_ne!(slot(sum), slot(u));
    }

    #[test]
    fn a_guarded_write_does_not_end_the_old_value() {
        let mut registers = Registers::default();
        let [x, y] = [(); 2].map(|()| registers.create(Width::Word));
        let p = registers.create(Width::Predicate);
        let mut guarded = step(x, Reg::NONE, Reg::NONE);
        guarded.guard = Some((p, false));
        let drafts = [
            step(x, Reg::NONE, Reg::NONE),
            step(y, Reg::NONE, Reg::NONE),
            guarded,
            step(y, x, y),
            exit(),
        ];
        let assignment = assign(&drafts, &[], &registers);
        assert_ne!(assignment.slot(x), assignment.slot(y));
    }
}
