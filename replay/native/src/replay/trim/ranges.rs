//! Memory that kernels can reach, as the program has it at one point of a trace: what it has put there, and
//! what work of the device may have changed.
//!
//! A kernel reaches a range whose address it is given, or finds: in memory, where the program has put it (an
//! upload, or memory that both share) or an earlier kernel, which had to know it first. So a range that no
//! launch was given, and whose address was in no upload before a launch, has been reached by none.

use std::collections::{BTreeMap, BTreeSet};

use harp_wire::twin;

use super::super::relocation::{words, WORD};

/// Uploads to one range that are remembered; more of them are taken for work of the device.
const MOST_UPLOADS: usize = 1 << 12;

/// A handle, or an address, of a session.
pub type Of = (u32, u64);

/// A range of memory.
#[derive(Clone, Debug)]
pub struct Range {
    pub session: u32,
    pub device: u32,
    pub address: u64,
    pub bytes: u64,
    /// It is a variable of a module.
    pub variable: bool,
    /// Work of the device may have changed it.
    pub made: bool,
    /// Its address lies in something that the program has uploaded.
    pub told: bool,
    pub uploads: Vec<Upload>,
}

/// What the program has put into a range.
#[derive(Clone, Debug)]
pub struct Upload {
    address: u64,
    bytes: u64,
    pub call: u64,
    /// The ranges whose addresses are in it.
    leads_to: BTreeSet<Of>,
}

impl Range {
    /// One that nobody has used yet.
    pub fn new((session, address): Of, bytes: u64, device: u32) -> Range {
        Range {
            session,
            device,
            address,
            bytes,
            variable: false,
            made: false,
            told: false,
            uploads: Vec::new(),
        }
    }

    pub fn at(&self) -> Of {
        (self.session, self.address)
    }

    /// Whether both the program and kernels write there.
    pub fn is_shared(&self) -> bool {
        twin::REGION.contains(&self.address)
    }

    /// Whether all that is in it is what the program has uploaded.
    pub fn is_uploaded(&self) -> bool {
        !self.made && !self.is_shared()
    }
}

/// Which of `ranges` an address lies in.
pub fn holding(ranges: &BTreeMap<Of, Range>, session: u32, address: u64) -> Option<Of> {
    let (at, range) = ranges.range(..=(session, address)).next_back()?;
    (at.0 == session && address - at.1 < range.bytes).then_some(*at)
}

/// The ranges that are there.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    all: BTreeMap<Of, Range>,
    /// Those whose addresses have been uploaded since the last launch, by session.
    told: BTreeMap<u32, BTreeSet<Of>>,
    /// Sessions whose program has written to shared memory, any address, since the last launch.
    shared: BTreeSet<u32>,
}

impl Ranges {
    /// A range begins, in the place of what was there.
    pub fn begin(&mut self, range: Range) {
        self.all.insert(range.at(), range);
    }

    pub fn end(&mut self, at: Of) {
        self.all.remove(&at);
    }

    pub fn get(&self, at: Of) -> Option<&Range> {
        self.all.get(&at)
    }

    pub fn get_mut(&mut self, at: Of) -> Option<&mut Range> {
        self.all.get_mut(&at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.all.values()
    }

    /// The range that an address lies in.
    pub fn holding(&self, session: u32, address: u64) -> Option<Of> {
        holding(&self.all, session, address)
    }

    /// The ranges whose addresses are aligned words of `content`, which lies at `address`. Two numbers side by
    /// side that look like an address are taken for one.
    pub fn led_to(&self, session: u32, address: u64, content: &[u8]) -> BTreeSet<Of> {
        let of_session = (session, 0)..=(session, u64::MAX);
        let mut of_session = self.all.range(of_session).map(|(_, range)| range);
        let Some(first) = of_session.next() else {
            return BTreeSet::new();
        };
        let last = of_session.next_back().unwrap_or(first);
        let all = first.address..last.address.saturating_add(last.bytes);
        let mut found = BTreeSet::new();
        let skipped = (address.wrapping_neg() % WORD as u64) as usize;
        for word in words(content.get(skipped..).unwrap_or_default()) {
            if all.contains(&word) {
                found.extend(self.holding(session, word));
            }
        }
        found
    }

    /// The program puts `content` of `bytes` bytes to `address`; fills have none that is of interest.
    pub fn uploaded(&mut self, (session, address): Of, bytes: u64, call: u64, content: &[u8]) {
        let leads_to = self.led_to(session, address, content);
        for at in &leads_to {
            if let Some(range) = self.all.get_mut(at) {
                range.told = true;
            }
        }
        self.told.entry(session).or_default().extend(&leads_to);
        let at = self.holding(session, address);
        let Some(range) = at.and_then(|at| self.all.get_mut(&at)) else {
            return;
        };
        let uploads = &mut range.uploads;
        // What is written over is of no use any more.
        uploads.retain(|upload| (upload.address, upload.bytes) != (address, bytes));
        uploads.push(Upload {
            address,
            bytes,
            call,
            leads_to,
        });
        range.made |= uploads.len() > MOST_UPLOADS;
    }

    /// The program writes to memory that it shares with kernels.
    pub fn written(&mut self, session: u32) {
        self.shared.insert(session);
    }

    /// Work of the device, a kernel or not, is given these addresses.
    pub fn worked(&mut self, session: u32, addresses: &[u64], is_kernel: bool) {
        let given = addresses.iter();
        let mut reached: Vec<Of> = given
            .filter_map(|address| self.holding(session, *address))
            .collect();
        if is_kernel {
            reached.extend(self.told.remove(&session).unwrap_or_default());
        }
        if is_kernel && self.shared.remove(&session) {
            let of_session = (session, 0)..=(session, u64::MAX);
            reached.extend(self.all.range(of_session).map(|(at, _)| *at));
        }
        for at in reached {
            if let Some(range) = self.all.get_mut(&at) {
                range.made = true;
            }
        }
    }

    /// The range at `at`, and all that what was uploaded to it leads to, and so on, but for what `known` has.
    pub fn reached(&self, at: Of, known: impl Fn(Of) -> bool) -> BTreeMap<Of, Range> {
        let mut reached = BTreeMap::new();
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            if known(at) || reached.contains_key(&at) {
                continue;
            }
            if let Some(range) = self.all.get(&at) {
                open.extend(range.uploads.iter().flat_map(|upload| &upload.leads_to));
                reached.insert(at, range.clone());
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let mut ranges = Ranges::default();
        for address in [0x1000, 0x2000, 0x3000] {
            ranges.begin(Range::new((0, address), 0x100, 0));
        }
        ranges
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn words_lead_to_the_ranges_that_they_are_addresses_in() {
        let ranges = ranges();
        let found = |address, content: &[u8]| {
            let found = ranges.led_to(0, address, content).into_iter();
            found.map(|(_, address)| address).collect::<Vec<_>>()
        };
        let content = words(&[7, 0x20ff, 0x2100, 0x1000]);
        assert_eq!(found(0x1000, &content), [0x1000, 0x2000]);
        // Words are aligned where they lie.
        assert!(found(0x1004, &content).is_empty());
        assert_eq!(
            found(0x1004, &[&[0; 4], &content[..]].concat()),
            [0x1000, 0x2000]
        );
        assert!(ranges.led_to(1, 0, &content).is_empty());
    }

    #[test]
    fn what_uploads_lead_to_is_reached_and_changed_by_kernels_only_afterwards() {
        let mut ranges = ranges();
        ranges.worked(0, &[], true);
        ranges.uploaded((0, 0x1008), 8, 1, &words(&[0x2010]));
        ranges.uploaded((0, 0x2000), 8, 2, &words(&[0x3010]));
        assert!(ranges.iter().all(Range::is_uploaded));
        let reached = ranges.reached((0, 0x1000), |at| at.1 == 0x3000);
        assert_eq!(
            reached.into_keys().collect::<Vec<_>>(),
            [(0, 0x1000), (0, 0x2000)]
        );
        ranges.worked(0, &[0x1001], false);
        let made = |ranges: &Ranges| ranges.iter().map(|range| range.made).collect::<Vec<_>>();
        assert_eq!(made(&ranges), [true, false, false]);
        ranges.worked(1, &[], true);
        assert_eq!(made(&ranges), [true, false, false]);
        ranges.worked(0, &[], true);
        assert_eq!(made(&ranges), [true, true, true]);
    }

    #[test]
    fn shared_memory_may_lead_everywhere() {
        let mut ranges = ranges();
        ranges.begin(Range::new((0, twin::REGION.start), 0x1000, 0));
        ranges.written(0);
        assert_eq!(ranges.iter().filter(|range| range.is_uploaded()).count(), 3);
        ranges.worked(0, &[], true);
        assert_eq!(ranges.iter().filter(|range| range.made).count(), 4);
        ranges.begin(Range::new((0, 0x9000), 0x100, 0));
        ranges.worked(0, &[], true);
        assert!(ranges.get((0, 0x9000)).unwrap().is_uploaded());
    }
}
