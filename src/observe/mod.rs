//! What people may see of us: words in a log, numbers for Prometheus, alive and ready.
//!
//! This room knows no other. Whoever has numbers hands them in as plain values: finished calls one by
//! one, everything else by a source that is asked when somebody looks.

mod error;
mod health;
mod http;
mod log;
mod metrics;
mod spread;

pub use error::Error;
pub use health::{Health, State};
pub use http::{Address, BadAddress, Door};
pub use log::{BadFilter, BadFormat, LogFilter, LogFormat, LogOptions, start_log};
pub use metrics::{Call, Family, Kind, Metrics, Sample, Value};
pub use spread::Spread;
