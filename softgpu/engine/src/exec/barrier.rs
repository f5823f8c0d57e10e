//! Barriers of a block.

use super::group::Split;
use super::lanes::{Masks, WARPS};

/// What a barrier instruction does besides meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierOp {
    Sync,
    /// Counts but does not wait.
    Arrive,
    /// `.red.popc`: how many threads' predicate holds.
    Count,
    /// `.red.and`
    All,
    /// `.red.or`
    Any,
}

impl BarrierOp {
    /// Barriers that PTX numbers, and one more for `barrier.cluster`.
    pub const BARRIERS: usize = 17;
    /// The barrier of the block's (one-block) cluster.
    pub const CLUSTER: u32 = 16;
}

/// Most warps of a block.
const BLOCK_WARPS: usize = 32;

/// Lanes that wait at a barrier.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub group: usize,
    /// At the barrier instruction.
    pub split: Split,
}

/// One numbered barrier.
#[derive(Clone, Debug, Default)]
pub struct Barrier {
    arrived: [u32; BLOCK_WARPS],
    threads: u32,
    /// Threads that must arrive, in whole warps; 0: all threads of the block.
    expected: u32,
    pub waiting: Vec<Waiting>,
    /// Results of a reduction so far.
    pub yes: u32,
    pub no: u32,
}

impl Barrier {
    /// Whether nobody has arrived.
    pub fn is_idle(&self) -> bool {
        self.threads == 0
    }

    /// Notes the lanes of `exec` in warp group `group` as arrived; `predicate` is what they bring
    /// to a reduction.
    pub fn arrive(&mut self, group: usize, exec: &Masks, predicate: Option<&Masks>, expected: u32) {
        self.expected = expected;
        for warp in 0..WARPS {
            self.arrived[(group * WARPS + warp) % BLOCK_WARPS] |= exec[warp];
            self.threads += exec[warp].count_ones();
            if let Some(predicate) = predicate {
                self.yes += (exec[warp] & predicate[warp]).count_ones();
                self.no += (exec[warp] & !predicate[warp]).count_ones();
            }
        }
    }

    /// Whether everyone is here. `live` tells the lanes of a warp of the block that have not
    /// exited, `live_threads` their number.
    pub fn is_complete(&self, live: impl Fn(usize) -> u32, live_threads: u32) -> bool {
        if self.threads == 0 {
            return false;
        }
        if self.expected == 0 {
            return self.threads >= live_threads;
        }
        // The count is in whole warps: lanes that do not exist or have exited come with theirs.
        let mut counted = 0;
        for (warp, &arrived) in self
            .arrived
            .iter()
            .enumerate()
            .filter(|(_, mask)| **mask != 0)
        {
            counted += if live(warp) & !arrived == 0 {
                32
            } else {
                arrived.count_ones()
            };
        }
        counted >= self.expected
    }

    /// Starts over.
    pub fn reset(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        *self = Barrier {
            waiting,
            ..Barrier::default()
        };
    }
}
