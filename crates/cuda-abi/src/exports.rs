//! Tables of exported symbols, for the libraries that answer `cuGetProcAddress`.

use core::ffi::c_void;

/// A symbol and where it lies.
pub struct Export {
    name: &'static str,
    address: *const c_void,
}

// SAFETY: the address is that of a function in the same library; it is never written through.
unsafe impl Sync for Export {}

impl Export {
    pub const fn new(name: &'static str, address: *const c_void) -> Export {
        Export { name, address }
    }
}

/// Address of `symbol` in a table sorted by name.
pub fn find(table: &[Export], symbol: &str) -> Option<*const c_void> {
    let found = table
        .binary_search_by(|export| export.name.cmp(symbol))
        .ok()?;
    Some(table[found].address)
}
