//! The handles that a program holds: typed, client-chosen, checked before anything is sent.
//!
//! A handle's value is its wire id: `kind << 56 | session << 50 | generation << 32 | index << 4`.
//! `session` says which of the process's sessions it belongs to, so that a call finds its way by any
//! handle. `index` names a record in an append-only table (so a look-up never locks), `generation`
//! makes a reused record a different handle, so that a stale one is refused as CUDA refuses it. The
//! low bits are zero as those of a driver's pointers are: programs keep marks of their own in them
//! (PyTorch does).

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::*;
use harp_wire::HandleKind;

const CHUNK: usize = 1024;
const CHUNKS: usize = 4096;
const GENERATION_SHIFT: u32 = 32;
const INDEX_SHIFT: u32 = 4;
const GENERATION_MASK: u64 = (1 << (SESSION_SHIFT - GENERATION_SHIFT)) - 1;
const SESSION_SHIFT: u32 = 50;

/// Kinds of handles, and 0, which is none.
const KINDS: usize = HandleKind::ALL.len() + 1;

/// Sessions that a process can have.
pub const MOST_SESSIONS: usize = 64;

/// `CU_STREAM_PER_THREAD`: the greatest stream argument that is a value and not a handle (0 is the
/// default stream, 1 the legacy one).
pub const STREAM_PER_THREAD: u64 = 2;

struct Record {
    /// The live handle of this record, or 0.
    id: AtomicU64,
    /// What the client knows about it (leaked, see [`attach`]); null when nothing.
    data: AtomicPtr<()>,
    /// What it knew about the record's last handle, which was of the same kind: the next may be given it
    /// ([`attach_again`]).
    last: AtomicPtr<()>,
}

/// All records, and which may be used again.
struct Table {
    /// How many there can be.
    most: usize,
    chunks: [AtomicPtr<Record>; CHUNKS],
    used: AtomicUsize,
    /// (index, last generation) of destroyed handles, by kind.
    free: Mutex<[Vec<(usize, u64)>; KINDS]>,
}

static TABLE: Table = Table::of(CHUNK * CHUNKS);

impl Table {
    const fn of(most: usize) -> Table {
        Table {
            most,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            used: AtomicUsize::new(0),
            free: Mutex::new([const { Vec::new() }; KINDS]),
        }
    }

    fn free(&self) -> MutexGuard<'_, [Vec<(usize, u64)>; KINDS]> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, index: usize) -> Option<&'static Record> {
        let chunk = self.chunks.get(index / CHUNK)?.load(Ordering::Acquire);
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a chunk is an array of CHUNK records that is never freed.
        Some(unsafe { &*chunk.add(index % CHUNK) })
    }

    /// Grows by one record; the caller holds `free`'s lock, so growth is serial.
    fn grow(&self) -> Option<usize> {
        let index = self.used.load(Ordering::Relaxed);
        if index >= self.most {
            return None;
        }
        let chunk = self.chunks.get(index / CHUNK)?;
        if chunk.load(Ordering::Relaxed).is_null() {
            let records: Vec<Record> = (0..CHUNK)
                .map(|_| Record {
                    id: AtomicU64::new(0),
                    data: AtomicPtr::new(ptr::null_mut()),
                    last: AtomicPtr::new(ptr::null_mut()),
                })
                .collect();
            chunk.store(
                Box::leak(records.into_boxed_slice()).as_mut_ptr(),
                Ordering::Release,
            );
        }
        self.used.store(index + 1, Ordering::Relaxed);
        Some(index)
    }

    /// As the function [`create`].
    fn create(&self, kind: HandleKind, session: usize) -> Result<u64, CUresult> {
        let mut free = self.free();
        let (index, generation) = match free[kind as usize].pop() {
            Some((index, last)) => (index, last + 1),
            None => (self.grow().ok_or(CUDA_ERROR_OUT_OF_MEMORY)?, 1),
        };
        drop(free);
        let id = (kind as u64) << 56
            | (session as u64) << SESSION_SHIFT
            | generation << GENERATION_SHIFT
            | (index as u64) << INDEX_SHIFT;
        if let Some(record) = self.record(index) {
            let last = record.data.swap(ptr::null_mut(), Ordering::Relaxed);
            record.last.store(last, Ordering::Relaxed);
            record.id.store(id, Ordering::Release);
        }
        Ok(id)
    }

    fn find(&self, id: u64) -> Option<&'static Record> {
        let record = self.record(index_of(id))?;
        (id != 0 && record.id.load(Ordering::Acquire) == id).then_some(record)
    }

    /// As the function [`destroy`].
    fn destroy(&self, kind: HandleKind, id: u64) {
        if !is_kind(id, kind) {
            return;
        }
        let Some(record) = self.find(id) else { return };
        if record
            .id
            .compare_exchange(id, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return; // another thread destroyed it first
        }
        let generation = id >> GENERATION_SHIFT & GENERATION_MASK;
        if generation < GENERATION_MASK {
            self.free()[kind as usize].push((index_of(id), generation));
        }
    }
}

/// The session of a handle, by its number; 0 for what is no handle.
#[inline]
pub fn session_of(id: u64) -> usize {
    (id >> SESSION_SHIFT) as usize % MOST_SESSIONS
}

/// Makes a live handle of `kind` in the session of that number.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY` where four million are live.
pub fn create(kind: HandleKind, session: usize) -> Result<u64, CUresult> {
    TABLE.create(kind, session)
}

fn index_of(id: u64) -> usize {
    ((id & u64::from(u32::MAX)) >> INDEX_SHIFT) as usize
}

fn find(id: u64) -> Option<&'static Record> {
    TABLE.find(id)
}

fn is_kind(id: u64, kind: HandleKind) -> bool {
    id >> 56 == kind as u64
}

/// The wire id of a handle that the program passed, if it is a live one of `kind`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT` for a context, `CUDA_ERROR_INVALID_HANDLE` for all else.
pub fn live<T>(kind: HandleKind, raw: *mut T) -> Result<u64, CUresult> {
    let id = raw as u64;
    if is_kind(id, kind) && find(id).is_some() {
        return Ok(id);
    }
    Err(match kind {
        HandleKind::Context => CUDA_ERROR_INVALID_CONTEXT,
        _ => CUDA_ERROR_INVALID_HANDLE,
    })
}

/// As [`live`] for a stream argument: the default streams' values pass as they are.
pub fn live_stream<T>(raw: *mut T) -> Result<u64, CUresult> {
    let id = raw as u64;
    if id == 0 && harp_driver_front::default_stream() as u64 == STREAM_PER_THREAD {
        return Ok(STREAM_PER_THREAD);
    }
    if id <= STREAM_PER_THREAD {
        return Ok(id);
    }
    live(HandleKind::Stream, raw)
}

/// Ends a handle: it is refused from now on.
pub fn destroy<T>(kind: HandleKind, raw: *mut T) {
    TABLE.destroy(kind, raw as u64);
}

/// Gives a live handle what the client knows about it.
///
/// The data is leaked on purpose: another thread may hold a reference while the handle is being
/// destroyed, as programs do that unload a module beside a running launch. It is small (a few
/// hundred bytes for a function) and as many as the program loads.
pub fn attach<T: Send + Sync + 'static>(id: u64, data: T) -> &'static T {
    let leaked: &'static T = Box::leak(Box::new(data));
    if let Some(record) = find(id) {
        let pointer = ptr::from_ref(leaked).cast_mut();
        record.data.store(pointer.cast(), Ordering::Release);
    }
    leaked
}

/// What is known of a handle whose like comes and goes all the time.
pub trait Renewed: Send + Sync + 'static {
    /// Becomes what `new` is. Another thread may still read it as what was known of the handle before.
    fn renew(&self, new: Self);
}

/// As [`attach`], in the place of what was attached to the record's last handle.
///
/// # Safety
/// `T` must be the type that handles of this id's kind are given.
pub unsafe fn attach_again<T: Renewed>(id: u64, data: T) {
    let last = find(id).map_or(ptr::null_mut(), |record| {
        record.last.swap(ptr::null_mut(), Ordering::Relaxed)
    });
    // SAFETY: the caller's promise about T, which holds for all handles of a record; the data was leaked.
    let Some(known) = (unsafe { last.cast::<T>().as_ref() }) else {
        attach(id, data);
        return;
    };
    known.renew(data);
    if let Some(record) = find(id) {
        record.data.store(last, Ordering::Release);
    }
}

/// What [`attach`] gave the handle.
///
/// # Safety
/// `T` must be the type that handles of this id's kind are given.
pub unsafe fn attached<T: Send + Sync + 'static>(id: u64) -> Option<&'static T> {
    let pointer = find(id)?.data.load(Ordering::Acquire);
    // SAFETY: the caller's promise about T; the data was leaked.
    unsafe { pointer.cast::<T>().as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(kind: HandleKind, session: usize) -> u64 {
        super::create(kind, session).expect("the table has room")
    }

    impl Renewed for AtomicU64 {
        fn renew(&self, new: Self) {
            self.store(new.into_inner(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_handle_is_live_until_it_is_destroyed() {
        let id = create(HandleKind::Event, 0);
        let raw = id as *mut CUevent_st;
        assert_eq!(live(HandleKind::Event, raw), Ok(id));
        destroy(HandleKind::Event, raw);
        assert_eq!(live(HandleKind::Event, raw), Err(CUDA_ERROR_INVALID_HANDLE));
    }

    #[test]
    fn a_handle_is_aligned_as_a_pointer_is() {
        let ids = [HandleKind::Stream; 5].map(|kind| create(kind, 63));
        assert!(ids.iter().all(|id| id % 16 == 0), "{ids:x?}");
        let marked = (ids[0] | 1) as *mut CUstream_st;
        assert_eq!(
            live(HandleKind::Stream, marked),
            Err(CUDA_ERROR_INVALID_HANDLE)
        );
    }

    #[test]
    fn a_handle_of_another_kind_is_refused() {
        let id = create(HandleKind::Event, 0);
        assert_eq!(
            live(HandleKind::Stream, id as *mut CUstream_st),
            Err(CUDA_ERROR_INVALID_HANDLE)
        );
        assert_eq!(
            live(HandleKind::Context, id as *mut CUctx_st),
            Err(CUDA_ERROR_INVALID_CONTEXT)
        );
    }

    #[test]
    fn a_reused_record_is_another_handle() {
        let first = create(HandleKind::Module, 0);
        destroy(HandleKind::Module, first as *mut CUmod_st);
        let ids: Vec<u64> = (0..CHUNK + 1)
            .map(|_| create(HandleKind::Module, 0))
            .collect();
        assert!(ids.iter().all(|id| *id != first));
        assert_eq!(
            live(HandleKind::Module, first as *mut CUmod_st),
            Err(CUDA_ERROR_INVALID_HANDLE)
        );
    }

    #[test]
    fn a_handle_says_its_kind_and_its_session() {
        for session in [0, 1, MOST_SESSIONS - 1] {
            let id = create(HandleKind::Event, session);
            assert_eq!(session_of(id), session);
            assert_eq!(live(HandleKind::Event, id as *mut CUevent_st), Ok(id));
        }
    }

    #[test]
    fn what_was_known_of_the_last_handle_of_a_record_becomes_what_is_known_of_the_next() {
        let known = |value| {
            let id = create(HandleKind::Link, 0);
            // SAFETY: tests attach nothing else to this kind.
            let known = unsafe {
                attach_again(id, AtomicU64::new(value));
                attached::<AtomicU64>(id)
            };
            assert_eq!(
                known.map(|known| known.load(Ordering::Relaxed)),
                Some(value)
            );
            destroy(HandleKind::Link, id as *mut CUlinkState_st);
            known.map(ptr::from_ref)
        };
        let first = known(1);
        assert!((2..100).all(|value| known(value) == first));
        // Nor is a record used for another kind.
        let of_another_kind = create(HandleKind::Pool, 0);
        assert_ne!(known(100), None);
        // SAFETY: nothing is attached to it.
        assert_eq!(
            unsafe { attached::<AtomicU64>(of_another_kind) }.map(|_| ()),
            None
        );
    }

    #[test]
    fn attached_data_is_found_again() {
        let id = create(HandleKind::Function, 0);
        attach(id, 7_u32);
        // SAFETY: this test attaches u32.
        assert_eq!(unsafe { attached::<u32>(id) }, Some(&7));
    }

    #[test]
    fn a_full_table_refuses_until_a_handle_of_the_kind_has_ended() {
        static SMALL: Table = Table::of(3);
        let [first, ..] = [HandleKind::Event; 3].map(|kind| SMALL.create(kind, 0).unwrap());
        for _ in 0..2 {
            for kind in [HandleKind::Event, HandleKind::Stream] {
                assert_eq!(SMALL.create(kind, 0), Err(CUDA_ERROR_OUT_OF_MEMORY));
            }
        }
        SMALL.destroy(HandleKind::Event, first);
        // Records stay with their kind.
        assert_eq!(
            SMALL.create(HandleKind::Stream, 0),
            Err(CUDA_ERROR_OUT_OF_MEMORY)
        );
        let next = SMALL.create(HandleKind::Event, 0).unwrap();
        assert!(next != first && SMALL.find(next).is_some() && SMALL.find(first).is_none());
    }
}
