//! Tests of the operations through [`super::lookup`], as the decoder uses them, against oracles
//! that compute another way: in 128-bit integers, bit by bit, or with exact fractions.

mod approx;
mod bits;
mod carry;
mod compare;
mod convert;
mod exact;
mod float;
mod forms;
mod half;
mod harness;
mod integer;
mod pack;
mod select;
mod speed;
mod video;
