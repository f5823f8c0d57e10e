//! The interpreter: executes a block's splits, one instruction over a warp group at a time.
//!
//! Unsafe by nature: instructions are run by function pointers over raw lanes. The decoder made
//! every instruction, and `Block` sized the storage by the kernel that they come from.

use super::block::{Block, GROUP_THREADS};
use super::fault::{Place, Violation};
use super::grid::GridState;
use super::group::Split;
use super::inst::{Action, Flags, Guard, Inst};
use super::kernel::Kernel;
use super::lanes::{Masks, LANES};
use super::machine::Machine;
use super::memory::{lanes_of, CachedRange};

/// How a block's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All threads have exited.
    Finished,
    /// Every thread waits for something that may be another block's to do.
    Waiting,
    /// The launch has failed or was cancelled.
    Stopped,
}

/// How a group's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// No split can run.
    Idle,
    /// Splits can run but seem to wait.
    Spinning,
    Stopped,
}

/// What the interpreter does after an instruction that is not plain.
pub(super) enum Next {
    /// Goes on with the same split, whose place and mask are up to date.
    Continue,
    /// Chooses a split anew.
    Choose,
    /// Ends the group's turn.
    Pause(Pause),
}

/// Jumps back before a split gives way to others.
const LOOP_PATIENCE: u32 = 1 << 16;
/// Reads of memory that others may change, before a split that loops gives way.
const POLL_PATIENCE: u32 = 16;
/// Runs one block.
pub struct Runner<'r, 'g> {
    pub(super) machine: Machine<'g>,
    pub(super) block: &'r mut Block,
    pub(super) kernel: &'g Kernel,
    /// The group that runs.
    pub(super) group: usize,
}

/// Whether no lane is in the masks.
#[inline(always)]
pub(super) fn is_empty(masks: &Masks) -> bool {
    masks.iter().fold(0, |any, mask| any | mask) == 0
}

#[inline(always)]
pub(super) fn without(masks: &Masks, less: &Masks) -> Masks {
    std::array::from_fn(|warp| masks[warp] & !less[warp])
}

/// A lane of the masks: warp and lane.
pub(super) fn first_lane(masks: &Masks) -> (usize, usize) {
    let warp = masks.iter().position(|&mask| mask != 0).unwrap_or(0);
    (warp, masks[warp].trailing_zeros() as usize % LANES)
}

impl<'r, 'g> Runner<'r, 'g> {
    /// A runner of `block`, which was started for the launch.
    pub fn new(
        grid: &'g GridState,
        block: &'r mut Block,
        ranges: &'g mut [CachedRange],
    ) -> Runner<'r, 'g> {
        let kernel = &*grid.kernel;
        let machine = Machine {
            lanes: block.lanes(kernel, 0),
            kernel,
            grid,
            shared: std::ptr::null_mut(),
            shared_bytes: grid.shared_bytes,
            local: std::ptr::null_mut(),
            local_bytes: kernel.local_bytes,
            frame: 0,
            ranges,
            known: Default::default(),
            violation: None,
            block: block.id,
            first_thread: 0,
        };
        Runner {
            machine,
            block,
            kernel,
            group: 0,
        }
    }

    /// Runs the block until it ends or waits.
    pub fn run(mut self) -> Turn {
        loop {
            let (mut idle, mut spinning) = (0, 0);
            for group in 0..self.block.groups.len() {
                if self.block.groups[group].ready.is_empty() {
                    continue;
                }
                match self.run_group(group) {
                    Pause::Idle => idle += 1,
                    Pause::Spinning => spinning += 1,
                    Pause::Stopped => return Turn::Stopped,
                }
            }
            if self.block.live_threads == 0 {
                return Turn::Finished;
            }
            match (idle, spinning) {
                (0, 0) => {
                    self.report_deadlock();
                    return Turn::Stopped;
                }
                (0, _) => return Turn::Waiting,
                _ => {}
            }
        }
    }

    fn run_group(&mut self, group: usize) -> Pause {
        self.group = group;
        self.machine.lanes = self.block.lanes(self.kernel, group);
        self.machine.first_thread = group as u32 * GROUP_THREADS;
        (self.machine.shared, self.machine.local) = self.block.memory(self.kernel, group);
        let mut turns = 0;
        let pause = loop {
            let Some(mut split) = self.block.groups[group].take() else {
                break Pause::Idle;
            };
            self.machine.frame = self.block.groups[group].chains[split.chain as usize].frame;
            // SAFETY: the split's place is one of the kernel's instructions.
            match unsafe { self.run_split(&mut split) } {
                Next::Pause(Pause::Spinning) => {
                    split.yields += 1;
                    turns += 1;
                    let ready = &mut self.block.groups[group].ready;
                    ready.push(split);
                    if turns >= ready.len() {
                        break Pause::Spinning;
                    }
                }
                Next::Pause(pause) => break pause,
                Next::Continue | Next::Choose => {}
            }
        };
        self.block.groups[group].carry = self.machine.lanes.carry;
        pause
    }

    /// Executes a split until another should run instead.
    unsafe fn run_split(&mut self, split: &mut Split) -> Next {
        let kernel = self.kernel;
        let code = kernel.code.as_slice();
        let mut rival = self.block.groups[self.group].rival(split.chain);
        let (mut jumps_back, mut polls) = (0, 0);
        let mut pc = split.pc as usize;
        let mut mask = split.mask;
        let mut arrived = true;
        loop {
            // SAFETY: jumps and calls lead to instructions of the kernel, whose last one in each
            // function does not fall through.
            let inst = unsafe { code.get_unchecked(pc) };
            if rival as usize <= pc && inst.flags.has(Flags::LEADER) && !arrived {
                let group = &mut self.block.groups[self.group];
                group.absorb(pc as u32, split.chain, &mut mask);
                rival = group.rival(split.chain);
                if rival as usize <= pc {
                    group.ready.push(Split {
                        pc: pc as u32,
                        mask,
                        ..*split
                    });
                    return Next::Choose;
                }
            }
            arrived = false;
            let lanes = &mut self.machine.lanes;
            let mut any = true;
            if inst.guard == Guard::ALWAYS {
                lanes.exec = mask;
            } else {
                // SAFETY: the guard is one of the kernel's predicates.
                let predicate = unsafe { &*lanes.pred(inst.guard.index()) };
                let flip = inst.guard.flip();
                let exec: Masks = std::array::from_fn(|w| mask[w] & (predicate[w] ^ flip));
                any = !is_empty(&exec);
                lanes.exec = exec;
            }
            match inst.action {
                Action::Lane(f) => {
                    if any {
                        // SAFETY: see the module's head.
                        unsafe { f(lanes, &inst.operands) };
                    }
                    pc += 1;
                }
                Action::Block(f) => {
                    if any {
                        // SAFETY: see the module's head.
                        if !unsafe { f(&mut self.machine, inst) } {
                            return self.report(pc as u32);
                        }
                        polls += u32::from(inst.flags.has(Flags::POLLS));
                    }
                    pc += 1;
                }
                Action::Branch(target) => {
                    let target = target as usize;
                    if !any {
                        pc += 1;
                        continue;
                    }
                    let rest = without(&mask, &lanes.exec);
                    let backward = target <= pc;
                    if is_empty(&rest) {
                        pc = target;
                    } else {
                        let taken = (target, lanes.exec);
                        let fallen = (pc + 1, rest);
                        let (low, high) = if backward {
                            (taken, fallen)
                        } else {
                            (fallen, taken)
                        };
                        let ahead = Split {
                            pc: high.0 as u32,
                            mask: high.1,
                            ..*split
                        };
                        self.block.groups[self.group].ready.push(ahead);
                        rival = rival.min(ahead.pc);
                        (pc, mask) = low;
                    }
                    if backward {
                        jumps_back += 1;
                        if polls >= POLL_PATIENCE || jumps_back >= LOOP_PATIENCE {
                            if self.machine.grid.is_stopped() {
                                return Next::Pause(Pause::Stopped);
                            }
                            (split.pc, split.mask) = (pc as u32, mask);
                            return Next::Pause(Pause::Spinning);
                        }
                    }
                }
                _ => {
                    (split.pc, split.mask) = (pc as u32, mask);
                    if !any {
                        pc += 1;
                        continue;
                    }
                    // SAFETY: passed on.
                    match unsafe { self.special(inst, split) } {
                        Next::Continue => {
                            (pc, mask) = (split.pc as usize, split.mask);
                            rival = self.block.groups[self.group].rival(split.chain);
                        }
                        next => return next,
                    }
                }
            }
        }
    }

    /// Executes an instruction that changes who runs where. `split` is at it.
    unsafe fn special(&mut self, inst: &Inst, split: &mut Split) -> Next {
        let exec = self.machine.lanes.exec;
        let rest = without(&split.mask, &exec);
        // SAFETY: passed on.
        unsafe {
            match inst.action {
                Action::Exit => self.exit(&exec, &rest, split),
                Action::Barrier(op) => self.barrier(op, inst, split),
                Action::Warp(op) => self.meet(op, inst, split),
                Action::Call => {
                    let site = &self.kernel.calls[inst.site as usize];
                    let callee = site.callee.unwrap_or(0);
                    self.push(split.pc + 1, split.chain, rest);
                    match self.call(callee, inst.site, split, exec) {
                        Some(inside) => {
                            *split = inside;
                            self.machine.frame = self.frame_of(split.chain);
                            Next::Continue
                        }
                        None => self.report(split.pc),
                    }
                }
                Action::CallIndirect => self.call_indirect(inst, split, exec, rest),
                Action::Return => {
                    self.push(split.pc + 1, split.chain, rest);
                    self.leave_function(split, exec);
                    self.machine.frame = self.frame_of(split.chain);
                    Next::Continue
                }
                Action::Table => self.branch_table(inst, split, exec, rest),
                Action::Sleep => {
                    split.pc += 1;
                    Next::Pause(match self.machine.grid.is_stopped() {
                        true => Pause::Stopped,
                        false => Pause::Spinning,
                    })
                }
                Action::Trap => self.violate(Violation::Trap, split.pc),
                _ => {
                    let reason = "a function that cannot be executed".to_string();
                    self.violate(Violation::Instruction(reason), split.pc)
                }
            }
        }
    }

    fn frame_of(&self, chain: u32) -> u32 {
        self.block.groups[self.group].chains[chain as usize].frame
    }

    /// Makes lanes ready to run at `pc`.
    pub(super) fn push(&mut self, pc: u32, chain: u32, mask: Masks) {
        if !is_empty(&mask) {
            self.block.groups[self.group].ready.push(Split {
                pc,
                chain,
                yields: 0,
                mask,
            });
        }
    }

    unsafe fn exit(&mut self, exec: &Masks, rest: &Masks, split: &mut Split) -> Next {
        let group = &mut self.block.groups[self.group];
        group.live = without(&group.live, exec);
        let gone: u32 = exec.iter().map(|mask| mask.count_ones()).sum();
        self.block.live_threads -= gone;
        // SAFETY: passed on.
        unsafe {
            self.recheck_meetings();
            self.recheck_barriers();
        }
        if is_empty(rest) {
            return Next::Choose;
        }
        (split.pc, split.mask) = (split.pc + 1, *rest);
        Next::Continue
    }

    unsafe fn branch_table(
        &mut self,
        inst: &Inst,
        split: &mut Split,
        exec: Masks,
        rest: Masks,
    ) -> Next {
        let table = &self.kernel.tables[inst.site as usize];
        self.push(split.pc + 1, split.chain, rest);
        for warp in 0..self.machine.lanes.warps {
            // SAFETY: the decoder checked the operand.
            let index = unsafe { *self.machine.lanes.reg::<u32>(inst.operands.a, warp) };
            for lane in lanes_of(exec[warp]) {
                let Some(&target) = table.get(index[lane] as usize) else {
                    let reason = format!("branch {} of {}", index[lane], table.len());
                    self.machine
                        .fail(Violation::Instruction(reason), warp, lane);
                    return self.report(split.pc);
                };
                let mut mask = Masks::default();
                mask[warp] = 1 << lane;
                let ready = &mut self.block.groups[self.group].ready;
                match ready
                    .iter_mut()
                    .find(|s| s.pc == target && s.chain == split.chain)
                {
                    Some(same) => same.mask[warp] |= mask[warp],
                    None => self.push(target, split.chain, mask),
                }
            }
        }
        Next::Choose
    }
}

/// Failing.
impl Runner<'_, '_> {
    /// Ends the launch with the violation that the machine holds, met at `pc`.
    #[cold]
    pub(super) fn report(&mut self, pc: u32) -> Next {
        if let Some((violation, warp, lane)) = self.machine.violation.take() {
            let place = self.place(pc, self.group, warp, lane);
            self.machine.grid.fail(violation.at(place));
        }
        Next::Pause(Pause::Stopped)
    }

    /// Ends the launch with a violation of the first active lane.
    #[cold]
    pub(super) fn violate(&mut self, violation: Violation, pc: u32) -> Next {
        let (warp, lane) = first_lane(&self.machine.lanes.exec);
        self.machine.fail(violation, warp, lane);
        self.report(pc)
    }

    /// Where a thread is.
    pub(super) fn place(&self, pc: u32, group: usize, warp: usize, lane: usize) -> Place {
        let thread = group as u32 * GROUP_THREADS + (warp * LANES + lane) as u32;
        let [x, y, _] = self.machine.grid.launch.block;
        let function = self.kernel.function_at(pc);
        let is_kernel = function.name == self.kernel.name;
        Place {
            kernel: self.kernel.name.clone(),
            function: (!is_kernel).then(|| function.name.clone()),
            line: self.kernel.code[pc as usize].line,
            block: self.block.id,
            thread: [thread % x, thread / x % y, thread / x / y],
        }
    }
}
