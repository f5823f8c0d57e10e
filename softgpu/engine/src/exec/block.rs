//! The state of one block: registers, shared and local memory, warp groups, barriers. Blocks are
//! plain data, so that one that waits for another can be put aside.

use super::barrier::{Barrier, BarrierOp};
use super::fault::Fault;
use super::grid::GridState;
use super::group::Group;
use super::kernel::{Content, Kernel, Level, Pin};
use super::lanes::{Lanes, Masks, LANES, WARPS};
use super::special::{Order, Special};

/// Threads of a warp group.
pub const GROUP_THREADS: u32 = (LANES * WARPS) as u32;

/// Memory on cache-line boundaries that only ever grows.
#[derive(Default)]
struct Buffer(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Buffer {
    /// Makes room for `bytes`; whether the contents moved, or how many bytes there are not.
    fn reserve(&mut self, bytes: u64) -> Result<bool, u64> {
        let lines = usize::try_from(bytes.div_ceil(64)).map_err(|_| bytes)?;
        if lines <= self.0.len() {
            return Ok(false);
        }
        self.0
            .try_reserve_exact(lines - self.0.len())
            .map_err(|_| bytes)?;
        self.0.resize(lines, Line([0; 64]));
        Ok(true)
    }

    fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// What the pinned slots were filled for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Prepared {
    kernel: u64,
    shape: [u32; 3],
    grid: u64,
}

/// One block that is running or put aside.
#[derive(Default)]
pub struct Block {
    /// Coordinates in the grid.
    pub id: [u32; 3],
    pub groups: Vec<Group>,
    pub barriers: Vec<Barrier>,
    /// Threads that have not exited.
    pub live_threads: u32,
    registers: Buffer,
    predicates: Buffer,
    shared: Buffer,
    local: Buffer,
    prepared: Prepared,
}

/// Bytes of the slots of one warp group.
fn group_bytes(kernel: &Kernel) -> u64 {
    u64::from(kernel.slots) * u64::from(GROUP_THREADS) * 4
}

impl Block {
    /// Readies the block with coordinates `id`, on OS thread number `worker` of the launch.
    pub fn start(&mut self, grid: &GridState, id: [u32; 3], worker: u32) -> Result<(), Fault> {
        let kernel = &*grid.kernel;
        let threads = grid.block_threads;
        let groups = threads.div_ceil(GROUP_THREADS) as usize;
        self.reserve(grid, groups as u64, threads)?;
        if self.barriers.is_empty() {
            self.barriers
                .resize(BarrierOp::BARRIERS, Barrier::default());
        }
        self.groups.resize_with(groups, Group::default);
        (self.id, self.live_threads) = (id, threads);
        for (index, group) in self.groups.iter_mut().enumerate() {
            let here = (threads - index as u32 * GROUP_THREADS).min(GROUP_THREADS);
            let live: Masks = std::array::from_fn(|warp| {
                let lanes = here.saturating_sub((warp * LANES) as u32).min(LANES as u32);
                ((1u64 << lanes) - 1) as u32
            });
            group.start(live, here.div_ceil(LANES as u32) as usize);
        }
        let wanted = Prepared {
            kernel: kernel.id,
            shape: grid.launch.block,
            grid: grid.id,
        };
        if (self.prepared.kernel, self.prepared.shape) != (wanted.kernel, wanted.shape) {
            self.fill(grid, &kernel.pins[Level::Kernel as usize], worker);
            for &(predicate, truth) in &kernel.truths {
                for group in 0..groups {
                    let masks = [if truth { !0 } else { 0 }; WARPS];
                    // SAFETY: the predicate is one of the kernel's, whose storage was reserved.
                    unsafe { *self.lanes(kernel, group).pred(predicate) = masks };
                }
            }
        }
        if self.prepared != wanted {
            self.fill(grid, &kernel.pins[Level::Launch as usize], worker);
        }
        self.fill(grid, &kernel.pins[Level::Block as usize], worker);
        self.prepared = wanted;
        Ok(())
    }

    fn reserve(&mut self, grid: &GridState, groups: u64, threads: u32) -> Result<(), Fault> {
        let kernel = &*grid.kernel;
        let failed = |bytes| Fault::OutOfMemory {
            kernel: kernel.name.clone(),
            bytes,
        };
        let predicates = u64::from(kernel.predicates) * size_of::<Masks>() as u64;
        let moved = self
            .registers
            .reserve(groups * group_bytes(kernel))
            .map_err(failed)?
            | self
                .predicates
                .reserve(groups * predicates)
                .map_err(failed)?;
        if moved {
            self.prepared = Prepared::default();
        }
        self.shared
            .reserve(grid.shared_bytes.into())
            .map_err(failed)?;
        let lanes = u64::from(threads.next_multiple_of(GROUP_THREADS));
        self.local
            .reserve(lanes * u64::from(kernel.local_bytes))
            .map_err(failed)?;
        Ok(())
    }

    /// The registers of a warp group, with no lane active.
    pub fn lanes(&mut self, kernel: &Kernel, group: usize) -> Lanes {
        let regs = self
            .registers
            .pointer()
            .wrapping_add(group * group_bytes(kernel) as usize);
        let size = kernel.predicates as usize * size_of::<Masks>();
        Lanes {
            regs: regs.cast(),
            preds: self.predicates.pointer().wrapping_add(group * size).cast(),
            exec: [0; WARPS],
            warps: self.groups[group].warps,
            carry: self.groups[group].carry,
        }
    }

    /// The block's shared memory, and local memory of the first lane of a group.
    pub fn memory(&mut self, kernel: &Kernel, group: usize) -> (*mut u8, *mut u8) {
        let group_bytes = kernel.local_bytes as usize * GROUP_THREADS as usize;
        (
            self.shared.pointer(),
            self.local.pointer().wrapping_add(group * group_bytes),
        )
    }

    /// Writes the contents of pinned slots.
    fn fill(&mut self, grid: &GridState, pins: &[Pin], worker: u32) {
        let kernel = &*grid.kernel;
        for group in 0..self.groups.len() {
            let lanes = self.lanes(kernel, group);
            for pin in pins {
                let uniform = self.uniform(grid, pin, worker);
                for warp in 0..lanes.warps {
                    let first = group as u32 * GROUP_THREADS + (warp * LANES) as u32;
                    let value = |lane: usize| match uniform {
                        Some(bits) => bits,
                        None => varying(pin.content, grid.launch.block, first + lane as u32),
                    };
                    // SAFETY: the slot is one of the kernel's, whose storage was reserved.
                    unsafe {
                        if pin.wide {
                            *lanes.reg::<u64>(pin.slot, warp) = std::array::from_fn(value);
                        } else {
                            *lanes.reg::<u32>(pin.slot, warp) =
                                std::array::from_fn(|lane| value(lane) as u32);
                        }
                    }
                }
            }
        }
    }

    /// The value that is the same in all lanes of the block, if it is.
    fn uniform(&self, grid: &GridState, pin: &Pin, worker: u32) -> Option<u64> {
        let axis = |extents: [u32; 3], axis: u8| u64::from(extents[axis as usize % 3]);
        Some(match pin.content {
            Content::Constant(bits) => bits,
            Content::Param {
                offset,
                bytes,
                signed,
            } => grid.param(offset, bytes, signed),
            Content::Special(special) => match special {
                Special::Ntid(a) => axis(grid.launch.block, a),
                Special::Ctaid(a) => axis(self.id, a),
                Special::Nctaid(a) => axis(grid.launch.grid, a),
                Special::Warps => u64::from(grid.block_threads.div_ceil(LANES as u32)),
                Special::Multiprocessor => u64::from(worker),
                Special::Multiprocessors => {
                    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
                }
                Special::Grid => grid.id,
                Special::Environment(index) => grid.environment(index),
                Special::DynamicShared => u64::from(grid.launch.dynamic_shared),
                Special::TotalShared => u64::from(grid.shared_bytes),
                Special::Fixed(value) => u64::from(value),
                Special::Tid(_) | Special::Lane | Special::Warp | Special::LaneMask(_) => {
                    return None;
                }
            },
        })
    }
}

/// The value of a register that differs from lane to lane.
fn varying(content: Content, block: [u32; 3], thread: u32) -> u64 {
    let lane = thread % LANES as u32;
    let value = match content {
        Content::Special(Special::Tid(0)) => thread % block[0],
        Content::Special(Special::Tid(1)) => thread / block[0] % block[1],
        Content::Special(Special::Tid(_)) => thread / block[0] / block[1],
        Content::Special(Special::Lane) => lane,
        Content::Special(Special::Warp) => thread / LANES as u32,
        Content::Special(Special::LaneMask(order)) => {
            let below = (1 << lane) - 1;
            match order {
                Order::Equal => 1 << lane,
                Order::Less => below,
                Order::LessEqual => below | 1 << lane,
                Order::GreaterEqual => !below,
                Order::Greater => !below & !(1 << lane),
            }
        }
        _ => 0,
    };
    u64::from(value)
}
