//! Crash consistency, explored: what a process' death and the power's leave, at every moment of many
//! scenarios, opened by the code that opens them in life and held against what was answered.
//!
//! ```text
//!   scenario: acts ---> world: a real disk over simulated files, operations completed in any order
//!                         |  after every write, hole, length, sync, answer:
//!                         +--> stops: what each death may leave ---> autopsy: open, read, check, go on
//!                                                                      held against history: what may be
//! ```

mod acts;
mod autopsy;
mod bugs;
mod explore;
mod history;
mod kept;
mod layout;
mod scenarios;
mod world;

#[cfg(test)]
mod explore_tests;
#[cfg(test)]
mod teeth_tests;
