//! The data path between a program's host and its worker: one ordered gRPC stream over TLS 1.3.
//!
//! A session begins with one call of `harp.data.v1.Session/Open`. [`connect`] and [`accept`] make
//! it; from then on a [`Sender`] and a [`Receiver`] carry frames, each driven by the thread that
//! calls it: there is no runtime and no thread of its own behind them, because a hand-over between
//! threads costs more than a round trip's own work.
//!
//! When the connection breaks, the session goes on with another call, if both ends have agreed on
//! that: the client connects anew, the server is given the new connection ([`Keeper::resume`]), and
//! both send again what the other has not acknowledged. Whoever is sending or receiving only waits.
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

pub use client::{
    connect, connect_persisting, connect_resuming, connect_with, ClientConfig, LinkInfo, Refresh,
    Resuming,
};
pub use error::{AcceptError, ConnectError, LinkError};
pub use identity::VERSION;
pub use link::{
    Buffer, FrameHead, FrameKind, Keeper, Loan, Next, Observed, Observer, Receiver, Sender,
    StartThread, Wait,
};
pub use proto::{Hello, Refused, Version, Welcome};
pub use server::{accept, accept_with, Incoming, Keeping, ServerConfig};
pub use tuning::Tuning;
pub use validity::Moment;
