//! Running kernels: [`grid`] hands out blocks, [`block`] holds a block's state, [`run`] executes
//! instructions over a [`group`] of warps; [`memory`], [`warp`], [`barrier`], [`moves`] and
//! [`system`] are what instructions do that is not arithmetic.

pub mod barrier;
mod block;
mod call;
pub mod fault;
pub mod grid;
mod group;
mod heap;
pub mod inst;
pub mod kernel;
pub mod lanes;
pub mod machine;
mod meet;
pub mod memory;
pub mod moves;
mod printf;
mod run;
pub mod special;
pub mod system;
pub mod warp;
pub mod windows;
