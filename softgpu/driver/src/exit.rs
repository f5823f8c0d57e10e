//! The end of the process: after exit handlers have run, every call is refused at once.

use harp_driver_front::lifecycle;

/// Runs when the library is finalised, after the program's own exit handlers.
#[used]
#[link_section = ".fini_array"]
static AT_EXIT: extern "C" fn() = finish;

extern "C" fn finish() {
    lifecycle::finish();
}
