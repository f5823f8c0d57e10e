//! Which kernel has most likely made what a copy brings: the last one that was given an address in that
//! memory, or else the last one of the stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use harp_trace::event::KernelName;

use super::relocation::words;

/// Addresses of one allocation that kernels are remembered by.
const MOST_ADDRESSES: usize = 1 << 12;

/// Memory that kernels write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An allocation of a device, by its number.
    Allocation(u64),
    /// What a session's kernels share with the program, by its first address.
    Twin(u32, u64),
}

/// A launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which call it is.
    pub call: u64,
    pub kernel: Arc<KernelName>,
}

/// The launches so far.
#[derive(Debug, Default)]
pub struct Kernels {
    of_stream: BTreeMap<(u32, u64), Launch>,
    of_session: BTreeMap<u32, Launch>,
    /// By memory and the address within it that the kernel was given.
    given: HashMap<Place, BTreeMap<u64, Launch>>,
}

impl Kernels {
    /// A kernel is launched with these parameters. `stream` is as in a call.
    pub fn launched(
        &mut self,
        (session, stream): (u32, u64),
        launch: &Launch,
        parameters: &[u8],
        place: impl Fn(u64) -> Option<Place>,
    ) {
        self.of_stream.insert((session, stream), launch.clone());
        self.of_session.insert(session, launch.clone());
        for address in words(parameters) {
            if let Some(place) = place(address) {
                let given = self.given.entry(place).or_default();
                if given.len() < MOST_ADDRESSES || given.contains_key(&address) {
                    given.insert(address, launch.clone());
                }
            }
        }
    }

    /// That memory is no more.
    pub fn freed(&mut self, place: Place) {
        self.given.remove(&place);
    }

    /// Who made the `bytes` bytes at `address`, within `place`, which a copy on `stream` (or a synchronous one) brings.
    pub fn maker(
        &self,
        (session, stream): (u32, Option<u64>),
        (address, bytes): (u64, u64),
        place: Option<Place>,
    ) -> Option<&Launch> {
        let given = place.and_then(|place| self.given.get(&place));
        let by_address = given.and_then(|given| {
            let within = given.range(address..address.saturating_add(bytes.max(1)));
            let before = given.range(..address).next_back();
            within
                .chain(before)
                .map(|(_, launch)| launch)
                .max_by_key(|launch| launch.call)
        });
        by_address
            .or_else(|| self.of_stream.get(&(session, stream?)))
            .or_else(|| self.of_session.get(&session))
    }
}
