//! `libcuda.so.1` for programs on a machine without a GPU: every CUDA driver call that needs a
//! device travels to a pool server over TLS, everything else is answered here. In local mode the
//! calls go to a driver in the program's own process instead.
//!
//! * `entry`: where the C symbols lead, in either mode;
//! * [`session`]: the conversation with the server, handles, addresses;
//! * `api`: the calls that are answered or completed in the program's process;
//! * `hooks`: what is told of every call, in either mode; `profile`: what the calls cost;
//! * `local`: the other way, to a driver in this process;
//! * `generated`: the C symbols, and the calls that are forwarded as their spec entry says.

mod api;
mod clock;
mod entry;
mod generated;
mod hooks;
mod local;
mod profile;
mod recording;
pub mod session;
