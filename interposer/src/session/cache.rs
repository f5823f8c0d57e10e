//! What the server has already: pieces of content that are named in place of being sent.
//!
//! The welcome brought the fingerprints of the tenant's pieces. Of an image each piece whose fingerprint is among them
//! is named, and the load that follows says if the server has it not. A copy to a device has no answer, so there the
//! server is asked first: it reads the pieces and holds them, and from then on a copy from them is as good as one of
//! the program's bytes. Copies that go to a place for the second time are sent without a look: what comes again
//! is written once, as a model's weights are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_content::{
    Key, Name, MOST_FETCHED, PIECE, SHORTEST_IMAGE, SHORTEST_PAYLOAD, SHORTEST_REST,
};
use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{CallId, Decoder};

use super::Session;

/// Fingerprints and places that a process remembers of a session.
const MOST_REMEMBERED: usize = 1 << 16;
/// Pieces that are fetched beyond those of the payload at hand, as long as what comes is not what came next the last time.
const AHEAD: usize = 4;

#[derive(Default)]
pub struct Cache {
    /// None where the server keeps nothing, or the program wants nothing kept.
    key: Option<Key>,
    index: Mutex<Index>,
    fetched: Mutex<Fetched>,
    /// Bytes that were not sent.
    spared: AtomicU64,
}

#[derive(Default)]
struct Index {
    pieces: HashMap<u64, Known>,
    /// How many pieces the server has told of.
    listed: u32,
    /// Where pieces of payloads were copied to.
    written: HashSet<u64>,
}

/// What is known of contents with a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The server's number for one.
    Listed(u32),
    /// Sent in this session; the server may have kept it since.
    Sent,
    /// Sent in this session, and not kept when the server was asked.
    NotKept,
}

/// What the server holds ready.
#[derive(Default)]
struct Fetched {
    /// By number; zeros where it has not the piece.
    checks: HashMap<u32, [u64; 2]>,
    /// The number after the last one, and how far to fetch ahead from there.
    next: u32,
    ahead: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Index {
    /// Takes in the fingerprints of further pieces.
    fn add(&mut self, fingerprints: &[u8]) {
        for bytes in fingerprints.chunks_exact(8) {
            let fingerprint = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            if self.pieces.len() < MOST_REMEMBERED {
                self.pieces.insert(fingerprint, Known::Listed(self.listed));
            }
            self.listed = self.listed.saturating_add(1);
        }
    }

    /// A content with that fingerprint is sent.
    fn sent(&mut self, fingerprint: u64) {
        if self.pieces.len() < MOST_REMEMBERED {
            self.pieces.entry(fingerprint).or_insert(Known::Sent);
        }
    }
}

impl Cache {
    /// What a welcome says of the server's cache.
    pub fn new(welcome: &[u8]) -> Cache {
        let Some((key, fingerprints)) = welcome.split_first_chunk::<{ Key::BYTES }>() else {
            return Cache::default();
        };
        let mut index = Index::default();
        index.add(fingerprints);
        Cache {
            key: Some(Key(*key)),
            index: Mutex::new(index),
            ..Cache::default()
        }
    }

    /// Bytes that were named in place of being sent.
    pub fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    fn spare(&self, bytes: usize) {
        self.spared.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Session {
    /// Sends `piece` as the next one of an image, or its name in place of it. Says whether it was named.
    ///
    /// # Errors
    /// As [`one_way`](Session::one_way).
    pub fn append_to_blob(
        &self,
        blob: u64,
        piece: &[u8],
        may_name: bool,
    ) -> Result<bool, CUresult> {
        if may_name {
            if let Some((number, name)) = self.named(piece)? {
                done(self.one_way(CallId::harp_blob_append_cached, |e| {
                    encode_harp_blob_append_cached(e, blob, number, name.check(), name.proof());
                }))?;
                self.cache.spare(piece.len());
                return Ok(true);
            }
        }
        done(self.one_way_bytes(
            CallId::harp_blob_append,
            |e| encode_harp_blob_append(e, blob),
            piece,
        ))?;
        Ok(false)
    }

    /// The number and the name of a piece that the server may have.
    fn named(&self, piece: &[u8]) -> Result<Option<(u32, Name)>, CUresult> {
        let Some(key) = self.cache.key.filter(|_| piece.len() >= SHORTEST_IMAGE) else {
            return Ok(None);
        };
        let number = self.number_of(key.fingerprint(piece), &mut false)?;
        Ok(number.map(|number| (number, key.name(piece))))
    }

    /// The server's number for a piece with that fingerprint. If it has none, the piece counts as sent. The server is
    /// asked what it has kept since only if it has not `asked` been for the same payload.
    fn number_of(&self, fingerprint: u64, asked: &mut bool) -> Result<Option<u32>, CUresult> {
        let known = lock(&self.cache.index).pieces.get(&fingerprint).copied();
        match known {
            Some(Known::Listed(number)) => return Ok(Some(number)),
            Some(Known::NotKept) => return Ok(None),
            None => {
                lock(&self.cache.index).sent(fingerprint);
                return Ok(None);
            }
            Some(Known::Sent) => {}
        }
        if !std::mem::replace(asked, true) {
            self.list_again()?;
        }
        let mut index = lock(&self.cache.index);
        Ok(match index.pieces.get(&fingerprint) {
            Some(Known::Listed(number)) => Some(*number),
            _ => {
                index.pieces.insert(fingerprint, Known::NotKept);
                None
            }
        })
    }

    /// Asks what the server has kept since it was asked last.
    fn list_again(&self) -> Result<(), CUresult> {
        let known = lock(&self.cache.index).listed;
        let mut new = Vec::new();
        done(self.request(
            CallId::harp_cache_list,
            |e| encode_harp_cache_list(e, known),
            |d| new = HarpCacheListReply::read(d).fingerprints.to_vec(),
        ))?;
        let mut index = lock(&self.cache.index);
        // Unless another thread has asked meanwhile.
        if index.listed == known {
            index.add(&new);
        }
        Ok(())
    }

    /// What the server may have of `source`, which goes to a device. None for most payloads.
    ///
    /// # Errors
    /// As [`request`](Session::request).
    pub fn known_parts<'a>(
        &'a self,
        destination: CUdeviceptr,
        source: &'a [u8],
    ) -> Result<Option<Parts<'a>>, CUresult> {
        let Some(key) = self.cache.key.filter(|_| source.len() >= SHORTEST_PAYLOAD) else {
            return Ok(None);
        };
        let is_first = {
            let mut index = lock(&self.cache.index);
            index.written.len() < MOST_REMEMBERED && index.written.insert(destination)
        };
        if !is_first {
            return Ok(None);
        }
        let mut asked = false;
        let number = |piece: &[u8]| match piece.len() < SHORTEST_REST {
            true => Ok(None),
            false => self.number_of(key.fingerprint(piece), &mut asked),
        };
        let numbers: Result<Vec<_>, CUresult> = source.chunks(PIECE).map(number).collect();
        let numbers = numbers?;
        if numbers.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Parts {
            session: self,
            key,
            names: vec![None; numbers.len()],
            numbers,
            source,
            fetched: lock(&self.cache.fetched),
        }))
    }
}

/// A payload of which the server may have parts. No other thread has the server fetch anything meanwhile.
pub struct Parts<'a> {
    session: &'a Session,
    key: Key,
    source: &'a [u8],
    /// Of each piece: the server's number, and its name once it was wanted.
    numbers: Vec<Option<u32>>,
    names: Vec<Option<Name>>,
    fetched: MutexGuard<'a, Fetched>,
}

impl Parts<'_> {
    /// Copies the piece of that index to `destination` from what the server has. False where it has not, and the bytes
    /// are to be sent.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn copy(
        &mut self,
        index: usize,
        destination: CUdeviceptr,
        stream: u64,
    ) -> Result<bool, CUresult> {
        let Some(number) = self.numbers[index] else {
            return Ok(false);
        };
        if !self.fetched.checks.contains_key(&number) {
            self.fetch(index, number)?;
        }
        let name = self.name(index);
        if self.fetched.checks.get(&number) != Some(&name.check()) {
            return Ok(false);
        }
        done(self.session.one_way(CallId::harp_copy_cached, |e| {
            encode_harp_copy_cached(e, destination, stream, number, name.proof());
        }))?;
        self.session.cache.spare(self.piece(index).len());
        Ok(true)
    }

    fn piece(&self, index: usize) -> &[u8] {
        let rest = &self.source[index * PIECE..];
        &rest[..rest.len().min(PIECE)]
    }

    fn name(&mut self, index: usize) -> Name {
        let made = self.names[index].unwrap_or_else(|| self.key.name(self.piece(index)));
        self.names[index] = Some(made);
        made
    }

    /// Has the server fetch the piece of that index and those that are likely to be wanted next: of this payload, and
    /// those that came after it the last time.
    fn fetch(&mut self, index: usize, number: u32) -> Result<(), CUresult> {
        let fetched = &mut *self.fetched;
        let went_on = number == fetched.next;
        fetched.ahead = if went_on { 2 * fetched.ahead } else { AHEAD }.clamp(AHEAD, MOST_FETCHED);
        let mut wanted: Vec<u32> = Vec::with_capacity(MOST_FETCHED);
        let mut own = index;
        while own < self.numbers.len() && wanted.len() < MOST_FETCHED {
            let number = self.numbers[own].filter(|number| !wanted.contains(number));
            wanted.extend(number);
            own += 1;
        }
        let listed = lock(&self.session.cache.index).listed;
        let after = wanted.last().map_or(listed, |last| last + 1);
        let room = fetched.ahead.min(MOST_FETCHED - wanted.len()) as u32;
        let ahead = (after..listed.min(after.saturating_add(room)))
            .filter(|number| !wanted.contains(number))
            .collect::<Vec<_>>();
        wanted.extend(ahead);
        fetched.next = wanted.last().map_or(0, |last| last + 1);
        fetched.checks.clear();

        let encode = |e: &mut harp_wire::Encoder| encode_harp_cache_fetch(e, &wanted);
        let ticket = self.session.ask(CallId::harp_cache_fetch, encode, None)?;
        // The server reads and names its copies meanwhile.
        for index in index..own {
            self.name(index);
        }
        let reply = self.session.wait(ticket)?;
        done(reply.status)?;
        done(reply.deferred)?;
        let mut decoder = Decoder::new(&reply.body);
        let checks = HarpCacheFetchReply::read(&mut decoder).checks;
        let halves = checks.chunks_exact(16).map(|half| {
            let word = |at: usize| u64::from_le_bytes(half[at..at + 8].try_into().expect("eight"));
            [word(0), word(8)]
        });
        self.fetched.checks = wanted.into_iter().zip(halves).collect();
        Ok(())
    }
}

fn done(status: CUresult) -> Result<(), CUresult> {
    match status {
        CUDA_SUCCESS => Ok(()),
        code => Err(code),
    }
}
