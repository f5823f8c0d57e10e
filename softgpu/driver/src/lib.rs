//! The soft GPU: a `libcuda.so.1` that executes PTX on the CPU.
//!
//! A development device: it makes every part of the product work on a machine without a GPU, it is
//! not fast, and it says what it is (device name, a line on stderr).
//!
//! [`api`] holds the driver calls by area; `generated` exports them under their C names. Behind them:
//! [`device`] and [`context`] own everything, [`memory`] is address windows and allocation,
//! [`stream`], [`event`] and [`execution`] are ordering and threads, [`module`], [`library`] and
//! [`function`] are code, [`launch`] checks and submits kernels to the engine.

pub mod api;
mod attributes;
mod call;
mod console;
mod context;
mod device;
mod event;
mod execution;
mod faults;
mod function;
mod generated;
mod handles;
mod image;
mod jit_options;
mod launch;
mod library;
mod link;
mod memory;
mod module;
mod occupancy;
mod settings;
mod stream;
mod transfer;
