//! Live objects by the opaque handles that programs hold.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

/// Spreads addresses, which differ in their middle bits, over a table.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }
}

type Table<T> = HashMap<usize, Arc<T>, BuildHasherDefault<AddressHasher>>;

/// The live objects of one kind. A handle is the object's address, so handles of different kinds
/// differ, and a dead or foreign handle is simply not found.
pub struct Registry<T> {
    live: RwLock<Table<T>>,
}

impl<T> Registry<T> {
    pub const fn new() -> Self {
        Self {
            live: RwLock::new(HashMap::with_hasher(BuildHasherDefault::new())),
        }
    }

    /// Makes `object` known and returns its handle.
    pub fn insert<H>(&self, object: Arc<T>) -> *mut H {
        let address = Arc::as_ptr(&object) as usize;
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address, object);
        address as *mut H
    }

    /// The object behind `handle`.
    pub fn get<H>(&self, handle: *mut H) -> Option<Arc<T>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(handle as usize))
            .cloned()
    }

    /// Takes the object behind `handle` out: the handle is dead from now on.
    pub fn remove<H>(&self, handle: *mut H) -> Option<Arc<T>> {
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(handle as usize))
    }

    /// Every live object.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Takes out every object that `matches`.
    pub fn remove_where(&self, matches: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let dead: Vec<usize> = live
            .iter()
            .filter(|(_, object)| matches(object))
            .map(|(key, _)| *key)
            .collect();
        dead.iter().filter_map(|key| live.remove(key)).collect()
    }
}

/// The handle that [`Registry::insert`] gave for this object.
pub fn handle_of<T, H>(object: &Arc<T>) -> *mut H {
    Arc::as_ptr(object).cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_handles_are_found() {
        let registry = Registry::<u32>::new();
        let (one, two) = (Arc::new(1), Arc::new(2));
        let handle: *mut u8 = registry.insert(one.clone());
        registry.insert::<u8>(two);
        assert_eq!(handle, handle_of(&one));
        assert_eq!(registry.get(handle).as_deref(), Some(&1));
        assert!(registry.get(core::ptr::null_mut::<u8>()).is_none());
        assert_eq!(registry.remove_where(|value| *value == 2).len(), 1);
        assert_eq!(registry.remove(handle).as_deref(), Some(&1));
        assert!(registry.get(handle).is_none());
        assert!(registry.remove(handle).is_none());
    }
}
