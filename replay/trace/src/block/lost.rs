//! What is missing in a trace.

use super::Kind;

/// Why blocks are missing, as bits of [`Lost::reasons`].
pub mod loss {
    /// The ring was full.
    pub const NO_ROOM: u64 = 1;
    /// The disk was full.
    pub const DISK_FULL: u64 = 1 << 1;
    /// Writing failed otherwise.
    pub const DISK_FAILED: u64 = 1 << 2;
    /// Nobody took blocks out of the ring any more.
    pub const RECORDER_GONE: u64 = 1 << 3;
    /// The trace was as large as it may be.
    pub const SIZE_LIMIT: u64 = 1 << 4;
}

/// Blocks that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Bits of [`loss`].
    pub reasons: u64,
    pub blocks: u64,
    /// Of their bodies, and of contents that could not be kept.
    pub bytes: u64,
    pub kinds: Kinds,
}

impl Lost {
    /// One block of that type.
    pub fn block(number: u16, bytes: usize, reasons: u64) -> Lost {
        Lost {
            reasons,
            blocks: 1,
            bytes: bytes as u64,
            kinds: Kinds::of(number),
        }
    }

    pub fn add(&mut self, more: Lost) {
        self.reasons |= more.reasons;
        self.blocks = self.blocks.saturating_add(more.blocks);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.kinds.0 |= more.kinds.0;
    }

    pub fn is_nothing(&self) -> bool {
        self.blocks == 0 && self.reasons == 0
    }
}

/// A set of types of blocks: bit n is type n, and the last bit all from there on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub u64);

impl Kinds {
    /// Any may be among them: nobody has said.
    pub const UNKNOWN: Kinds = Kinds(u64::MAX);
    const LAST: u16 = 63;

    pub fn of(number: u16) -> Kinds {
        Kinds(1 << number.min(Kinds::LAST))
    }

    pub fn remove(&mut self, kinds: &[Kind]) {
        let all = kinds.iter().map(|kind| Kinds::of(*kind as u16).0);
        self.0 &= !all.fold(0, |all, bit| all | bit);
    }

    /// Whether there are none but these.
    pub fn are_among(self, kinds: &[Kind]) -> bool {
        let mut others = self;
        others.remove(kinds);
        others.0 == 0
    }

    /// What they are called in lines; nothing if that is not known.
    pub fn names(self) -> Vec<&'static str> {
        if self == Kinds::UNKNOWN {
            return Vec::new();
        }
        let known = (0..Kinds::LAST).filter(|number| self.0 & Kinds::of(*number).0 != 0);
        let mut names: Vec<_> = known
            .map(|number| Kind::from_number(number).map_or(Kinds::OTHER, Kind::name))
            .collect();
        if self.0 >> Kinds::LAST != 0 {
            names.push(Kinds::OTHER);
        }
        names.dedup();
        names
    }

    /// Types that this version does not know.
    const OTHER: &'static str = "other";
}
