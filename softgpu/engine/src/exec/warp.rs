//! Instructions in which the lanes of a warp exchange values.
//!
//! PTX lets lanes of one warp meet in a `.sync` instruction from different places of the program:
//! what counts is that they execute the same instruction with the same member mask. So each of
//! these takes *parts*: sets of lanes, each with the instruction that brought it here.

use super::inst::{Inst, NONE};
use super::lanes::{Lanes, LANES};
use super::machine::Machine;
use super::memory::lanes_of;

/// What the lanes exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarpOp {
    /// `bar.warp.sync`
    Sync,
    Shuffle(ShuffleMode),
    Vote(VoteMode),
    /// `match`: which lanes have the same value; whether all have.
    Match {
        all: bool,
        wide: bool,
    },
    /// `redux`
    Reduce(Reduction),
    /// `elect`
    Elect,
}

/// Which lane a lane of `shfl` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Index,
    Up,
    Down,
    Butterfly,
}

/// What `vote` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What `redux` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Add,
    MinUnsigned,
    MinSigned,
    MaxUnsigned,
    MaxSigned,
    And,
    Or,
    Xor,
}

impl Reduction {
    /// The reduction that an opcode names.
    pub fn from_names(op: &str, ty: &str) -> Option<Reduction> {
        Some(match (op, ty) {
            ("add", "u32" | "s32") => Reduction::Add,
            ("min", "u32") => Reduction::MinUnsigned,
            ("min", "s32") => Reduction::MinSigned,
            ("max", "u32") => Reduction::MaxUnsigned,
            ("max", "s32") => Reduction::MaxSigned,
            ("and", "b32") => Reduction::And,
            ("or", "b32") => Reduction::Or,
            ("xor", "b32") => Reduction::Xor,
            _ => return None,
        })
    }

    fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Reduction::Add => a.wrapping_add(b),
            Reduction::MinUnsigned => a.min(b),
            Reduction::MinSigned => (a as i32).min(b as i32) as u32,
            Reduction::MaxUnsigned => a.max(b),
            Reduction::MaxSigned => (a as i32).max(b as i32) as u32,
            Reduction::And => a & b,
            Reduction::Or => a | b,
            Reduction::Xor => a ^ b,
        }
    }
}

/// Lanes of a warp that came to an operation by the same instruction.
#[derive(Clone, Copy)]
pub struct Part<'k> {
    pub inst: &'k Inst,
    pub lanes: u32,
}

/// `activemask`
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn active_mask(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let lanes = &mut machine.lanes;
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        // SAFETY: the decoder's promise.
        let d = unsafe { &mut *lanes.reg::<u32>(inst.operands.d, warp) };
        lanes_of(mask).for_each(|lane| d[lane] = mask);
    }
    true
}

/// Carries out `op` for the lanes of all parts together.
///
/// # Safety
/// The parts' instructions must come from the kernel that `lanes` was sized for.
pub unsafe fn perform(lanes: &mut Lanes, op: WarpOp, warp: usize, parts: &[Part<'_>]) {
    let present = parts.iter().fold(0, |mask, part| mask | part.lanes);
    // SAFETY: passed on; operands are of the widths that the decoder checked for `op`.
    unsafe {
        match op {
            WarpOp::Sync => {}
            WarpOp::Shuffle(mode) => shuffle(lanes, mode, warp, parts),
            WarpOp::Vote(mode) => vote(lanes, mode, warp, parts, present),
            WarpOp::Match { all, wide } => {
                let values = match wide {
                    true => gather::<u64>(lanes, warp, parts, |inst| inst.operands.a),
                    false => {
                        gather::<u32>(lanes, warp, parts, |inst| inst.operands.a).map(u64::from)
                    }
                };
                match_values(lanes, all, warp, parts, (present, &values));
            }
            WarpOp::Reduce(reduction) => {
                let values = gather::<u32>(lanes, warp, parts, |inst| inst.operands.a);
                let all = lanes_of(present).map(|lane| values[lane]);
                let result = all.reduce(|a, b| reduction.apply(a, b)).unwrap_or(0);
                scatter(lanes, warp, parts, &[result; LANES]);
            }
            WarpOp::Elect => {
                let leader = present.trailing_zeros();
                scatter(lanes, warp, parts, &[leader; LANES]);
                scatter_predicate(
                    lanes,
                    warp,
                    parts,
                    |inst| inst.operands.d2,
                    1 << (leader & 31),
                );
            }
        }
    }
}

/// The values of a register over the lanes of all parts.
#[inline(always)]
unsafe fn gather<T: Copy + Default>(
    lanes: &Lanes,
    warp: usize,
    parts: &[Part<'_>],
    slot: impl Fn(&Inst) -> u32,
) -> [T; LANES] {
    // SAFETY: the caller's promise.
    unsafe {
        if let [part] = parts {
            return *lanes.reg::<T>(slot(part.inst), warp);
        }
        let mut values = [T::default(); LANES];
        for part in parts {
            let source = &*lanes.reg::<T>(slot(part.inst), warp);
            lanes_of(part.lanes).for_each(|lane| values[lane] = source[lane]);
        }
        values
    }
}

/// Writes each part's destination.
#[inline(always)]
unsafe fn scatter(lanes: &Lanes, warp: usize, parts: &[Part<'_>], values: &[u32; LANES]) {
    for part in parts {
        // SAFETY: the caller's promise.
        let d = unsafe { &mut *lanes.reg::<u32>(part.inst.operands.d, warp) };
        super::moves::blend(d, values, part.lanes);
    }
}

/// Writes a predicate of each part, where it has one.
unsafe fn scatter_predicate(
    lanes: &Lanes,
    warp: usize,
    parts: &[Part<'_>],
    slot: impl Fn(&Inst) -> u32,
    values: u32,
) {
    for part in parts {
        let slot = slot(part.inst);
        if slot != NONE {
            // SAFETY: the caller's promise.
            let d = unsafe { &mut (*lanes.pred(slot))[warp] };
            *d = *d & !part.lanes | values & part.lanes;
        }
    }
}

unsafe fn shuffle(lanes: &Lanes, mode: ShuffleMode, warp: usize, parts: &[Part<'_>]) {
    // SAFETY: passed on.
    unsafe {
        let a = gather::<u32>(lanes, warp, parts, |inst| inst.operands.a);
        let b = gather::<u32>(lanes, warp, parts, |inst| inst.operands.b);
        let c = gather::<u32>(lanes, warp, parts, |inst| inst.operands.c);
        let (mut values, mut in_range) = ([0; LANES], 0);
        for lane in 0..LANES as u32 {
            let (by, clamp, segment) = (
                b[lane as usize] & 31,
                c[lane as usize] & 31,
                c[lane as usize] >> 8 & 31,
            );
            let lowest = lane & segment;
            let limit = lowest | clamp & !segment;
            let (source, fits) = match mode {
                ShuffleMode::Up => {
                    let source = lane.wrapping_sub(by);
                    (source, source as i32 >= limit as i32)
                }
                ShuffleMode::Down => (lane + by, lane + by <= limit),
                ShuffleMode::Butterfly => (lane ^ by, lane ^ by <= limit),
                ShuffleMode::Index => {
                    let source = lowest | by & !segment;
                    (source, source <= limit)
                }
            };
            let source = if fits { source } else { lane };
            values[lane as usize] = a[source as usize & 31];
            in_range |= u32::from(fits) << lane;
        }
        scatter(lanes, warp, parts, &values);
        scatter_predicate(lanes, warp, parts, |inst| inst.operands.d2, in_range);
    }
}

unsafe fn vote(lanes: &Lanes, mode: VoteMode, warp: usize, parts: &[Part<'_>], present: u32) {
    let mut yes = 0;
    for part in parts {
        // SAFETY: the caller's promise.
        yes |= unsafe { (*lanes.pred(part.inst.operands.a))[warp] } & part.lanes;
    }
    let verdict = match mode {
        VoteMode::All => yes == present,
        VoteMode::Any => yes != 0,
        VoteMode::Uniform => yes == present || yes == 0,
        VoteMode::Ballot => {
            // SAFETY: passed on.
            unsafe { scatter(lanes, warp, parts, &[yes; LANES]) };
            return;
        }
    };
    let values = if verdict { !0 } else { 0 };
    // SAFETY: passed on.
    unsafe { scatter_predicate(lanes, warp, parts, |inst| inst.operands.d, values) };
}

unsafe fn match_values(
    lanes: &Lanes,
    all: bool,
    warp: usize,
    parts: &[Part<'_>],
    (present, values): (u32, &[u64; LANES]),
) {
    let equal_to = |value: u64| {
        lanes_of(present)
            .filter(|&lane| values[lane] == value)
            .fold(0, |mask, lane| mask | 1 << lane)
    };
    // SAFETY: passed on.
    unsafe {
        if all {
            let first = values[present.trailing_zeros() as usize & 31];
            let same = equal_to(first) == present;
            scatter(lanes, warp, parts, &[if same { present } else { 0 }; LANES]);
            let truth = if same { !0 } else { 0 };
            scatter_predicate(lanes, warp, parts, |inst| inst.operands.d2, truth);
        } else {
            let mut masks = [0; LANES];
            lanes_of(present).for_each(|lane| masks[lane] = equal_to(values[lane]));
            scatter(lanes, warp, parts, &masks);
        }
    }
}
