//! The messages of `proto/harp/data/v1/session.proto`.

#![allow(missing_docs)]

include!("generated/harp.data.v1.rs");
