//! Which driver object each of the client's handles stands for.
//!
//! A wire handle is chosen by the client and carries its kind, and each kind has its own table, so that a handle can
//! never be used as something it is not. Serial numbers are not reused: one that is not in the table but no greater
//! than the greatest seen belonged to an object that is gone, which is an ordinary error (two threads of the program
//! raced); one that is greater was never made, which no correct client sends.

use std::collections::HashSet;
use std::ffi::c_void;
use std::hash::BuildHasherDefault;
use std::ptr;

use harp_cuda_abi::types::{
    CUcontext, CUresult, CUstream, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_HANDLE,
};
use harp_wire::{HandleKind, Parameter};

use super::client_threads::ThreadStreams;
use super::id_map::{IdHasher, IdMap};
use super::Violation;

/// Live handles of one kind that a session may have; a program leaks memory for other reasons long before.
const MOST_LIVE: usize = 1 << 22;

/// Kinds are numbered in a handle's top byte.
const KINDS: usize = 256;

/// `Ok(Err(code))`: the handle is one, but its object is gone or was never made; the call answers `code`.
pub type Found = Result<Result<*mut c_void, CUresult>, Violation>;

#[derive(Clone, Copy)]
enum Slot {
    /// An object, and the context that it ends with: null for one that lives on its own.
    Live {
        object: *mut c_void,
        context: CUcontext,
    },
    /// Its create failed with this code, which the client has not heard yet.
    Failed(CUresult),
}

#[derive(Default)]
struct Table {
    slots: IdMap<Slot>,
    greatest: u64,
}

/// All handles of a session.
pub struct HandleTable {
    /// By kind tag; most stay empty and own no memory.
    tables: Vec<Table>,
    /// Functions of modules and of kernels, and kernels of libraries, by the handle of what they end with.
    parts: IdMap<HashSet<u64, BuildHasherDefault<IdHasher>>>,
    /// Parameter layouts of functions that have been launched or asked about, by function handle.
    pub layouts: IdMap<Box<[Parameter]>>,
    /// What the stream value 2 means for the client thread that is being served.
    pub thread_streams: ThreadStreams,
}

/// Handles travel with the session between threads. The driver's objects are not bound to the thread that made them.
// SAFETY: the pointers are opaque to this process and only ever passed to the driver, which takes them on any thread.
unsafe impl Send for HandleTable {}

impl HandleTable {
    pub fn new(thread_streams: ThreadStreams) -> Self {
        let tables = (0..KINDS).map(|_| Table::default()).collect();
        Self {
            tables,
            parts: IdMap::default(),
            layouts: IdMap::default(),
            thread_streams,
        }
    }

    /// The object of `id`, which must be of `kind`.
    #[inline]
    pub fn get(&self, kind: HandleKind, id: u64) -> Found {
        if !kind.is_of(id) {
            return Err(wrong_kind(kind, id));
        }
        let table = &self.tables[kind as usize];
        match table.slots.get(&id) {
            Some(Slot::Live { object, .. }) => Ok(Ok(*object)),
            Some(Slot::Failed(code)) => Ok(Err(*code)),
            None if id <= table.greatest => Ok(Err(gone(kind))),
            None => Err(never_created(kind, id)),
        }
    }

    /// As [`get`](Self::get); 0 is a null pointer.
    pub fn get_or_null(&self, kind: HandleKind, id: u64) -> Found {
        if id == 0 {
            return Ok(Ok(ptr::null_mut()));
        }
        self.get(kind, id)
    }

    /// A kernel of a module or of a library: the driver takes either where it wants a function.
    #[inline]
    pub fn get_function(&self, id: u64) -> Found {
        let kind = match HandleKind::Kernel.is_of(id) {
            true => HandleKind::Kernel,
            false => HandleKind::Function,
        };
        self.get(kind, id)
    }

    /// A stream. 0 and 1 are the driver's own values for the legacy stream; 2 is the client thread's own stream.
    #[inline]
    pub fn get_stream(&mut self, id: u64) -> Found {
        match id {
            0 | 1 => Ok(Ok(ptr::without_provenance_mut(id as usize))),
            2 => Ok(self.thread_streams.current().map(CUstream::cast)),
            _ => self.get(HandleKind::Stream, id),
        }
    }

    /// Notes the outcome of a create whose handle the client chose. The same object may be noted again under the
    /// same handle (a primary context is retained many times).
    pub fn created(
        &mut self,
        kind: HandleKind,
        id: u64,
        object: *mut c_void,
        status: CUresult,
    ) -> Result<(), Violation> {
        if !kind.is_of(id) {
            return Err(wrong_kind(kind, id));
        }
        let context = if ends_with_context(kind) {
            self.thread_streams.context()
        } else {
            ptr::null_mut()
        };
        let table = &mut self.tables[kind as usize];
        match table.slots.get(&id) {
            Some(Slot::Live {
                object: present, ..
            }) if status == 0 && *present == object => {}
            Some(Slot::Live { .. }) => {
                return Err(Violation::new(format!(
                    "the {kind:?} {id:#x} exists already"
                )));
            }
            Some(Slot::Failed(_)) => {}
            None if table.slots.len() >= MOST_LIVE => {
                return Err(Violation::new(format!(
                    "more than {MOST_LIVE} live {kind:?} handles"
                )));
            }
            None => {}
        }
        let slot = match status {
            0 => Slot::Live { object, context },
            code => Slot::Failed(code),
        };
        table.slots.insert(id, slot);
        table.greatest = table.greatest.max(id);
        Ok(())
    }

    /// `part`, a function or kernel, ends with `whole`: a module or library, or a function's kernel.
    pub fn belongs(&mut self, part: u64, whole: u64) {
        self.parts.entry(whole).or_default().insert(part);
    }

    /// Forgets a handle whose object is destroyed, and those of all that ended with it.
    pub fn remove(&mut self, kind: HandleKind, id: u64) {
        let removed = self.tables[kind as usize].slots.remove(&id);
        self.layouts.remove(&id);
        for part in self.parts.remove(&id).unwrap_or_default() {
            if let Some(kind) = HandleKind::of(part) {
                self.remove(kind, part);
            }
        }
        if let (HandleKind::Context, Some(Slot::Live { object, .. })) = (kind, removed) {
            self.context_ended(object.cast());
        }
    }

    /// Forgets what lived in a context that has been destroyed or reset.
    pub fn context_ended(&mut self, ended: CUcontext) {
        let Self {
            tables,
            parts,
            layouts,
            ..
        } = self;
        for table in tables.iter_mut() {
            table
                .slots
                .retain(|_, slot| !matches!(slot, Slot::Live { context, .. } if *context == ended));
        }
        let is_there = |id: &u64| {
            let table = HandleKind::of(*id).map(|kind| &tables[kind as usize]);
            table.is_some_and(|table| table.slots.contains_key(id))
        };
        layouts.retain(|id, _| is_there(id));
        parts.retain(|whole, parts| {
            parts.retain(is_there);
            is_there(whole) && !parts.is_empty()
        });
        self.thread_streams.context_ended(ended);
    }
}

/// Kinds whose objects are made in the current context and destroyed with it.
fn ends_with_context(kind: HandleKind) -> bool {
    matches!(
        kind,
        HandleKind::Module | HandleKind::Function | HandleKind::Stream | HandleKind::Event
    )
}

#[cold]
fn never_created(kind: HandleKind, id: u64) -> Violation {
    Violation::new(format!("the {kind:?} {id:#x} was never created"))
}

#[cold]
fn wrong_kind(kind: HandleKind, id: u64) -> Violation {
    match HandleKind::of(id) {
        Some(other) => Violation::new(format!("the handle {id:#x} is a {other:?}, not a {kind:?}")),
        None => Violation::new(format!("{id:#x} is no handle of a {kind:?}")),
    }
}

/// What CUDA answers for an object that no longer exists.
fn gone(kind: HandleKind) -> CUresult {
    match kind {
        HandleKind::Context => CUDA_ERROR_INVALID_CONTEXT,
        _ => CUDA_ERROR_INVALID_HANDLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> HandleTable {
        HandleTable::new(ThreadStreams::for_tests())
    }

    fn object(value: usize) -> *mut c_void {
        ptr::without_provenance_mut(value)
    }

    #[test]
    fn a_handle_leads_to_its_object() {
        let mut handles = table();
        let id = HandleKind::Event.handle(7);
        handles
            .created(HandleKind::Event, id, object(0x70), 0)
            .unwrap();
        assert_eq!(handles.get(HandleKind::Event, id), Ok(Ok(object(0x70))));
        assert_eq!(
            handles.get_or_null(HandleKind::Event, 0),
            Ok(Ok(ptr::null_mut()))
        );
        assert_eq!(handles.get_stream(1), Ok(Ok(object(1))));
    }

    #[test]
    fn another_kind_is_a_violation() {
        let mut handles = table();
        let id = HandleKind::Event.handle(7);
        handles
            .created(HandleKind::Event, id, object(0x70), 0)
            .unwrap();
        for violation in [
            handles.get(HandleKind::Stream, id).unwrap_err(),
            handles.get_stream(id).unwrap_err(),
            handles
                .created(HandleKind::Stream, id, object(1), 0)
                .unwrap_err(),
        ] {
            assert!(
                violation.to_string().ends_with("is a Event, not a Stream"),
                "{violation}"
            );
        }
        assert!(handles.get(HandleKind::Event, 5).is_err(), "no kind at all");
    }

    #[test]
    fn a_destroyed_handle_is_an_error_and_an_invented_one_a_violation() {
        let mut handles = table();
        let (early, late) = (HandleKind::Event.handle(3), HandleKind::Event.handle(4));
        handles
            .created(HandleKind::Event, early, object(0x30), 0)
            .unwrap();
        handles.remove(HandleKind::Event, early);
        assert_eq!(
            handles.get(HandleKind::Event, early),
            Ok(Err(CUDA_ERROR_INVALID_HANDLE))
        );
        assert!(handles.get(HandleKind::Event, late).is_err());
        let context = HandleKind::Context.handle(1);
        handles
            .created(HandleKind::Context, context, object(0x10), 0)
            .unwrap();
        handles.remove(HandleKind::Context, context);
        assert_eq!(
            handles.get(HandleKind::Context, context),
            Ok(Err(CUDA_ERROR_INVALID_CONTEXT))
        );
    }

    #[test]
    fn a_failed_create_answers_with_its_own_code() {
        let mut handles = table();
        let id = HandleKind::Stream.handle(1);
        handles
            .created(HandleKind::Stream, id, ptr::null_mut(), 2)
            .unwrap();
        assert_eq!(handles.get_stream(id), Ok(Err(2)));
    }

    #[test]
    fn what_lives_in_something_ends_with_it() {
        let mut handles = table();
        let context = HandleKind::Context.handle(1);
        handles
            .created(HandleKind::Context, context, object(0x10), 0)
            .unwrap();
        handles.thread_streams.enter(1, object(0x10).cast());
        let (module, function) = (HandleKind::Module.handle(1), HandleKind::Function.handle(1));
        let (library, kernel) = (HandleKind::Library.handle(1), HandleKind::Kernel.handle(1));
        handles
            .created(HandleKind::Module, module, object(0x20), 0)
            .unwrap();
        handles
            .created(HandleKind::Function, function, object(0x30), 0)
            .unwrap();
        handles.belongs(function, module);
        handles
            .created(HandleKind::Library, library, object(0x40), 0)
            .unwrap();
        handles
            .created(HandleKind::Kernel, kernel, object(0x50), 0)
            .unwrap();
        handles.belongs(kernel, library);
        let event = HandleKind::Event.handle(1);
        handles
            .created(HandleKind::Event, event, object(0x60), 0)
            .unwrap();

        handles.remove(HandleKind::Module, module);
        assert_eq!(
            handles.get_function(function),
            Ok(Err(CUDA_ERROR_INVALID_HANDLE))
        );
        handles.remove(HandleKind::Context, context);
        assert_eq!(
            handles.get(HandleKind::Event, event),
            Ok(Err(CUDA_ERROR_INVALID_HANDLE))
        );
        assert_eq!(
            handles.get_function(kernel),
            Ok(Ok(object(0x50))),
            "no context's"
        );
        handles.remove(HandleKind::Library, library);
        assert_eq!(
            handles.get_function(kernel),
            Ok(Err(CUDA_ERROR_INVALID_HANDLE))
        );
    }

    #[test]
    fn nothing_is_kept_of_what_has_ended() {
        let mut handles = table();
        let make = |handles: &mut HandleTable, kind: HandleKind, serial: u64| {
            let id = kind.handle(serial);
            let object = object(id as usize);
            handles.created(kind, id, object, 0).unwrap();
            (id, object)
        };
        let (kernel, _) = make(&mut handles, HandleKind::Kernel, 1);
        for life in 1..4 {
            let (context, object) = make(&mut handles, HandleKind::Context, life);
            handles.thread_streams.enter(1, object.cast());
            let (loaded, _) = make(&mut handles, HandleKind::Module, 2 * life);
            let (unloaded, _) = make(&mut handles, HandleKind::Module, 2 * life + 1);
            for (place, whole) in [kernel, loaded, unloaded].into_iter().enumerate() {
                let serial = 3 * life + place as u64;
                // Looked up twice under one handle.
                for _ in 0..2 {
                    let (part, _) = make(&mut handles, HandleKind::Function, serial);
                    handles.belongs(part, whole);
                    handles.layouts.insert(part, Box::default());
                }
                assert_eq!(handles.parts[&whole].len(), 1);
            }
            handles.remove(HandleKind::Module, unloaded);
            assert_eq!((handles.parts.len(), handles.layouts.len()), (2, 2));
            handles.remove(HandleKind::Context, context);
            assert_eq!((handles.parts.len(), handles.layouts.len()), (0, 0));
        }
    }

    #[test]
    fn a_handle_in_use_is_not_taken_over() {
        let mut handles = table();
        let id = HandleKind::Context.handle(1);
        handles
            .created(HandleKind::Context, id, object(0x10), 0)
            .unwrap();
        handles
            .created(HandleKind::Context, id, object(0x10), 0)
            .expect("retained again");
        assert!(handles
            .created(HandleKind::Context, id, object(0x20), 0)
            .is_err());
    }
}
