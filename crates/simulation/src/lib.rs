//! One seed runs a world and judges it.

mod choices;
mod config;
mod delta;
mod disk;
mod generated;
mod given;
mod job;
mod marks;
mod mutant;
mod oracle;
mod packed;
mod process;
mod random;
mod run;
mod shared;
mod shrink;
mod store;
mod trace;
mod world;

pub use config::{Pipeline, Rates, Restart, Search, StageKind, WorldConfig};
pub use given::Env;
pub use marks::{Mark, Marks};
pub use mutant::Mutant;
pub use run::{Failure, Report, Run, Simulation, SimulationError, Tape};
pub use shared::{Rule, Violation};
pub use trace::Trace;
