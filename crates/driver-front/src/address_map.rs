//! What starts at which address, found by any address in it.

/// Entries of a part, at most. A lookup reads a few lines of the list of parts and a few of one part; an insertion
/// moves half a part.
const PART: usize = 64;
/// Neighbours with so many entries together become one part. Far below [`PART`]: who adds and takes away the same
/// entry again and again is not to split and join each time.
const JOINED: usize = PART / 2;

/// A map from start addresses that is asked for the last start at or below an address. `BTreeMap` answers by a
/// search for both ends of a range, through nodes of eleven entries, and splits and joins nodes where one entry comes
/// and goes.
#[derive(Clone, Debug)]
pub struct AddressMap<V> {
    /// The first start of each part.
    firsts: Vec<u64>,
    /// None is empty.
    parts: Vec<Part<V>>,
    /// The room of a part that has become empty, for the next.
    spare: Option<Part<V>>,
}

#[derive(Clone, Debug)]
struct Part<V> {
    starts: Vec<u64>,
    values: Vec<V>,
}

impl<V> Part<V> {
    fn new() -> Self {
        Self {
            starts: Vec::with_capacity(PART),
            values: Vec::with_capacity(PART),
        }
    }
}

/// Where an entry is: its part, and its place in it.
type Place = (usize, usize);

impl<V: PartialEq> PartialEq for AddressMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<V: Eq> Eq for AddressMap<V> {}

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> AddressMap<V> {
    pub const fn new() -> Self {
        Self {
            firsts: Vec::new(),
            parts: Vec::new(),
            spare: None,
        }
    }

    /// What starts at or below `address`, the highest such start.
    pub fn at_or_below(&self, address: u64) -> Option<(u64, &V)> {
        let (part, index) = self.place(address)?;
        let part = &self.parts[part];
        Some((part.starts[index], &part.values[index]))
    }

    /// As [`at_or_below`](Self::at_or_below).
    pub fn at_or_below_mut(&mut self, address: u64) -> Option<(u64, &mut V)> {
        let (part, index) = self.place(address)?;
        let part = &mut self.parts[part];
        Some((part.starts[index], &mut part.values[index]))
    }

    /// What starts at `start`.
    pub fn get(&self, start: u64) -> Option<&V> {
        self.at_or_below(start)
            .and_then(|(found, value)| (found == start).then_some(value))
    }

    /// What starts at `start`.
    pub fn get_mut(&mut self, start: u64) -> Option<&mut V> {
        self.at_or_below_mut(start)
            .and_then(|(found, value)| (found == start).then_some(value))
    }

    /// What starts below `end`, from the highest start down.
    pub fn below(&self, end: u64) -> impl Iterator<Item = (u64, &V)> {
        let last = end.checked_sub(1).and_then(|last| self.place(last));
        let (whole, begun) = match last {
            None => (&self.parts[..0], None),
            Some((part, index)) => (&self.parts[..part], Some((&self.parts[part], index + 1))),
        };
        let whole = whole.iter().rev().map(|part| (part, part.starts.len()));
        begun.into_iter().chain(whole).flat_map(|(part, len)| {
            let entries = part.starts[..len].iter().zip(&part.values[..len]);
            entries.rev().map(|(start, value)| (*start, value))
        })
    }

    /// All of it, from the lowest start up.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.parts.iter().flat_map(|part| {
            let entries = part.starts.iter().zip(&part.values);
            entries.map(|(start, value)| (*start, value))
        })
    }

    /// All of it, from the lowest start up.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| &part.values)
    }

    /// Adds what starts at `start`; what started there before.
    pub fn insert(&mut self, start: u64, value: V) -> Option<V> {
        let (mut part, mut index) = match self.place(start) {
            Some((part, index)) if self.parts[part].starts[index] == start => {
                let old = &mut self.parts[part].values[index];
                return Some(std::mem::replace(old, value));
            }
            Some((part, index)) => (part, index + 1),
            None => (0, 0),
        };
        if self.parts.is_empty() {
            self.add_part(0, start);
        } else if self.parts[part].starts.len() == PART {
            let is_end = index == PART && part + 1 == self.parts.len();
            // What comes in order leaves full parts behind.
            let kept = if is_end { PART } else { PART / 2 };
            self.split(part, kept, start);
            if index >= kept {
                (part, index) = (part + 1, index - kept);
            }
        }
        self.parts[part].starts.insert(index, start);
        self.parts[part].values.insert(index, value);
        if index == 0 {
            self.firsts[part] = start;
        }
        None
    }

    /// Takes away what starts at `start`.
    pub fn remove(&mut self, start: u64) -> Option<V> {
        self.remove_if(start, |_| true)
    }

    /// Takes away what starts at `start`, if it is such a value.
    pub fn remove_if(&mut self, start: u64, is_wanted: impl FnOnce(&V) -> bool) -> Option<V> {
        let (part, index) = self.place(start)?;
        let entries = &mut self.parts[part];
        if entries.starts[index] != start || !is_wanted(&entries.values[index]) {
            return None;
        }
        entries.starts.remove(index);
        let value = entries.values.remove(index);
        match entries.starts.first() {
            Some(first) => self.firsts[part] = *first,
            None => self.take_part(part),
        }
        self.join_with_next(part);
        if let Some(before) = part.checked_sub(1) {
            self.join_with_next(before);
        }
        Some(value)
    }

    /// Keeps what `stays`, asked from the lowest start up.
    pub fn retain(&mut self, mut stays: impl FnMut(u64, &V) -> bool) {
        for (start, value) in std::mem::take(self).into_entries() {
            if stays(start, &value) {
                self.insert(start, value);
            }
        }
    }

    fn into_entries(self) -> impl Iterator<Item = (u64, V)> {
        let parts = self.parts.into_iter();
        parts.flat_map(|part| part.starts.into_iter().zip(part.values))
    }

    /// Of the highest start at or below `address`.
    fn place(&self, address: u64) -> Option<Place> {
        let part = up_to(&self.firsts, address).checked_sub(1)?;
        Some((part, up_to(&self.parts[part].starts, address) - 1))
    }

    fn add_part(&mut self, at: usize, first: u64) {
        let part = self.spare.take().unwrap_or_else(Part::new);
        self.parts.insert(at, part);
        self.firsts.insert(at, first);
    }

    fn take_part(&mut self, at: usize) {
        self.firsts.remove(at);
        self.spare = Some(self.parts.remove(at));
    }

    /// Moves what a part has behind `kept` entries to one of its own, which begins with `first` where that is nothing.
    fn split(&mut self, part: usize, kept: usize, first: u64) {
        self.add_part(part + 1, first);
        let (low, high) = self.parts.split_at_mut(part + 1);
        let (low, high) = (&mut low[part], &mut high[0]);
        high.starts.extend(low.starts.drain(kept..));
        high.values.extend(low.values.drain(kept..));
        if let Some(first) = high.starts.first() {
            self.firsts[part + 1] = *first;
        }
    }

    fn join_with_next(&mut self, part: usize) {
        let Some([low, high]) = self.parts.get_mut(part..part + 2) else {
            return;
        };
        if low.starts.len() + high.starts.len() <= JOINED {
            low.starts.append(&mut high.starts);
            low.values.append(&mut high.values);
            self.take_part(part + 1);
        }
    }
}

/// How many of these starts, in order, are not above `address`. Without a branch that goes by what is compared, unlike
/// `partition_point`: of 10,000 entries one is found in 10 ns rather than 25.
fn up_to(starts: &[u64], address: u64) -> usize {
    let mut begin = 0;
    let mut rest = starts;
    while rest.len() > 1 {
        let half = rest.len() / 2;
        if rest[half] <= address {
            (begin, rest) = (begin + half, &rest[half..]);
        } else {
            rest = &rest[..rest.len() - half];
        }
    }
    begin + usize::from(rest.first().is_some_and(|start| *start <= address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A long deterministic sequence, beside a map that is known to be right.
    #[test]
    fn it_says_what_a_tree_says() {
        let mut map = AddressMap::new();
        let mut tree = BTreeMap::new();
        let mut seed = 1u64;
        for turn in 0..60_000u64 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // It fills, empties, and fills again.
            let adds = (seed >> 60) < if turn / 10_000 % 2 == 0 { 11 } else { 5 };
            let start = (seed >> 30) % 4096;
            if adds {
                assert_eq!(map.insert(start, turn), tree.insert(start, turn));
            } else {
                assert_eq!(map.remove(start), tree.remove(&start));
            }
            let asked = (seed >> 10) % 5000;
            let below = tree.range(..=asked).next_back();
            assert_eq!(map.at_or_below(asked), below.map(|(s, v)| (*s, v)));
            assert_eq!(map.get(asked), tree.get(&asked));
            if turn % 1000 == 0 {
                assert!(map.iter().eq(tree.iter().map(|(s, v)| (*s, v))));
                assert!(map.values().eq(tree.values()));
                let below = tree.range(..asked).rev();
                assert!(map.below(asked).eq(below.map(|(s, v)| (*s, v))));
                assert!(map.parts.iter().all(|part| !part.starts.is_empty()));
                assert_eq!(map.parts.len(), map.firsts.len());
            }
        }
        map.retain(|start, _| start % 3 == 0);
        tree.retain(|start, _| start % 3 == 0);
        assert!(!tree.is_empty() && map.iter().eq(tree.iter().map(|(s, v)| (*s, v))));
    }

    #[test]
    fn what_comes_in_order_fills_its_parts() {
        let mut map = AddressMap::new();
        (0..1000).for_each(|start| assert_eq!(map.insert(start, ()), None));
        assert_eq!(map.parts.len(), 1000_usize.div_ceil(PART));
        (0..1000).for_each(|start| assert_eq!(map.remove(start), Some(())));
        assert!(map.parts.is_empty() && map.firsts.is_empty());
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses() {
        let mut map = AddressMap::new();
        assert_eq!(map.at_or_below(u64::MAX), None);
        map.insert(0, 'a');
        map.insert(u64::MAX, 'z');
        assert_eq!(map.at_or_below(0), Some((0, &'a')));
        assert_eq!(map.at_or_below(u64::MAX - 1), Some((0, &'a')));
        assert_eq!(map.below(u64::MAX).count(), 1);
        assert_eq!(map.below(0).count(), 0);
        if let Some(value) = map.get_mut(u64::MAX) {
            *value = 'y';
        }
        assert_eq!(map.remove(u64::MAX), Some('y'));
    }
}
