//! The data path between a program's host and its worker: one ordered gRPC stream over TLS 1.3.
//!
//! A session is one call of `harp.data.v1.Session/Open`. [`connect`] and [`accept`] make it; from
//! then on a [`Sender`] and a [`Receiver`] carry frames, each driven by the thread that calls it:
//! there is no runtime and no thread of its own behind them, because a hand-over between threads
//! costs more than a round trip's own work.
//!
//! From the wire up: `link::socket` moves bytes, `tls` seals and opens them, `h2` finds the
//! stream's bytes, `grpc` its messages, `envelope` the frames in them, and `link` ties the two
//! directions together. Stock gRPC peers speak with all of it in the tests.
//!
//! Every byte of the peer is hostile: sizes are bounded before anything is allocated, and the first
//! violation ends the link for good.

mod client;
mod envelope;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grpc;
mod h2;
mod identity;
mod link;
mod server;
mod tls;
mod tuning;
mod validity;

pub mod proto;

pub use client::{connect, connect_with, ClientConfig, LinkInfo};
pub use error::{AcceptError, ConnectError, LinkError};
pub use identity::VERSION;
pub use link::{FrameHead, FrameKind, Next, Receiver, Sender, Wait};
pub use proto::{Hello, Refused, Version, Welcome};
pub use server::{accept, accept_with, Incoming, ServerConfig};
pub use tuning::Tuning;
pub use validity::Moment;
