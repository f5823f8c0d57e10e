//! Launches: blocks handed to OS threads in order, each run until it ends or has to wait for
//! another.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{iter, mem};

use super::block::Block;
use super::fault::Fault;
use super::kernel::Kernel;
use super::memory::CachedRange;
use super::run::{Runner, Turn};

/// What to run and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in each direction, at least 1.
    pub grid: [u32; 3],
    /// Threads of a block in each direction, at least 1; 1024 in all at most.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The kernel's parameters at the offsets of [`Kernel::params`]; missing bytes are zero.
    pub params: Vec<u8>,
    /// Blocks may wait for each other: all are started before any must end.
    pub cooperative: bool,
}

/// The device's memory. Device addresses are addresses of this process.
pub trait DeviceMemory: Send + Sync {
    /// The allocation that holds `address`. All of it must stay readable and writable until the
    /// launches that may use it have ended.
    fn range_of(&self, address: u64) -> Option<Range<u64>>;
}

/// What one thread printed by one `printf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub bytes: Vec<u8>,
    /// Arguments of the call after its format.
    pub arguments: u64,
}

/// Where device code prints.
pub trait Console: Send + Sync {
    /// Takes what `printf` makes in the threads that call it together, in their order.
    fn print(&self, texts: Vec<Text>);

    /// Takes the line of an assertion that failed in one thread.
    fn complain(&self, line: &[u8]);
}

/// Blocks that one OS thread keeps at once, at most, if the launch is not cooperative.
const RESIDENT_MAX: usize = 1024;
/// Turns that a block may spend waiting before a further one is started beside it.
const PATIENCE: u32 = 64;

/// What all OS threads of a launch share.
pub struct GridState {
    pub kernel: Arc<Kernel>,
    pub launch: Launch,
    pub memory: Arc<dyn DeviceMemory>,
    pub console: Arc<dyn Console>,
    /// Different for every launch of the process.
    pub id: u64,
    pub block_threads: u32,
    /// Static and dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The parameters, in units that align them.
    pub params: Vec<u64>,
    /// What cooperative groups use to let the blocks of a grid meet: a size and a counter.
    /// Only a cooperative launch has one.
    workspace: Option<Box<[AtomicU64; 8]>>,
    blocks: u64,
    next: AtomicU64,
    finished: AtomicU64,
    workers: AtomicU32,
    stopped: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl GridState {
    /// Whether the launch has failed or was cancelled.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends the launch with `fault`, unless it has one already.
    pub fn fail(&self, fault: Fault) {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(fault);
        self.stopped.store(true, Ordering::Release);
    }

    /// Bytes of the parameters as a number.
    pub fn param(&self, offset: u32, bytes: u32, signed: bool) -> u64 {
        let word = self.params.get(offset as usize / 8).copied().unwrap_or(0);
        let unused = 64 - 8 * bytes.clamp(1, 8);
        let high = word >> (8 * (offset % 8)) << unused;
        match signed {
            true => (high as i64 >> unused) as u64,
            false => high >> unused,
        }
    }

    /// `%envreg1` and `%envreg2`: the halves of the workspace's address, high one first.
    pub fn environment(&self, index: u8) -> u64 {
        let address = match self.workspace.as_deref() {
            Some(workspace) => workspace.as_ptr().expose_provenance() as u64,
            None => 0,
        };
        match index {
            1 => address >> 32,
            2 => address & 0xffff_ffff,
            _ => 0,
        }
    }

    /// The workspace, if `address` lies in it.
    pub fn workspace_range(&self, address: u64) -> Option<Range<u64>> {
        let workspace = self.workspace.as_deref()?;
        let start = workspace.as_ptr().expose_provenance() as u64;
        let range = start..start + size_of_val(workspace) as u64;
        range.contains(&address).then_some(range)
    }

    /// Coordinates of the next block to start.
    fn next_block(&self) -> Option<[u32; 3]> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.blocks {
            self.next.store(self.blocks, Ordering::Relaxed); // so that it cannot wrap
            return None;
        }
        let [x, y, _] = self.launch.grid.map(u64::from);
        Some([
            (index % x) as u32,
            (index / x % y) as u32,
            (index / x / y) as u32,
        ])
    }
}

/// One launch of a kernel.
pub struct Grid {
    state: GridState,
}

impl Grid {
    /// Prepares a launch. The caller has checked it against the kernel's and the device's limits;
    /// extents of zero count as one, and blocks beyond 1024 threads are cut there.
    pub fn new(
        kernel: Arc<Kernel>,
        mut launch: Launch,
        memory: Arc<dyn DeviceMemory>,
        console: Arc<dyn Console>,
    ) -> Grid {
        for extent in launch.grid.iter_mut().chain(&mut launch.block) {
            *extent = (*extent).max(1);
        }
        let threads = launch
            .block
            .iter()
            .fold(1u64, |n, &extent| n.saturating_mul(extent.into()));
        let given = launch.params.chunks(8).map(|word| {
            word.iter()
                .rev()
                .fold(0, |bits, &byte| bits << 8 | u64::from(byte))
        });
        let wanted = launch.params.len().max(kernel.param_bytes() as usize);
        let params = given.chain(iter::repeat(0)).take(wanted.div_ceil(8));
        let params = params.collect();
        let workspace = launch.cooperative.then(|| {
            let workspace: Box<[AtomicU64; 8]> = Box::default();
            workspace[0].store(size_of_val(&*workspace) as u64, Ordering::Relaxed);
            workspace
        });
        let blocks = launch
            .grid
            .iter()
            .fold(1u64, |n, &extent| n.saturating_mul(extent.into()));
        let state = GridState {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            block_threads: threads.min(1024) as u32,
            shared_bytes: kernel.shared_bytes().saturating_add(launch.dynamic_shared),
            params,
            workspace,
            blocks,
            next: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            workers: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            fault: Mutex::new(None),
            kernel,
            launch,
            memory,
            console,
        };
        Grid { state }
    }

    /// Runs blocks until none is left to start; any number of threads may call it at once.
    /// Returns when this thread has nothing more to do.
    pub fn work(&self, scratch: &mut Scratch) {
        let state = &self.state;
        let worker = state.workers.fetch_add(1, Ordering::Relaxed);
        scratch.ranges.clear();
        scratch
            .ranges
            .resize(state.kernel.sites as usize, CachedRange::default());
        let patience = if state.launch.cooperative {
            1
        } else {
            PATIENCE
        };
        let mut residents = mem::take(&mut scratch.residents);
        let mut waited = 0;
        while !state.is_stopped() {
            let wants_more = residents.is_empty()
                || waited >= patience
                    && (state.launch.cooperative || residents.len() < RESIDENT_MAX);
            let mut started = None;
            if wants_more {
                waited = 0;
                if let Some(id) = state.next_block() {
                    match scratch.start(state, id, worker) {
                        Ok(block) => started = Some(block),
                        Err(fault) => {
                            state.fail(fault);
                            break;
                        }
                    }
                }
            }
            let Some(mut block) = started.or_else(|| residents.pop_front()) else {
                break;
            };
            match Runner::new(state, &mut block, &mut scratch.ranges).run() {
                Turn::Finished => {
                    state.finished.fetch_add(1, Ordering::Release);
                    scratch.spare.push(block);
                    waited = 0;
                }
                Turn::Waiting => {
                    waited += 1;
                    residents.push_back(block);
                    if (waited as usize).is_multiple_of(residents.len()) {
                        std::thread::yield_now();
                    }
                }
                Turn::Stopped => residents.push_back(block),
            }
        }
        scratch.spare.extend(residents.drain(..));
        scratch.residents = residents;
        scratch.trim();
    }

    /// Whether every block has ended, or the launch has failed or was cancelled.
    pub fn is_finished(&self) -> bool {
        let state = &self.state;
        state.finished.load(Ordering::Acquire) == state.blocks || state.is_stopped()
    }

    /// Why the launch failed, if it did.
    pub fn fault(&self) -> Option<Fault> {
        self.state
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the launch soon: threads in [`Grid::work`] return.
    pub fn cancel(&self) {
        if !self.is_finished() {
            self.state.fail(Fault::Cancelled);
        }
    }
}

/// What an OS thread keeps between launches: memory for blocks.
#[derive(Default)]
pub struct Scratch {
    spare: Vec<Block>,
    /// Blocks that are under way; empty between launches.
    residents: VecDeque<Block>,
    ranges: Vec<CachedRange>,
}

/// Spare blocks kept between launches.
const SPARE_MAX: usize = 4;

impl Scratch {
    /// An empty scratch.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    fn start(&mut self, state: &GridState, id: [u32; 3], worker: u32) -> Result<Block, Fault> {
        let mut block = self.spare.pop().unwrap_or_default();
        block.start(state, id, worker)?;
        Ok(block)
    }

    fn trim(&mut self) {
        self.spare.truncate(SPARE_MAX);
    }
}

// SAFETY: a block's pointers into its own buffers exist only while it runs.
unsafe impl Send for Scratch {}
