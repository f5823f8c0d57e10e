//! Where threads wait for each other: barriers of the block and `.sync` instructions of a warp.

use super::barrier::{BarrierOp, Waiting};
use super::fault::{Fault, Violation};
use super::group::{Split, WarpWait};
use super::inst::{Action, Inst, NONE};
use super::lanes::{Masks, LANES, WARPS};
use super::memory::lanes_of;
use super::run::{first_lane, is_empty, without, Next, Runner};
use super::warp::{self, Part, WarpOp};

/// Barriers.
impl Runner<'_, '_> {
    /// The lanes that `split` has at `inst` arrive at a barrier.
    pub(super) unsafe fn barrier(&mut self, op: BarrierOp, inst: &Inst, split: &mut Split) -> Next {
        let exec = self.machine.lanes.exec;
        let rest = without(&split.mask, &exec);
        let (warp, lane) = first_lane(&exec);
        let lanes = &self.machine.lanes;
        // SAFETY: the decoder checked the operands; all active lanes must agree on them.
        let value = |slot: u32| unsafe { (*lanes.reg::<u32>(slot, warp))[lane] };
        let number = value(inst.operands.a);
        let expected = if inst.operands.b == NONE {
            0
        } else {
            value(inst.operands.b)
        };
        let Some(barrier) = self.block.barriers.get_mut(number as usize) else {
            let reason = format!("barrier {number}, of 16");
            return self.violate(Violation::Instruction(reason), split.pc);
        };
        if op == BarrierOp::Sync && expected == 0 && barrier.is_idle() {
            let arriving: u32 = exec.iter().map(|mask| mask.count_ones()).sum();
            if arriving == self.block.live_threads {
                split.pc += 1; // everyone at once
                return Next::Continue;
            }
        }
        // SAFETY: the decoder checked the operand.
        let predicate =
            (inst.operands.c != NONE).then(|| unsafe { *self.machine.lanes.pred(inst.operands.c) });
        barrier.arrive(self.group, &exec, predicate.as_ref(), expected);
        if op == BarrierOp::Arrive {
            split.pc += 1;
            // SAFETY: passed on.
            unsafe { self.recheck_barriers() };
            return Next::Continue;
        }
        let waiting = Split {
            mask: exec,
            ..*split
        };
        barrier.waiting.push(Waiting {
            group: self.group,
            split: waiting,
        });
        // SAFETY: passed on.
        unsafe { self.recheck_barriers() };
        if is_empty(&rest) {
            return Next::Choose;
        }
        (split.pc, split.mask) = (split.pc + 1, rest);
        Next::Continue
    }

    /// Opens every barrier that nobody is missing from.
    pub(super) unsafe fn recheck_barriers(&mut self) {
        for number in 0..self.block.barriers.len() {
            let groups = &self.block.groups;
            let live = |warp: usize| groups.get(warp / WARPS).map_or(0, |g| g.live[warp % WARPS]);
            if self.block.barriers[number].is_complete(live, self.block.live_threads) {
                // SAFETY: passed on.
                unsafe { self.open(number) };
            }
        }
    }

    unsafe fn open(&mut self, number: usize) {
        let barrier = &mut self.block.barriers[number];
        let (yes, no) = (barrier.yes, barrier.no);
        let waiting = std::mem::take(&mut barrier.waiting);
        barrier.reset();
        for Waiting { group, split } in waiting {
            let inst = &self.kernel.code[split.pc as usize];
            if let Action::Barrier(op) = inst.action {
                let lanes = self.block.lanes(self.kernel, group);
                let d = inst.operands.d;
                for warp in 0..lanes.warps {
                    let mask = split.mask[warp];
                    // SAFETY: the decoder checked the operand for each operation.
                    unsafe {
                        match op {
                            BarrierOp::Sync | BarrierOp::Arrive => {}
                            BarrierOp::Count => {
                                let d = &mut *lanes.reg::<u32>(d, warp);
                                super::moves::blend(d, &[yes; LANES], mask);
                            }
                            BarrierOp::All | BarrierOp::Any => {
                                let truth = if op == BarrierOp::All {
                                    no == 0
                                } else {
                                    yes > 0
                                };
                                let value = if truth { !0 } else { 0 };
                                let d = &mut (*lanes.pred(d))[warp];
                                *d = *d & !mask | value & mask;
                            }
                        }
                    }
                }
            }
            let ready = Split {
                pc: split.pc + 1,
                ..split
            };
            self.block.groups[group].ready.push(ready);
        }
    }
}

/// `.sync` instructions.
impl Runner<'_, '_> {
    /// The lanes that `split` has at `inst` want to execute a warp operation together with the
    /// other members of their masks.
    pub(super) unsafe fn meet(&mut self, op: WarpOp, inst: &Inst, split: &mut Split) -> Next {
        let exec = self.machine.lanes.exec;
        let live = self.block.groups[self.group].live;
        let mut parked = Masks::default();
        for warp in 0..self.machine.lanes.warps {
            let mut arriving = exec[warp];
            while arriving != 0 {
                let first = arriving.trailing_zeros() as usize;
                let (members, lanes) = match inst.operands.e {
                    NONE => (arriving, arriving),
                    slot => {
                        // SAFETY: the decoder checked the operand.
                        let masks = unsafe { &*self.machine.lanes.reg::<u32>(slot, warp) };
                        let members = masks[first];
                        let mut same = 0;
                        for (lane, &mask) in masks.iter().enumerate() {
                            same |= u32::from(mask == members) << lane;
                        }
                        (members, same & arriving)
                    }
                };
                arriving &= !lanes;
                if members & live[warp] & !lanes == 0 {
                    let part = Part { inst, lanes };
                    // SAFETY: passed on.
                    unsafe { warp::perform(&mut self.machine.lanes, op, warp, &[part]) };
                } else {
                    parked[warp] |= lanes;
                    let (pc, chain) = (split.pc, split.chain);
                    let wait = WarpWait {
                        op,
                        members,
                        warp,
                        lanes,
                        pc,
                        chain,
                    };
                    self.block.groups[self.group].waits.push(wait);
                }
            }
        }
        split.pc += 1;
        if is_empty(&parked) {
            return Next::Continue;
        }
        split.mask = without(&split.mask, &parked);
        // SAFETY: passed on.
        unsafe { self.recheck_meetings() };
        match is_empty(&split.mask) {
            true => Next::Choose,
            false => Next::Continue,
        }
    }

    /// Carries out every warp operation of the running group that nobody is missing from.
    pub(super) unsafe fn recheck_meetings(&mut self) {
        let kernel = self.kernel;
        let mut index = 0;
        while let Some(&WarpWait {
            op, members, warp, ..
        }) = self.block.groups[self.group].waits.get(index)
        {
            index += 1;
            let group = &mut self.block.groups[self.group];
            let same = |w: &WarpWait| w.op == op && w.members == members && w.warp == warp;
            let waits = group.waits.iter().filter(|wait| same(wait));
            let present = waits.fold(0, |mask, wait| mask | wait.lanes);
            if members & group.live[warp] & !present != 0 {
                continue;
            }
            let (met, others) = group.waits.drain(..).partition::<Vec<_>, _>(same);
            group.waits = others;
            let part = |wait: &WarpWait| Part {
                inst: &kernel.code[wait.pc as usize],
                lanes: wait.lanes,
            };
            let parts: Vec<Part<'_>> = met.iter().map(part).collect();
            // SAFETY: passed on.
            unsafe { warp::perform(&mut self.machine.lanes, op, warp, &parts) };
            for wait in met {
                let mut mask = Masks::default();
                mask[warp] = wait.lanes;
                self.push(wait.pc + 1, wait.chain, mask);
            }
            index = 0;
        }
    }

    /// Ends the launch because every thread of the block waits for another.
    #[cold]
    pub(super) fn report_deadlock(&mut self) {
        let mut waiting = vec![];
        let mut at = None;
        for (number, barrier) in self.block.barriers.iter().enumerate() {
            for Waiting { group, split } in &barrier.waiting {
                let count: u32 = split.mask.iter().map(|mask| mask.count_ones()).sum();
                let line = self.kernel.code[split.pc as usize].line;
                waiting.push(format!("{count} threads at barrier {number} (line {line})"));
                let (warp, lane) = first_lane(&split.mask);
                at = at.or(Some((split.pc, *group, warp, lane)));
            }
        }
        for (index, group) in self.block.groups.iter().enumerate() {
            for wait in &group.waits {
                let line = self.kernel.code[wait.pc as usize].line;
                let warp = index * WARPS + wait.warp;
                waiting.push(format!(
                    "lanes {:#010x} of warp {warp} at line {line} for members {:#010x}",
                    wait.lanes, wait.members
                ));
                let lane = lanes_of(wait.lanes).next().unwrap_or(0);
                at = at.or(Some((wait.pc, index, wait.warp, lane)));
            }
        }
        waiting.truncate(16);
        let (pc, group, warp, lane) = at.unwrap_or_default();
        let place = self.place(pc, group, warp, lane);
        self.machine.grid.fail(Fault::Deadlock {
            place,
            waiting: waiting.join(", "),
        });
    }
}
