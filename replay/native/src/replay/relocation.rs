//! Where memory of the recording lies in the replay.
//!
//! As a rule at the same addresses, for the session asks for the recorded windows. Where the server chose
//! others, every address within a recorded range is replaced on its way: those that a call is about, and the
//! words of kernel parameters and of snapshots that look like one. Those of uploads are left as they are, and
//! counted, unless they are asked for.

use std::collections::BTreeMap;

use harp_trace::event::{Field, Type};
use serde_json::{json, Value};

/// Bytes of an address; those that lie in memory are aligned to it.
pub const WORD: usize = 8;

/// The words that bytes are, any of which may be an address.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(WORD).map(word)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// A recorded range.
#[derive(Clone, Copy, Debug)]
struct Range {
    bytes: u64,
    /// Where it begins now.
    now: u64,
}

/// What was relocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relocated {
    /// Ranges that lie elsewhere than in the recording.
    pub addresses: u64,
    /// Arguments that were replaced.
    pub arguments: u64,
    /// Words of kernel parameters that were.
    pub words: u64,
    /// Words of snapshots that were.
    pub in_snapshots: u64,
    /// Words of uploads that were.
    pub in_uploads: u64,
    /// Words of uploads that look like a relocated address, and were left as they are.
    pub left_in_data: u64,
}

impl Relocated {
    pub fn add(&mut self, other: &Relocated) {
        self.addresses += other.addresses;
        self.arguments += other.arguments;
        self.words += other.words;
        self.in_snapshots += other.in_snapshots;
        self.in_uploads += other.in_uploads;
        self.left_in_data += other.left_in_data;
    }

    pub fn json(&self) -> Value {
        json!({
            "addresses": self.addresses,
            "arguments": self.arguments,
            "words": self.words,
            "in_snapshots": self.in_snapshots,
            "in_uploads": self.in_uploads,
            "left_in_data": self.left_in_data,
        })
    }
}

/// The device memory of a session.
#[derive(Debug, Default)]
pub struct Addresses {
    /// By the recorded first address. None overlaps another, neither then nor now.
    ranges: BTreeMap<u64, Range>,
    /// The recorded first addresses, by those of now.
    recorded: BTreeMap<u64, u64>,
    /// How many of them have moved.
    moved: usize,
    pub relocated: Relocated,
}

impl Addresses {
    /// A range that began at `recorded` begins at `now`.
    pub fn learn(&mut self, recorded: u64, bytes: u64, now: u64) {
        let ends = recorded.checked_add(bytes).zip(now.checked_add(bytes));
        let Some((end, end_now)) = ends.filter(|_| bytes > 0) else {
            return;
        };
        // What was there before has been freed: in the recording, and so in the replay.
        while let Some((base, range)) = self.ranges.range(..end).next_back() {
            if base + range.bytes <= recorded {
                break;
            }
            self.forget(*base);
        }
        while let Some((base_now, base)) = self.recorded.range(..end_now).next_back() {
            if base_now + self.ranges[base].bytes <= now {
                break;
            }
            self.forget(*base);
        }
        self.ranges.insert(recorded, Range { bytes, now });
        self.recorded.insert(now, recorded);
        if recorded != now {
            self.moved += 1;
            self.relocated.addresses += 1;
        }
    }

    fn forget(&mut self, base: u64) {
        if let Some(range) = self.ranges.remove(&base) {
            self.recorded.remove(&range.now);
            self.moved -= usize::from(range.now != base);
        }
    }

    /// Whether any address is another than it was.
    pub fn have_moved(&self) -> bool {
        self.moved > 0
    }

    /// Where the byte at a recorded address is, if that is elsewhere.
    fn moved(&self, recorded: u64) -> Option<u64> {
        let (base, range) = self.ranges.range(..=recorded).next_back()?;
        let offset = recorded - base;
        (offset < range.bytes && range.now != *base).then(|| range.now.wrapping_add(offset))
    }

    /// Where the byte at a recorded address is.
    pub fn now(&self, recorded: u64) -> u64 {
        self.moved(recorded).unwrap_or(recorded)
    }

    /// Replaces the addresses in the arguments of a call. Of one that `launches`, the run of bytes called
    /// `params` are parameters, which lie there as `layout` says, if that is known.
    pub fn rewrite(
        &mut self,
        fields: &[Field],
        arguments: &mut [u8],
        launches: bool,
        layout: Option<&[(u32, u32)]>,
    ) {
        let mut at = 0;
        for field in fields {
            let rest = arguments.get(at..).unwrap_or_default();
            let Some(bytes) = extent(&field.kind, rest) else {
                return;
            };
            let end = at.saturating_add(bytes);
            let end_here = end.min(arguments.len());
            let here = arguments.get_mut(at..end_here).unwrap_or_default();
            match field.kind {
                Type::DevicePointer => {
                    self.relocated.arguments += self.replace(here);
                }
                // The length comes first.
                Type::Bytes if launches && &*field.name == "params" => {
                    let parameters = here.get_mut(8..).unwrap_or_default();
                    let all = [(0, parameters.len() as u32)];
                    for (offset, size) in layout.unwrap_or(&all) {
                        let start = *offset as usize;
                        let end = start.saturating_add(*size as usize);
                        let words = parameters.get_mut(start..end).unwrap_or_default();
                        self.relocated.words += self.replace(words);
                    }
                }
                _ => {}
            }
            at = end;
        }
    }

    /// Replaces the words that are an address, and says how many they are.
    pub fn replace(&self, words: &mut [u8]) -> u64 {
        let mut replaced = 0;
        for place in words.chunks_exact_mut(WORD) {
            if let Some(now) = self.moved(word(place)) {
                place.copy_from_slice(&now.to_le_bytes());
                replaced += 1;
            }
        }
        replaced
    }

    /// Replaces addresses of now by the recorded ones: [`replace`](Addresses::replace), the other way round.
    pub fn put_back(&self, words: &mut [u8]) {
        for place in words.chunks_exact_mut(WORD) {
            let address = word(place);
            if let Some((now, base)) = self.recorded.range(..=address).next_back() {
                let offset = address - now;
                if offset < self.ranges[base].bytes {
                    place.copy_from_slice(&(base + offset).to_le_bytes());
                }
            }
        }
    }

    /// Replaces the words of an upload that look like a relocated address, if they `are_meant`; else counts them.
    pub fn upload(&mut self, data: &mut [u8], are_meant: bool) {
        if are_meant {
            self.relocated.in_uploads += self.replace(data);
            return;
        }
        let addresses = words(data).filter(|word| self.moved(*word).is_some());
        self.relocated.left_in_data += addresses.count() as u64;
    }
}

/// The bytes that a value takes of those at the beginning of `rest`; `None` where they are not such a value.
fn extent(kind: &Type, rest: &[u8]) -> Option<usize> {
    let count = |bytes: usize| {
        let word = rest.get(..bytes)?;
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(word);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    };
    let bytes = match kind {
        Type::Unsigned(bytes) | Type::Signed(bytes) => *bytes,
        Type::Float => 4,
        Type::DevicePointer | Type::Stream { .. } | Type::Handle { .. } => 8,
        // A payload at the end may have been cut out: it is longer than what is there.
        Type::Bytes => count(8)?.checked_add(8)?,
        Type::Text => count(4)?.checked_add(4)?,
        Type::Array(item, count) => fixed(item)?.checked_mul(*count)?,
        Type::List(item) => fixed(item)?.checked_mul(count(4)?)?.checked_add(4)?,
        Type::FunctionInfo | Type::Unknown(_) => return None,
    };
    Some(bytes)
}

fn fixed(kind: &Type) -> Option<usize> {
    match kind {
        Type::Bytes | Type::Text | Type::List(_) | Type::FunctionInfo | Type::Unknown(_) => None,
        kind => extent(kind, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_takes_the_place_of_others_ends_them() {
        let mut addresses = Addresses::default();
        addresses.learn(0x1000, 0x100, 0x1000);
        assert!(!addresses.have_moved());
        addresses.learn(0x2000, 0x100, 0x9000);
        addresses.learn(0x2100, 0x100, 0x8000);
        assert_eq!(addresses.now(0x20ff), 0x90ff);
        assert_eq!(addresses.now(0x2100), 0x8000);
        assert_eq!(addresses.now(0x2200), 0x2200, "one past the end");
        assert_eq!(addresses.now(0x1010), 0x1010);
        addresses.learn(0x2080, 0x100, 0x2080);
        assert_eq!(addresses.now(0x2000), 0x2000);
        assert_eq!(addresses.now(0x2100), 0x2100);
        assert!(!addresses.have_moved());
        assert_eq!(addresses.relocated.addresses, 2);
        for (recorded, bytes, now) in [(u64::MAX, 2, 0), (0, 2, u64::MAX), (0x3000, 0, 0x7000)] {
            addresses.learn(recorded, bytes, now);
            assert_eq!(addresses.now(recorded), recorded);
        }
        // Now it lies where another one lay, which has been freed since.
        addresses.learn(0x4000, 0x100, 0x7000);
        addresses.learn(0x5000, 0x10, 0x70f0);
        assert_eq!(addresses.now(0x4000), 0x4000);
        let mut words = 0x70f8u64.to_le_bytes();
        addresses.put_back(&mut words);
        assert_eq!(u64::from_le_bytes(words), 0x5008);
    }

    #[test]
    fn arguments_and_words_of_parameters_are_replaced_and_data_is_not() {
        let mut addresses = Addresses::default();
        addresses.learn(0x2000, 0x100, 0x9000);
        let field = |name: &str, kind| Field {
            name: name.into(),
            kind,
        };
        let fields = [
            field("list", Type::List(Box::new(Type::Unsigned(4)))),
            field("dst", Type::DevicePointer),
            field("params", Type::Bytes),
        ];
        let arguments = |pointer: u64, first: u64| {
            let mut bytes = vec![1, 0, 0, 0, 0, 0x20, 0, 0];
            bytes.extend(pointer.to_le_bytes());
            bytes.extend(20u64.to_le_bytes());
            bytes.extend(first.to_le_bytes());
            bytes.extend(7u64.to_le_bytes());
            bytes.extend([0, 0x20, 0, 0]);
            bytes
        };
        let mut bytes = arguments(0x2010, 0x20ff);
        addresses.rewrite(&fields, &mut bytes, true, None);
        assert_eq!(bytes, arguments(0x9010, 0x90ff));
        let mut bytes = arguments(0x2010, 0x20ff);
        addresses.rewrite(&fields, &mut bytes, false, None);
        assert_eq!(bytes, arguments(0x9010, 0x20ff));
        let counted = addresses.relocated;
        assert_eq!((counted.arguments, counted.words), (2, 1));
        let mut data = arguments(0x2010, 0x20ff);
        addresses.upload(&mut data, false);
        assert_eq!(data, arguments(0x2010, 0x20ff));
        addresses.upload(&mut data, true);
        assert_eq!(data, arguments(0x9010, 0x90ff));
        let counted = addresses.relocated;
        assert_eq!((counted.left_in_data, counted.in_uploads), (2, 2));
        // Two numbers of four bytes each are no address, whatever they are together.
        let mut bytes = arguments(0x2010, 0x20ff);
        addresses.rewrite(&fields, &mut bytes, true, Some(&[(0, 4), (4, 4), (8, 12)]));
        assert_eq!(bytes, arguments(0x9010, 0x20ff));
        addresses.rewrite(&fields, &mut bytes, true, Some(&[(0, 8), (90, 8)]));
        assert_eq!(bytes, arguments(0x9010, 0x90ff));
        // What was replaced can be put back; what lies in no range stays.
        let recorded = [7u64, 0x2000, 0x20ff, 0x2100]
            .map(u64::to_le_bytes)
            .concat();
        let mut words = recorded.clone();
        assert_eq!(addresses.replace(&mut words), 2);
        addresses.put_back(&mut words);
        assert_eq!(words, recorded);
        // Arguments that are cut short are left to who takes them.
        addresses.rewrite(&fields, &mut bytes[..6], true, None);
        addresses.rewrite(&fields, &mut bytes[..20], true, None);
    }
}
