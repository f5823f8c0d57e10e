//! Tests of the operations through [`super::lookup`], as the decoder uses them.

mod forms;
mod harness;
