//! Calls that the generated dispatch leaves to hand-written code: those that wait, move bulk data, load code, or hand
//! structures with pointers to the driver.
//!
//! Each is named like its call and has the signature that the dispatch expects. `Err` ends the session: the client sent
//! what no correct client sends. `Ok(code)` is the call's CUresult. All of them pass values of the client to the driver,
//! which is where the `unsafe` in this folder comes from: handles have been looked up, memory that the driver reads or
//! writes is the worker's own and of the stated size, and device addresses are the driver's to check.
#![allow(non_snake_case)]

mod cache;
mod code;
mod context;
mod copies;
mod events;
mod launch;
mod pools;
mod session;
mod shaped_copies;
mod tensor_maps;
mod twins;
mod waits;

pub use cache::*;
pub use code::*;
pub use context::*;
pub use copies::*;
pub use events::*;
pub use launch::*;
pub use pools::*;
pub use session::*;
pub use shaped_copies::*;
pub use tensor_maps::*;
pub use twins::*;
pub use waits::*;

/// The object that a handle stands for, or the call's answer if it stands for none.
macro_rules! live {
    ($found:expr) => {
        match $found? {
            Ok(object) => object.cast(),
            Err(code) => return Ok(code),
        }
    };
}
use live;
