//! A kernel ready to run.

use super::inst::Inst;
use super::special::Special;

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// First byte within the parameters.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Bytes that the offset is a multiple of.
    pub align: u32,
}

/// What a slot or predicate holds before a block starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The same bits in every lane.
    Constant(u64),
    /// Bytes of the kernel's parameters, extended to the slot's width.
    Param {
        offset: u32,
        bytes: u32,
        signed: bool,
    },
    Special(Special),
}

/// How long a content lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For all launches of a kernel with blocks of one shape.
    Kernel,
    /// For one launch.
    Launch,
    /// For one block.
    Block,
}

impl Content {
    /// How long the content lasts.
    pub fn level(self) -> Level {
        match self {
            Content::Constant(_) => Level::Kernel,
            Content::Param { .. } => Level::Launch,
            Content::Special(special) => match special {
                Special::Ctaid(_) => Level::Block,
                Special::Nctaid(_)
                | Special::Multiprocessor
                | Special::Grid
                | Special::Environment(_)
                | Special::DynamicShared
                | Special::TotalShared => Level::Launch,
                _ => Level::Kernel,
            },
        }
    }
}

/// A slot that the scheduler fills.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    pub slot: u32,
    /// Two slots, 64-bit lanes.
    pub wide: bool,
    pub content: Content,
}

pub use crate::decode::{FrameSpan, Storage};

/// One function of a kernel; number 0 is the kernel itself.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// First instruction.
    pub start: u32,
    /// What the address of the function looks like in a register.
    pub address: u64,
    pub frame_bytes: u32,
    pub params: Vec<FrameSpan>,
    pub returns: Vec<FrameSpan>,
    /// Its registers, which a call saves if the function may be active already.
    pub storage: Storage,
    pub recursive: bool,
}

/// A call as the caller sees it: where in its frame arguments are and results go.
#[derive(Clone, Debug)]
pub struct CallSite {
    /// The function called, if it is always the same.
    pub callee: Option<u32>,
    pub params: Vec<FrameSpan>,
    pub returns: Vec<FrameSpan>,
}

/// A decoded kernel with the functions that it calls. Immutable; launches share it.
#[derive(Debug)]
pub struct Kernel {
    /// Different for every kernel of the process.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) isa_version: (u32, u32),
    pub(crate) code: Vec<Inst>,
    /// Slots to fill, by how long their contents last.
    pub(crate) pins: [Vec<Pin>; 3],
    /// Predicates that are true or false in every lane for good.
    pub(crate) truths: Vec<(u32, bool)>,
    pub(crate) slots: u32,
    pub(crate) predicates: u32,
    /// How many instructions cache a range of memory.
    pub(crate) sites: u32,
    pub(crate) functions: Vec<Function>,
    pub(crate) calls: Vec<CallSite>,
    pub(crate) tables: Vec<Vec<u32>>,
    pub(crate) params: Vec<Param>,
    pub(crate) shared_bytes: u32,
    pub(crate) const_bytes: u64,
    pub(crate) local_bytes: u32,
    pub(crate) max_threads: u32,
    /// `.reqntid`: the only block shape allowed.
    pub(crate) required_block: Option<[u32; 3]>,
    /// `.maxnreg`
    pub(crate) max_registers: Option<u32>,
}

impl Kernel {
    /// The kernel's name as the module declares it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of all parameters.
    pub fn param_bytes(&self) -> u32 {
        self.params.last().map_or(0, |last| last.offset + last.size)
    }

    /// Bytes of static shared memory of a block.
    pub fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    /// Bytes of the module's constant memory.
    pub fn const_bytes(&self) -> u64 {
        self.const_bytes
    }

    /// Bytes of local memory of a thread.
    pub fn local_bytes(&self) -> u32 {
        self.local_bytes
    }

    /// A register count to report: 32-bit registers that are live at once, 16 to 255, and no more
    /// than `.maxnreg` allows.
    pub fn registers(&self) -> u32 {
        let pinned: u32 = self
            .pins
            .iter()
            .flatten()
            .map(|pin| 1 + u32::from(pin.wide))
            .sum();
        let most = self.max_registers.unwrap_or(255).clamp(16, 255);
        self.slots.saturating_sub(pinned).clamp(16, most)
    }

    /// Most threads of a block: `.maxntid` or `.reqntid`, else 1024.
    pub fn max_threads(&self) -> u32 {
        self.max_threads
    }

    /// The only block shape that may be launched, where `.reqntid` demands one.
    pub fn required_block(&self) -> Option<[u32; 3]> {
        self.required_block
    }

    /// The `.version` of the kernel's module.
    pub fn isa_version(&self) -> (u32, u32) {
        self.isa_version
    }

    /// The function that the instruction `pc` belongs to.
    pub(crate) fn function_at(&self, pc: u32) -> &Function {
        let after = self
            .functions
            .partition_point(|function| function.start <= pc);
        &self.functions[after.saturating_sub(1)]
    }
}
