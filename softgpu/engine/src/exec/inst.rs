//! Decoded instructions: what the scheduler runs.

use super::barrier::BarrierOp;
use super::lanes::{OpFn, Operands};
use super::machine::Machine;
use super::warp::WarpOp;

/// An operation that needs more than registers: memory, time, the console. `false` means that it
/// left its reason in `Machine::violation` and the launch fails.
///
/// # Safety
/// The instruction must come from the kernel that the machine runs.
pub type BlockFn = unsafe fn(&mut Machine<'_>, &Inst) -> bool;

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Arithmetic over the active lanes' registers.
    Lane(OpFn),
    /// Anything else that neither waits nor jumps.
    Block(BlockFn),
    /// Go to this instruction where the guard holds.
    Branch(u32),
    /// `brx.idx`: operand `a` selects from the branch table `site`.
    Table,
    /// Call the function of call site `site`.
    Call,
    /// Call the function whose address operand `a` holds, with call site `site`.
    CallIndirect,
    /// Leave a function.
    Return,
    /// End the thread.
    Exit,
    /// Block-wide barrier.
    Barrier(BarrierOp),
    /// Exchange between the lanes of a warp.
    Warp(WarpOp),
    /// `nanosleep`: let others run.
    Sleep,
    /// `trap`, `brkpt`
    Trap,
    /// An instruction that only a function pointer can reach and that the engine cannot run.
    Illegal,
}

/// Which lanes an instruction runs in, packed: predicate number and whether it must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u32);

impl Guard {
    /// All active lanes.
    pub const ALWAYS: Guard = Guard(u32::MAX);

    /// Lanes where predicate `index` holds, or fails if `negated`.
    pub fn new(index: u32, negated: bool) -> Guard {
        Guard(index << 1 | u32::from(negated))
    }

    /// The predicate's number.
    pub fn index(self) -> u32 {
        self.0 >> 1
    }

    /// What to exclusive-or the predicate with.
    pub fn flip(self) -> u32 {
        0u32.wrapping_sub(self.0 & 1)
    }
}

/// Properties of an instruction that the scheduler looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Lanes may arrive here from elsewhere: look whether others wait at this place.
    pub const LEADER: Flags = Flags(1);
    /// Reads memory that another thread may be about to change: a loop of these may be waiting.
    pub const POLLS: Flags = Flags(2);

    /// The address operand has 64 bits.
    pub const WIDE_ADDRESS: Flags = Flags(4);

    /// First of a run of accesses with one base register: notes how its lanes relate.
    pub const NOTES_ADDRESSES: Flags = Flags(8);
    /// Later in such a run.
    pub const KNOWN_ADDRESSES: Flags = Flags(16);
    /// Either.
    pub const RUN: Flags = Flags(8 | 16);
    /// Runs that overlap have different numbers.
    pub const RUNS: usize = 4;

    /// The number of the run.
    pub fn run_number(self) -> usize {
        (self.0 >> 5) as usize % Flags::RUNS
    }

    /// Makes this the first (`NOTES_ADDRESSES`) or a later access of run `number`.
    pub fn set_run(&mut self, number: usize, flag: Flags) {
        self.0 = self.0 & 7 | flag.0 | ((number % Flags::RUNS) as u8) << 5;
    }

    /// Whether any bit of `flag` is set.
    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn add(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    pub action: Action,
    pub operands: Operands,
    pub guard: Guard,
    /// Meaning depends on the action: a cached range, call site or branch table.
    pub site: u32,
    /// Line of the PTX text.
    pub line: u32,
    pub flags: Flags,
}

/// No operand.
pub const NONE: u32 = u32::MAX;
