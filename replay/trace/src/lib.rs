//! Traces: what a program and its sessions said, written down so that it can be looked at and run again.
//!
//! A trace is a sequence of [blocks](block). The program appends them to a [ring] in shared memory; a
//! recorder takes them out and writes them into a container on disk, which docs/trace-format.md
//! describes. What the program links is only the first half of this crate; everything that touches
//! files is behind the feature `container`.

pub mod block;
#[cfg(feature = "tape")]
mod call_numbers;
#[cfg(feature = "container")]
pub mod container;
pub mod date;
#[cfg(feature = "container")]
pub mod event;
pub mod greeting;
#[cfg(any(feature = "tape", feature = "container"))]
pub mod payloads;
#[cfg(feature = "container")]
pub mod repack;
pub mod ring;
mod ring_unsafe;
#[cfg(feature = "tape")]
pub mod tape;
#[cfg(feature = "tape")]
pub mod told;
#[cfg(feature = "container")]
pub mod verify;
