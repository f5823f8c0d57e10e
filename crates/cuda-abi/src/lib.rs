//! The CUDA driver API as data: types, codes, names and the `cuGetProcAddress` map.
//!
//! Everything under `generated` comes from the committed facts in `proto/abi`, which were extracted
//! from NVIDIA's headers of several releases (names, types, numbers and layouts only).

#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
mod generated;

pub mod attributes;
pub mod errors;
pub mod exports;
pub mod jit;
pub mod launch;
pub mod proc_address;
pub mod streams;

/// Handles, scalars, records, enumerators and constants under their C names.
pub mod types {
    pub use crate::generated::constants::*;
    pub use crate::generated::types::*;
}
