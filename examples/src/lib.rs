//! The jobs of the examples, for the programs that run them and for the simulation.

pub mod flights;
