//! The intermediate form between text and [`Inst`](crate::exec::inst::Inst): instructions over an
//! unbounded set of virtual registers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::fuse::Step;
use crate::exec::inst::{Action, Flags};
use crate::exec::special::Special;

/// What a register's lanes are made of, which decides its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// One bit a lane, in a predicate mask.
    Predicate,
    /// One slot: registers of up to 32 bits.
    Word,
    /// Two slots: registers of 64 bits.
    Double,
}

impl Width {
    /// The width of a register declared with a type of `bytes` (0: a predicate).
    pub fn of_bytes(bytes: u32) -> Option<Width> {
        match bytes {
            0 => Some(Width::Predicate),
            1..=4 => Some(Width::Word),
            8 => Some(Width::Double),
            _ => None,
        }
    }
}

/// A virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

impl Reg {
    /// No register.
    pub const NONE: Reg = Reg(u32::MAX);

    /// Whether this is a register at all.
    pub fn exists(self) -> bool {
        self != Reg::NONE
    }
}

/// A map from registers. Their numbers are ours and come one after the other, so that hashing them
/// can be as cheap as it gets.
pub type RegMap<V> = HashMap<Reg, V, BuildHasherDefault<RegHasher>>;

/// See [`RegMap`].
#[derive(Default)]
pub struct RegHasher(u64);

impl Hasher for RegHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32 // the map uses high bits and low ones
    }
}

/// A value that no instruction writes: the scheduler fills it in before a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pinned {
    /// The same bits in every lane.
    Constant(u64),
    /// The same truth in every lane.
    Truth(bool),
    /// Bytes of the kernel's parameters, sign-extended if `signed`.
    Param {
        offset: u32,
        bytes: u32,
        signed: bool,
    },
    /// A special register.
    Special(Special),
    /// Where dynamic shared memory starts; becomes a constant when everything is decoded.
    DynamicShared,
}

/// Every register of a kernel and its functions.
#[derive(Default)]
pub struct Registers {
    widths: Vec<Width>,
    pinned: HashMap<(Pinned, Width), Reg>,
    pins: RegMap<Pinned>,
}

impl Registers {
    /// A register of its own.
    pub fn create(&mut self, width: Width) -> Reg {
        self.widths.push(width);
        Reg(self.widths.len() as u32 - 1)
    }

    /// The register that always holds `value`.
    pub fn pin(&mut self, value: Pinned, width: Width) -> Reg {
        if let Some(&reg) = self.pinned.get(&(value, width)) {
            return reg;
        }
        let reg = self.create(width);
        self.pinned.insert((value, width), reg);
        self.pins.insert(reg, value);
        reg
    }

    /// The register that holds `bits` in every lane.
    pub fn constant(&mut self, bits: u64, width: Width) -> Reg {
        match width {
            Width::Predicate => self.pin(Pinned::Truth(bits != 0), width),
            Width::Word => self.pin(Pinned::Constant(bits & 0xffff_ffff), width),
            Width::Double => self.pin(Pinned::Constant(bits), width),
        }
    }

    /// Replaces the value of pinned registers.
    pub fn settle(&mut self, from: Pinned, to: Pinned) {
        for value in self.pins.values_mut().filter(|value| **value == from) {
            *value = to;
        }
    }

    pub fn width(&self, reg: Reg) -> Width {
        self.widths[reg.0 as usize]
    }

    /// What `reg` is pinned to, if it is.
    pub fn pinned(&self, reg: Reg) -> Option<Pinned> {
        self.pins.get(&reg).copied()
    }
}

/// Indices into [`Draft::regs`], in the order of `Operands`.
pub mod field {
    pub const D: usize = 0;
    pub const D2: usize = 1;
    pub const A: usize = 2;
    pub const B: usize = 3;
    pub const C: usize = 4;
    pub const E: usize = 5;
}

/// What is known about a value, for copy propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Nothing.
    No,
    /// `d = a`
    Copy,
    /// `d = a + imm`, 64 bits
    Add,
}

/// What must be equal, besides the base register, for two accesses to be of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunKey {
    pub shared: bool,
    /// Bytes of the element.
    pub bytes: u32,
}

/// One instruction before registers have slots and labels have addresses.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What to do; branch targets in it are label numbers.
    pub action: Action,
    /// The lanes that do it: all, or those where a predicate holds (`false`) or fails (`true`).
    pub guard: Option<(Reg, bool)>,
    pub regs: [Reg; 6],
    /// Bit `1 << field` for each register that is written.
    pub defs: u8,
    pub imm: i64,
    pub fold: Fold,
    /// Half of what a product and a sum become, see `fuse`.
    pub step: Option<Step>,
    /// For a load or store whose addresses may serve those after it.
    pub access: Option<RunKey>,
    /// Meaning depends on the action: a cached range, call site or branch table.
    pub site: u32,
    pub flags: Flags,
    pub line: u32,
}

impl Draft {
    /// An instruction without operands.
    pub fn new(action: Action, line: u32) -> Draft {
        let (regs, flags) = ([Reg::NONE; 6], Flags::default());
        let (guard, fold, access) = (None, Fold::No, None);
        Draft {
            action,
            guard,
            regs,
            defs: 0,
            imm: 0,
            fold,
            step: None,
            access,
            site: 0,
            flags,
            line,
        }
    }

    /// Sets a register that the instruction writes.
    pub fn def(mut self, field: usize, reg: Reg) -> Draft {
        self.regs[field] = reg;
        self.defs |= 1 << field;
        self
    }

    /// Sets a register that the instruction reads.
    pub fn arg(mut self, field: usize, reg: Reg) -> Draft {
        self.regs[field] = reg;
        self
    }

    /// Sets the displacement or literal.
    pub fn imm(mut self, imm: i64) -> Draft {
        self.imm = imm;
        self
    }

    /// Says what copy propagation may do with it.
    pub fn fold(mut self, fold: Fold) -> Draft {
        self.fold = fold;
        self
    }

    /// Says which half of a fused operation it may become.
    pub fn step(mut self, step: Option<Step>) -> Draft {
        self.step = step;
        self
    }

    /// Sets the instruction's site.
    pub fn site(mut self, site: u32) -> Draft {
        self.site = site;
        self
    }

    /// Registers written.
    pub fn written(&self) -> impl Iterator<Item = Reg> + '_ {
        self.fields(true)
    }

    /// Registers read, the guard included.
    pub fn read(&self) -> impl Iterator<Item = Reg> + '_ {
        self.fields(false).chain(self.guard.map(|(reg, _)| reg))
    }

    fn fields(&self, written: bool) -> impl Iterator<Item = Reg> + '_ {
        let chosen = move |&(index, reg): &(usize, Reg)| {
            reg.exists() && (self.defs >> index & 1 == 1) == written
        };
        self.regs
            .iter()
            .copied()
            .enumerate()
            .filter(chosen)
            .map(|(_, reg)| reg)
    }
}
