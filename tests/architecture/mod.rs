//! The shape of the house, held against the code.
//!
//! `table` says which room may use which; `rules` reads every file under `src/` and says what breaks
//! them; `scan` is the small reader of Rust that both need. A new arrow is a change to `table`, seen
//! in review, never a side effect.

mod rules;
mod scan;
mod table;
