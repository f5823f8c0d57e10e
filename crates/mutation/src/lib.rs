//! Hostile input for tests, the same in every run of one seed.
//!
//! [`mutate`] changes good bytes a little; [`smoke::run`] gives what comes of it to a function under
//! test, which may refuse it but not panic, crash, hang or take memory without bound. The crates'
//! `fuzz_smoke` tests are built on it; the same functions are targets of cargo-fuzz, which searches
//! better and needs a nightly toolchain.

mod mutate;
mod random;
pub mod smoke;

pub use mutate::{interesting, mutate};
pub use random::Random;
