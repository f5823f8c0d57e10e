//! Calls and returns. A call's arguments and results travel through the frames of caller and
//! callee in local memory.

use super::fault::Violation;
use super::group::Split;
use super::inst::Inst;
use super::kernel::{FrameSpan, Storage};
use super::lanes::{Masks, LANES, WARPS};
use super::memory::lanes_of;
use super::run::{first_lane, is_empty, without, Next, Runner};

/// Most chains of calls of a group.
const CHAINS_MAX: usize = 1 << 16;

impl Runner<'_, '_> {
    /// Enters function `callee` with the lanes of `exec`; `None` if it cannot be.
    pub(super) unsafe fn call(
        &mut self,
        callee: u32,
        site: u32,
        split: &Split,
        exec: Masks,
    ) -> Option<Split> {
        let kernel = self.kernel;
        let function = &kernel.functions[callee as usize];
        let group = &mut self.block.groups[self.group];
        let from = &group.chains[split.chain as usize];
        let caller = &kernel.functions[from.function as usize];
        let from_frame = from.frame;
        let frame = from_frame + caller.frame_bytes;
        if frame + function.frame_bytes > kernel.local_bytes || group.chains.len() >= CHAINS_MAX {
            let (warp, lane) = first_lane(&exec);
            self.machine.fail(Violation::Stack, warp, lane);
            return None;
        }
        let chain = group.enter(split.chain, split.pc + 1, (callee, site), frame);
        if function.recursive {
            let mut saved = std::mem::take(&mut group.chains[chain as usize].saved);
            saved.resize(WARPS * words_of_warp(&function.storage), 0);
            // SAFETY: the function is one of the kernel's.
            unsafe { self.exchange(&function.storage, &mut saved, &exec, true) };
            self.block.groups[self.group].chains[chain as usize].saved = saved;
        }
        let arguments = kernel.calls[site as usize]
            .params
            .iter()
            .zip(&function.params);
        for (from, to) in arguments {
            self.copy_frame(
                (from_frame + from.offset, frame + to.offset),
                from.bytes,
                &exec,
            );
        }
        Some(Split {
            pc: function.start,
            chain,
            yields: split.yields,
            mask: exec,
        })
    }

    pub(super) unsafe fn call_indirect(
        &mut self,
        inst: &Inst,
        split: &Split,
        exec: Masks,
        rest: Masks,
    ) -> Next {
        let kernel = self.kernel;
        let site = &kernel.calls[inst.site as usize];
        self.push(split.pc + 1, split.chain, rest);
        let mut waiting = exec;
        while !is_empty(&waiting) {
            let (warp, lane) = first_lane(&waiting);
            // SAFETY: the decoder checked the operand.
            let target = unsafe { (*self.machine.lanes.reg::<u64>(inst.operands.a, warp))[lane] };
            let found = kernel.functions.iter().skip(1).position(|function| {
                function.address == target
                    && same_sizes(&site.params, &function.params)
                    && (site.returns.is_empty() || same_sizes(&site.returns, &function.returns))
            });
            let Some(found) = found else {
                let reason = format!("a call of {target:#x}, where no such function is");
                self.machine
                    .fail(Violation::Instruction(reason), warp, lane);
                return self.report(split.pc);
            };
            let mut mask = Masks::default();
            for warp in 0..self.machine.lanes.warps {
                // SAFETY: as above.
                let targets = unsafe { *self.machine.lanes.reg::<u64>(inst.operands.a, warp) };
                let same = lanes_of(waiting[warp]).filter(|&lane| targets[lane] == target);
                mask[warp] = same.fold(0, |mask, lane| mask | 1 << lane);
            }
            waiting = without(&waiting, &mask);
            // SAFETY: passed on.
            match unsafe { self.call(found as u32 + 1, inst.site, split, mask) } {
                Some(inside) => self.block.groups[self.group].ready.push(inside),
                None => return self.report(split.pc),
            }
        }
        Next::Choose
    }

    /// Leaves the function that `split` is in, for the lanes of `exec`.
    pub(super) unsafe fn leave_function(&mut self, split: &mut Split, exec: Masks) {
        let kernel = self.kernel;
        let group = &mut self.block.groups[self.group];
        let chain = &mut group.chains[split.chain as usize];
        let function = &kernel.functions[chain.function as usize];
        let (parent, return_pc, frame) = (chain.parent, chain.return_pc, chain.frame);
        let site = &kernel.calls[chain.site as usize];
        let mut saved = std::mem::take(&mut chain.saved);
        let outer = group.chains[parent as usize].frame;
        for (to, from) in site.returns.iter().zip(&function.returns) {
            self.copy_frame((frame + from.offset, outer + to.offset), to.bytes, &exec);
        }
        if function.recursive {
            // SAFETY: the function is one of the kernel's.
            unsafe { self.exchange(&function.storage, &mut saved, &exec, false) };
            self.block.groups[self.group].chains[split.chain as usize].saved = saved;
        }
        (split.pc, split.chain, split.mask) = (return_pc, parent, exec);
        self.forget_chains(parent);
    }

    /// Drops the newest chains that no lane is in. `current` is the running split's.
    fn forget_chains(&mut self, current: u32) {
        let group = &mut self.block.groups[self.group];
        let mut used = current;
        for split in &group.ready {
            used = used.max(split.chain);
        }
        for wait in &group.waits {
            used = used.max(wait.chain);
        }
        for waiting in self
            .block
            .barriers
            .iter()
            .flat_map(|barrier| &barrier.waiting)
        {
            if waiting.group == self.group {
                used = used.max(waiting.split.chain);
            }
        }
        group.chains.truncate(used as usize + 1);
    }

    /// Saves (or restores) the registers of a function for the lanes of `exec`. Each warp has its
    /// own part of `saved`, because lanes may come and go at different times.
    unsafe fn exchange(&mut self, storage: &Storage, saved: &mut [u32], exec: &Masks, save: bool) {
        let lanes = &self.machine.lanes;
        let parts = saved.chunks_exact_mut(words_of_warp(storage)).enumerate();
        for (warp, part) in parts.filter(|(warp, _)| exec[*warp] != 0) {
            let mut words = part.iter_mut();
            let mut swap = |register: &mut u32, active: u32| {
                if let Some(word) = words.next() {
                    match save {
                        true => *word = *word & !active | *register & active,
                        false => *register = *register & !active | *word & active,
                    }
                }
            };
            let active = |lane: usize| 0u32.wrapping_sub(exec[warp] >> lane & 1);
            // SAFETY: the storage is the function's.
            unsafe {
                for slot in storage.words.clone() {
                    let register = &mut *lanes.reg::<u32>(slot, warp);
                    for (lane, word) in register.iter_mut().enumerate() {
                        swap(word, active(lane));
                    }
                }
                for slot in storage.doubles.clone().step_by(2) {
                    let register = &mut *lanes.reg::<[u32; 2]>(slot, warp);
                    for (lane, halves) in register.iter_mut().enumerate() {
                        halves.iter_mut().for_each(|half| swap(half, active(lane)));
                    }
                }
                for predicate in storage.predicates.clone() {
                    swap(&mut (*lanes.pred(predicate))[warp], exec[warp]);
                }
            }
        }
    }

    /// Copies bytes of local memory from one frame to another, for the lanes of `exec`.
    fn copy_frame(&mut self, (from, to): (u32, u32), bytes: u32, exec: &Masks) {
        let size = self.kernel.local_bytes;
        let last = from.max(to).saturating_add(bytes);
        if last > size {
            return; // both frames were checked when they were entered
        }
        for (warp, &mask) in exec.iter().enumerate() {
            for lane in lanes_of(mask) {
                let start = (warp * LANES + lane) * size as usize;
                // SAFETY: both places lie in the lane's local memory.
                unsafe {
                    let local = self.machine.local.add(start);
                    let (from, to) = (local.add(from as usize), local.add(to as usize));
                    std::ptr::copy(from, to, bytes as usize);
                }
            }
        }
    }
}

/// Words that hold the registers of one warp.
fn words_of_warp(storage: &Storage) -> usize {
    let slots = storage.words.len() + storage.doubles.len();
    (slots * LANES + storage.predicates.len()).max(1)
}

fn same_sizes(a: &[FrameSpan], b: &[FrameSpan]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bytes == b.bytes)
}
