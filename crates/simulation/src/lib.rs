//! One seed runs a world and judges it.

pub mod exhaustive;
