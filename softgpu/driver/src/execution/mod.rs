//! How queued work gets done: queues in order, threads, and what they run.

pub mod busy;
pub mod command;
pub mod copy;
pub mod executor;
pub mod host_calls;
pub mod polls;
pub mod queue;
#[cfg(test)]
mod tests;
