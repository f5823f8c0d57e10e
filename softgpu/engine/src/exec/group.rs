//! A warp group: up to eight warps whose lanes run together while they agree where to go.
//!
//! Lanes that part become *splits*, each with its own place. One split runs at a time: the one
//! deepest in calls, then the one furthest back in the program, so that the others are caught up
//! with. A split that seems to wait for others gives way to them.

use std::cmp::Reverse;

use super::lanes::Masks;
use super::warp::WarpOp;

/// Lanes that are at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    pub pc: u32,
    /// How they were called: an index into [`Group::chains`].
    pub chain: u32,
    /// How often they gave way.
    pub yields: u32,
    pub mask: Masks,
}

/// A chain of calls that lanes are in. The first is the kernel itself.
#[derive(Debug)]
pub struct Chain {
    pub parent: u32,
    /// Where the call returns to.
    pub return_pc: u32,
    pub function: u32,
    /// The call site it came through.
    pub site: u32,
    pub depth: u32,
    /// Where the function's frame starts in local memory.
    pub frame: u32,
    /// Registers that an outer activation of the same function had, lane by lane.
    pub saved: Vec<u32>,
}

/// Lanes of a warp that wait for others at a `.sync` instruction.
#[derive(Clone, Copy, Debug)]
pub struct WarpWait {
    pub op: WarpOp,
    pub members: u32,
    pub warp: usize,
    pub lanes: u32,
    /// The instruction, and how it was reached.
    pub pc: u32,
    pub chain: u32,
}

/// The state of one warp group between turns.
#[derive(Debug, Default)]
pub struct Group {
    /// Splits that can run.
    pub ready: Vec<Split>,
    pub waits: Vec<WarpWait>,
    /// Lanes that have not exited.
    pub live: Masks,
    /// The carry flag of each lane.
    pub carry: Masks,
    pub warps: usize,
    pub chains: Vec<Chain>,
}

impl Group {
    /// Readies the group for a new block: all `live` lanes at the kernel's first instruction.
    pub fn start(&mut self, live: Masks, warps: usize) {
        self.ready.clear();
        self.ready.push(Split {
            pc: 0,
            chain: 0,
            yields: 0,
            mask: live,
        });
        self.waits.clear();
        (self.live, self.warps, self.carry) = (live, warps, Masks::default());
        if self.chains.is_empty() {
            self.chains.push(Chain {
                parent: 0,
                return_pc: 0,
                function: 0,
                site: 0,
                depth: 0,
                frame: 0,
                saved: vec![],
            });
        }
        self.chains.truncate(1);
    }

    /// Takes the split that should run, with all that are at the same place.
    pub fn take(&mut self) -> Option<Split> {
        if self.ready.len() <= 1 {
            let mut split = self.ready.pop()?;
            split.yields = 0;
            return Some(split);
        }
        let chains = &self.chains;
        let key = |s: &Split| (s.yields, Reverse(chains[s.chain as usize].depth), s.pc);
        let best = (0..self.ready.len()).min_by_key(|&index| key(&self.ready[index]))?;
        let mut split = self.ready.swap_remove(best);
        self.absorb(split.pc, split.chain, &mut split.mask);
        Some(split)
    }

    /// Adds to `mask` the lanes of splits that are ready at the same place.
    pub fn absorb(&mut self, pc: u32, chain: u32, mask: &mut Masks) {
        self.ready.retain(|other| {
            let same = other.pc == pc && other.chain == chain;
            if same {
                mask.iter_mut()
                    .zip(&other.mask)
                    .for_each(|(mask, more)| *mask |= more);
            }
            !same
        });
    }

    /// The earliest instruction at which another split waits to run in a chain as deep as
    /// `chain`; `u32::MAX` if none does.
    pub fn rival(&self, chain: u32) -> u32 {
        let depth = self.chains[chain as usize].depth;
        let rivals = self
            .ready
            .iter()
            .filter(|s| self.chains[s.chain as usize].depth >= depth);
        rivals.map(|split| split.pc).min().unwrap_or(u32::MAX)
    }

    /// The chain that a call from `parent` leads to.
    pub fn enter(
        &mut self,
        parent: u32,
        return_pc: u32,
        (function, site): (u32, u32),
        frame: u32,
    ) -> u32 {
        let same = |chain: &Chain| {
            chain.parent == parent && chain.return_pc == return_pc && chain.function == function
        };
        if let Some(found) = self.chains.iter().skip(1).position(same) {
            return found as u32 + 1;
        }
        let depth = self.chains[parent as usize].depth + 1;
        let saved = vec![];
        self.chains.push(Chain {
            parent,
            return_pc,
            function,
            site,
            depth,
            frame,
            saved,
        });
        self.chains.len() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(splits: &[(u32, u32, u32)]) -> Group {
        let mut group = Group::default();
        group.start([1, 0, 0, 0, 0, 0, 0, 0], 1);
        group.enter(0, 9, (1, 0), 16);
        group.ready.clear();
        for (index, &(pc, chain, yields)) in splits.iter().enumerate() {
            let mask = [1 << index, 0, 0, 0, 0, 0, 0, 0];
            group.ready.push(Split {
                pc,
                chain,
                yields,
                mask,
            });
        }
        group
    }

    #[test]
    fn the_deepest_then_the_earliest_runs_and_equals_merge() {
        let mut group = group(&[(3, 0, 0), (50, 1, 0), (5, 0, 0), (3, 0, 0)]);
        assert_eq!(group.take().map(|s| s.pc), Some(50));
        let merged = group.take().unwrap();
        assert_eq!((merged.pc, merged.mask[0]), (3, 0b1001));
        assert_eq!(group.rival(0), 5);
        assert_eq!(group.take().map(|s| s.pc), Some(5));
        assert_eq!(group.take(), None);
    }

    #[test]
    fn who_gave_way_comes_last() {
        let mut group = group(&[(3, 0, 1), (7, 0, 0)]);
        assert_eq!(group.take().map(|s| s.pc), Some(7));
    }
}
