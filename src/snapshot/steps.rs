//! Places where a test may pull the plug, or kill the process. In life they are nothing.

#[cfg(test)]
use std::sync::Arc;

use crate::failpoint;

/// Every act passes named places between its steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    plug: Option<Arc<Plug>>,
}

impl Steps {
    /// An act has come to this place. Never returns where a test has pulled the plug.
    pub(super) async fn pass(&self, place: &'static str) {
        #[cfg(test)]
        if let Some(plug) = &self.plug {
            plug.pass(place).await;
        }
        failpoint::pass(place);
    }
}

/// Lets so many places be passed, and stops whoever comes to the next.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Plug {
    left: std::sync::atomic::AtomicI64,
    places: std::sync::Mutex<Vec<&'static str>>,
    pulled: tokio::sync::Notify,
}

#[cfg(test)]
impl Plug {
    /// Stops the act that comes to place number `after`, counted from 0.
    pub(super) fn new(after: i64) -> (Steps, Arc<Self>) {
        let plug = Arc::new(Self {
            left: after.into(),
            places: std::sync::Mutex::default(),
            pulled: tokio::sync::Notify::new(),
        });
        let steps = Steps {
            plug: Some(Arc::clone(&plug)),
        };
        (steps, plug)
    }

    /// Stops the next one.
    pub(super) fn pull_next(&self) {
        self.left.store(0, std::sync::atomic::Ordering::SeqCst);
    }

    async fn pass(&self, place: &'static str) {
        self.places.lock().unwrap().push(place);
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0 {
            self.pulled.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Returns once somebody was stopped.
    pub(super) async fn pulled(&self) {
        self.pulled.notified().await;
    }

    /// The places that were passed or stopped at, in order.
    pub(super) fn places(&self) -> Vec<&'static str> {
        self.places.lock().unwrap().clone()
    }
}
