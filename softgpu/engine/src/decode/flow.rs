//! Control flow of one function: basic blocks, dominators, loops, and the order of blocks.
//!
//! The scheduler runs the lanes with the lowest instruction first, so lanes that parted meet again
//! where blocks are ordered such that a loop's blocks are contiguous and everything after a join
//! comes after what leads to it. Order never decides results, only how soon lanes meet.

use super::draft::Draft;
use crate::exec::inst::Action;

/// No block.
pub const NOWHERE: usize = usize::MAX;

/// Steps that an analysis of a text of `n` blocks may take before it gives up: what ordinary code
/// needs a fraction of.
const STEPS_PER_BLOCK: usize = 2_000;

/// A run of drafts that is only entered at its first and only left after its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// First draft, and the one after the last.
    pub first: usize,
    pub end: usize,
    /// Where control goes next: the fall-through first.
    pub successors: Vec<usize>,
    pub predecessors: Vec<usize>,
    /// Whether control can fall through to `successors[0]`.
    pub falls_through: bool,
}

/// The control-flow graph. Block 0 is the entry.
pub struct Flow {
    pub blocks: Vec<Block>,
    /// Reachable blocks in the order in which they should lie.
    pub order: Vec<usize>,
    /// For each block, the interval that its subtree of dominated blocks has in a numbering of
    /// the dominator tree; `None` if the analysis gave up.
    dominated: Option<Vec<(u32, u32)>>,
}

impl Flow {
    /// Analyses `drafts`; `labels` are the drafts that label numbers mean, `tables` the label
    /// numbers of branch tables.
    pub fn new(drafts: &[Draft], labels: &[usize], tables: &[Vec<u32>]) -> Flow {
        let blocks = split(drafts, labels, tables);
        let mut budget = 1_000_000 + blocks.len() * STEPS_PER_BLOCK;
        let source_order = vec![0; blocks.len()];
        let plain = reverse_postorder(&blocks, &source_order);
        let Some(parents) = dominators(&blocks, &plain, &mut budget) else {
            return Flow {
                blocks,
                order: plain,
                dominated: None,
            };
        };
        let dominated = number_tree(&parents, &plain);
        let order = match loop_depths(&blocks, &plain, &dominated, &mut budget) {
            Some(depths) => reverse_postorder(&blocks, &depths),
            None => plain,
        };
        Flow {
            blocks,
            order,
            dominated: Some(dominated),
        }
    }

    /// Whether every path to block `b` goes through block `a`. False where that is not known.
    pub fn dominates(&self, a: usize, b: usize) -> bool {
        self.dominated
            .as_ref()
            .is_some_and(|dominated| contains(dominated, a, b))
    }
}

fn contains(dominated: &[(u32, u32)], a: usize, b: usize) -> bool {
    let ((first, end), (number, _)) = (dominated[a], dominated[b]);
    first <= number && number < end
}

/// Whether control never goes on to the next draft.
fn ends_block(draft: &Draft) -> bool {
    draft.guard.is_none()
        && matches!(
            draft.action,
            Action::Branch(_)
                | Action::Table
                | Action::Exit
                | Action::Return
                | Action::Trap
                | Action::Illegal
        )
}

fn split(drafts: &[Draft], labels: &[usize], tables: &[Vec<u32>]) -> Vec<Block> {
    let mut starts = vec![false; drafts.len() + 1];
    starts[0] = true;
    for &place in labels {
        starts[place.min(drafts.len())] = true;
    }
    for (index, draft) in drafts.iter().enumerate() {
        if ends_block(draft) || matches!(draft.action, Action::Branch(_) | Action::Table) {
            starts[index + 1] = true;
        }
    }
    let mut block_at = vec![NOWHERE; drafts.len() + 1];
    let mut blocks: Vec<Block> = vec![];
    for first in (0..drafts.len()).filter(|&index| starts[index]) {
        block_at[first] = blocks.len();
        if let Some(last) = blocks.last_mut() {
            last.end = first;
        }
        blocks.push(Block {
            first,
            end: drafts.len(),
            ..Block::default()
        });
    }
    for index in 0..blocks.len() {
        let last = &drafts[blocks[index].end - 1];
        let falls_through = !ends_block(last) && index + 1 < blocks.len();
        let mut successors = vec![];
        if falls_through {
            successors.push(index + 1);
        }
        let mut jump = |label: u32| {
            let target = block_at[labels[label as usize]];
            if !successors.contains(&target) {
                successors.push(target);
            }
        };
        match last.action {
            Action::Branch(label) => jump(label),
            Action::Table => tables[last.site as usize].iter().copied().for_each(jump),
            _ => {}
        }
        for &successor in &successors {
            blocks[successor].predecessors.push(index);
        }
        (blocks[index].successors, blocks[index].falls_through) = (successors, falls_through);
    }
    blocks
}

/// Reachable blocks such that, loops aside, each comes after its predecessors. Successors of less
/// `depth` (those that leave a loop) are put last.
fn reverse_postorder(blocks: &[Block], depth: &[u32]) -> Vec<usize> {
    let mut order = Vec::with_capacity(blocks.len());
    let mut seen = vec![false; blocks.len()];
    // What is visited first is finished first and so comes last.
    let visit = |block: usize| {
        let mut next = blocks[block].successors.clone();
        next.sort_by_key(|&successor| (std::cmp::Reverse(depth[successor]), successor));
        (block, next)
    };
    seen[0] = true;
    let mut stack = vec![visit(0)];
    while let Some((block, pending)) = stack.last_mut() {
        match pending.pop() {
            Some(next) if !seen[next] => {
                seen[next] = true;
                stack.push(visit(next));
            }
            Some(_) => {}
            None => {
                order.push(*block);
                stack.pop();
            }
        }
    }
    order.reverse();
    order
}

/// The immediate dominator of each reachable block (Cooper, Harvey, Kennedy: "A Simple, Fast
/// Dominance Algorithm"), or `None` if the budget ran out.
fn dominators(blocks: &[Block], order: &[usize], budget: &mut usize) -> Option<Vec<usize>> {
    let mut number = vec![NOWHERE; blocks.len()];
    for (index, &block) in order.iter().enumerate() {
        number[block] = index;
    }
    let mut parent = vec![NOWHERE; blocks.len()];
    parent[0] = 0;
    let mut changed = true;
    while changed {
        changed = false;
        for &block in &order[1..] {
            let mut candidate = NOWHERE;
            for &predecessor in &blocks[block].predecessors {
                if parent[predecessor] == NOWHERE {
                    continue;
                }
                if candidate == NOWHERE {
                    candidate = predecessor;
                    continue;
                }
                let mut other = predecessor;
                while candidate != other {
                    *budget = budget.checked_sub(1)?;
                    if number[candidate] > number[other] {
                        candidate = parent[candidate];
                    } else {
                        other = parent[other];
                    }
                }
            }
            if parent[block] != candidate {
                parent[block] = candidate;
                changed = true;
            }
        }
        *budget = budget.checked_sub(order.len())?;
    }
    Some(parent)
}

/// Numbers the dominator tree so that each subtree is an interval.
fn number_tree(parents: &[usize], order: &[usize]) -> Vec<(u32, u32)> {
    let mut sizes = vec![0u32; parents.len()];
    for &block in order.iter().rev() {
        sizes[block] += 1;
        if block != 0 {
            sizes[parents[block]] += sizes[block];
        }
    }
    let mut spans = vec![(u32::MAX, 0); parents.len()];
    let mut next = vec![0u32; parents.len()];
    for &block in order {
        let first = if block == 0 { 0 } else { next[parents[block]] };
        if block != 0 {
            next[parents[block]] += sizes[block];
        }
        next[block] = first + 1;
        spans[block] = (first, first + sizes[block]);
    }
    spans
}

/// How many loops each block is in, or `None` if the budget ran out.
fn loop_depths(
    blocks: &[Block],
    order: &[usize],
    dominated: &[(u32, u32)],
    budget: &mut usize,
) -> Option<Vec<u32>> {
    let mut depths = vec![0; blocks.len()];
    let mut in_loop = vec![NOWHERE; blocks.len()];
    for &header in order {
        let is_back_edge = |&&tail: &&usize| contains(dominated, header, tail);
        let mut pending: Vec<usize> = blocks[header]
            .predecessors
            .iter()
            .filter(is_back_edge)
            .copied()
            .collect();
        if pending.is_empty() {
            continue;
        }
        in_loop[header] = header;
        depths[header] += 1;
        while let Some(block) = pending.pop() {
            if in_loop[block] == header || dominated[block].0 == u32::MAX {
                continue;
            }
            *budget = budget.checked_sub(1 + blocks[block].predecessors.len())?;
            in_loop[block] = header;
            depths[block] += 1;
            pending.extend(&blocks[block].predecessors);
        }
    }
    Some(depths)
}

/// Drafts in the order in which they will lie; branch targets and tables hold block positions.
pub struct Layout {
    pub code: Vec<Draft>,
    /// First instruction of each laid-out block.
    pub starts: Vec<usize>,
    /// Successors of each laid-out block.
    pub successors: Vec<Vec<usize>>,
    /// Branch tables by site, as block positions.
    pub tables: Vec<(u32, Vec<u32>)>,
}

impl Layout {
    /// Lays out the drafts that are `kept`, adding jumps where a block's fall-through does not come
    /// next and dropping jumps to what does.
    pub fn new(
        flow: &Flow,
        drafts: &[Draft],
        kept: &[bool],
        labels: &[usize],
        tables: &[Vec<u32>],
    ) -> Layout {
        let mut position = vec![NOWHERE; flow.blocks.len()];
        for (index, &block) in flow.order.iter().enumerate() {
            position[block] = index;
        }
        let mut block_at = vec![NOWHERE; drafts.len() + 1];
        for (index, block) in flow.blocks.iter().enumerate() {
            block_at[block.first] = index;
        }
        let target = |label: u32| position[block_at[labels[label as usize]]] as u32;
        let mut layout = Layout {
            code: Vec::with_capacity(drafts.len()),
            starts: vec![],
            successors: vec![],
            tables: vec![],
        };
        for (index, &block) in flow.order.iter().enumerate() {
            let block = &flow.blocks[block];
            layout.starts.push(layout.code.len());
            layout.successors.push(
                block
                    .successors
                    .iter()
                    .map(|&next| position[next])
                    .collect(),
            );
            let body = (block.first..block.end).filter(|&index| kept[index]);
            layout.code.extend(body.map(|index| drafts[index].clone()));
            let below = block
                .falls_through
                .then(|| position[block.successors[0]] as u32);
            let last = &mut layout.code[layout.starts[index]..];
            if let Some(Draft { action, site, .. }) = last.last_mut() {
                match *action {
                    Action::Branch(label) => *action = Action::Branch(target(label)),
                    Action::Table => {
                        let targets = tables[*site as usize].iter().map(|&label| target(label));
                        layout.tables.push((*site, targets.collect()));
                    }
                    _ => {}
                }
            }
            layout.join(index, below, drafts[block.end - 1].line);
        }
        layout
    }

    /// The instructions of the block at a position.
    pub fn block(&self, position: usize) -> std::ops::Range<usize> {
        let end = self
            .starts
            .get(position + 1)
            .copied()
            .unwrap_or(self.code.len());
        self.starts[position]..end
    }

    /// Makes control go from the block at `index`, laid out last, to `below` if it falls through.
    fn join(&mut self, index: usize, below: Option<u32>, line: u32) {
        let next = index as u32 + 1;
        let last = self.code[self.starts[index]..].last_mut();
        match (last, below) {
            // The jump goes to what comes next: jump in the other case instead.
            (
                Some(Draft {
                    action: Action::Branch(to),
                    guard: Some((_, negated)),
                    ..
                }),
                Some(below),
            ) if *to == next && below != next => {
                *to = below;
                *negated = !*negated;
            }
            (_, Some(below)) if below != next => {
                self.code.push(Draft::new(Action::Branch(below), line));
            }
            (
                Some(Draft {
                    action: Action::Branch(to),
                    guard: None,
                    ..
                }),
                None,
            ) if *to == next => {
                self.code.pop();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::Reg;
    use super::*;

    fn jump(label: u32, guarded: bool) -> Draft {
        let mut draft = Draft::new(Action::Branch(label), 1);
        draft.guard = guarded.then_some((Reg(0), false));
        draft
    }

    fn plain() -> Draft {
        Draft::new(Action::Sleep, 1)
    }

    fn exit() -> Draft {
        Draft::new(Action::Exit, 1)
    }

    #[test]
    fn a_loop_is_contiguous_though_its_exit_comes_first_in_the_text() {
        // 0: entry; 1: header, jumps to 3 to stay; 2: exit; 3: body, back to 1
        let drafts = [
            plain(),
            plain(),
            jump(1, true),
            exit(),
            plain(),
            jump(0, false),
        ];
        let labels = [1, 4];
        let flow = Flow::new(&drafts, &labels, &[]);
        assert_eq!(flow.order, [0, 1, 3, 2]);
        assert!(flow.dominates(1, 3) && !flow.dominates(3, 2));
        let layout = Layout::new(&flow, &drafts, &[true; 6], &labels, &[]);
        // The header's jump to the body became a jump to the exit.
        assert!(matches!(layout.code[2].action, Action::Branch(3)));
        assert_eq!(layout.code[2].guard, Some((Reg(0), true)));
        assert_eq!(layout.code.len(), drafts.len());
    }

    #[test]
    fn both_sides_of_a_branch_come_before_the_join() {
        let drafts = [jump(0, true), plain(), jump(1, false), plain(), exit()];
        let labels = [3, 4];
        let flow = Flow::new(&drafts, &labels, &[]);
        assert_eq!(flow.order, [0, 1, 2, 3]);
        assert!(flow.dominates(0, 3) && !flow.dominates(1, 3));
    }

    #[test]
    fn unreachable_code_is_dropped() {
        let drafts = [exit(), plain(), exit()];
        let flow = Flow::new(&drafts, &[], &[]);
        assert_eq!(
            Layout::new(&flow, &drafts, &[true; 3], &[], &[]).code.len(),
            1
        );
    }
}
