//! The PTX language: text to tokens, declarations and statements. Nothing here knows about lanes.
//!
//! The text is a client's, so every reader is total: it returns [`PtxError`] on what it does not
//! understand, never recurses without a bound and never allocates more than the text pays for.

pub mod declaration;
pub mod error;
pub mod expression;
pub mod initializer;
pub mod lexer;
pub mod literal;
pub mod module;
pub mod statement;
pub mod types;

pub use error::PtxError;
