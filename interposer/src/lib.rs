//! `libcuda.so.1` for programs on a machine without a GPU: every CUDA driver call that needs a
//! device travels to a pool server over TLS, everything else is answered here.
//!
//! * [`session`]: the conversation with the server, handles, addresses;
//! * `api`: the calls that are answered or completed in the program's process;
//! * `generated`: the C symbols, and the calls that are forwarded as their spec entry says.

mod api;
mod generated;
pub mod session;
