//! TLS 1.3: the handshake is rustls's, the records after it are sealed and opened here.
//!
//! rustls copies payload several times on its way; at the rates of a device copy that is most of
//! the cost. So once the handshake is done its traffic secrets move to [`records`], which seals
//! straight from the caller's memory and opens straight into it.

pub mod config;
pub mod handshake;
pub mod post_handshake;
pub mod records;
