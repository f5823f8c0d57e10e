//! Pieces of content that a server keeps for a tenant, so that what was uploaded once is not uploaded again.
//!
//! A payload (a module's image, bytes for a device) is cut into [pieces](PIECE) from its start on. Each has a
//! [`Name`], a keyed BLAKE3 hash of its content, and a [fingerprint](Key::fingerprint), a number that is cheap to
//! make: a client makes the name of what has a fingerprint that its server knows, and of nothing else.
//!
//! | half of a name | who says it | what for |
//! |---|---|---|
//! | [`check`](Name::check) | the server | that it has the very bytes that the client has |
//! | [`proof`](Name::proof) | the client | that it has the bytes, and not only heard of them |
//!
//! The key is the tenant's own and random, so that no hash that is published anywhere is a name.

pub mod channel;

/// Bytes of a piece; the last one of a payload may be shorter.
pub const PIECE: usize = 1 << 20;
/// Shorter images are sent as they are: a name takes about as much room.
pub const SHORTEST_IMAGE: usize = 256;
/// Payloads for a device that are shorter are sent as they are: there a fingerprint would cost a part of the copy.
pub const SHORTEST_PAYLOAD: usize = 256 << 10;
/// What is left of a payload behind its whole pieces is a piece from this length on.
pub const SHORTEST_REST: usize = 4 << 10;
/// Pieces that a server tells its client of when a session begins: those that were used last.
pub const MOST_LISTED: usize = 8192;
/// Pieces that a client may ask for at a time. The worker holds them in memory until the next time.
pub const MOST_FETCHED: usize = 32;
/// What the load of an image answers with if a piece that the client named is not there, so that the client sends all of
/// it and loads it again. No code of CUDA's.
pub const PIECES_MISSING: u32 = 0x4841_5250;
/// The option of a hello by which a client wants nothing kept and nothing named, if it is "off".
pub const OPTION: &str = "cache";

/// Contents up to this length are fingerprinted whole; of longer ones a line of every [`STRIDE`] bytes is looked at.
const LOOKED_AT_WHOLE: usize = 16 << 10;
const STRIDE: usize = 32 << 10;
const LINE: usize = 64;

/// What a tenant's pieces are named with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; Key::BYTES]);

/// Of a piece: the BLAKE3 hash of its content under the tenant's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub [u8; Name::BYTES]);

impl Key {
    pub const BYTES: usize = 32;

    /// The name of a content.
    pub fn name(&self, content: &[u8]) -> Name {
        Name(*blake3::keyed_hash(&self.0, content).as_bytes())
    }

    /// A number that equal contents have in common and different ones hardly: of a long content only a small part is
    /// looked at. About 1 us for a whole piece.
    pub fn fingerprint(&self, content: &[u8]) -> u64 {
        let mut state = self.half(0) ^ content.len() as u64;
        if content.len() <= LOOKED_AT_WHOLE {
            return finished(absorb(state, content));
        }
        for line in content.chunks(STRIDE) {
            state = absorb(state, &line[..line.len().min(LINE)]);
        }
        finished(absorb(state, &content[content.len() - LINE..]))
    }

    fn half(&self, index: usize) -> u64 {
        word(&self.0[8 * index..])
    }
}

impl Name {
    pub const BYTES: usize = 32;

    /// The half that a server says.
    pub fn check(&self) -> [u64; 2] {
        [word(&self.0), word(&self.0[8..])]
    }

    /// The half that a client has to know.
    pub fn proof(&self) -> [u64; 2] {
        [word(&self.0[16..]), word(&self.0[24..])]
    }

    /// The name with these halves.
    pub fn of(check: [u64; 2], proof: [u64; 2]) -> Name {
        let mut bytes = [0; Name::BYTES];
        for (place, word) in bytes.chunks_mut(8).zip(check.into_iter().chain(proof)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Name(bytes)
    }

    /// Whether someone who names this proof has the content. Takes as long for every wrong one.
    pub fn is_proved_by(&self, proof: [u64; 2]) -> bool {
        let own = self.proof();
        (own[0] ^ proof[0]) | (own[1] ^ proof[1]) == 0
    }
}

/// The first eight bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// Mixes bytes into a state.
fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 by the golden ratio
    let mut mix = |word: u64| {
        let product = u128::from(state ^ word) * u128::from(FACTOR);
        state = (product as u64 ^ (product >> 64) as u64).rotate_left(23);
    };
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    words.for_each(|bytes| mix(word(bytes)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
    }
    state
}

fn finished(state: u64) -> u64 {
    let state = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    state ^ (state >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([7; 32]);

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes)
            .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect()
    }

    #[test]
    fn a_name_is_of_the_content_and_of_the_tenant() {
        let name = KEY.name(b"content");
        assert_eq!(name, KEY.name(b"content"));
        assert_ne!(name, KEY.name(b"Content"));
        assert_ne!(name, Key([8; 32]).name(b"content"));
        assert_ne!(name.0, *blake3::hash(b"content").as_bytes());
    }

    #[test]
    fn halves_make_the_name_and_only_the_right_proof_proves() {
        let name = KEY.name(b"content");
        assert_eq!(Name::of(name.check(), name.proof()), name);
        assert!(name.is_proved_by(name.proof()));
        assert!(!name.is_proved_by(name.check()));
        let [first, second] = name.proof();
        assert!(!name.is_proved_by([first, second ^ 1]));
        assert!(!name.is_proved_by([first ^ 1 << 63, second]));
    }

    #[test]
    fn fingerprints_tell_contents_and_lengths_apart() {
        for bytes in [
            0,
            1,
            7,
            8,
            9,
            4096,
            LOOKED_AT_WHOLE,
            LOOKED_AT_WHOLE + 1,
            PIECE,
        ] {
            let whole = content(bytes);
            let print = KEY.fingerprint(&whole);
            assert_eq!(print, KEY.fingerprint(&whole.clone()));
            assert_ne!(print, Key([9; 32]).fingerprint(&whole));
            let mut longer = whole.clone();
            longer.push(0);
            assert_ne!(print, KEY.fingerprint(&longer), "{bytes} and one more");
            for place in [0, bytes.saturating_sub(1)] {
                if bytes > 0 {
                    let mut other = whole.clone();
                    other[place] ^= 1;
                    assert_ne!(print, KEY.fingerprint(&other), "{bytes} bytes, {place}");
                }
            }
        }
    }
}
