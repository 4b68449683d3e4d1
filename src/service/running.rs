//! Acts that are under way: each in a task of its own, under a limit, and counted once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use containerd_snapshots::tonic::Code;
use tokio::sync::watch;
use tracing::{Instrument, Span};

use super::convert::namespace_of;
use super::status::{code, name_of};
use super::{Ended, Error, Method, Observer};
use crate::causes::in_full;
use crate::snapshot::Caller;

/// A call that somebody waits for.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) key: String,
    pub(super) limit: Duration,
}

/// Every act of every door that has not ended, whether or not somebody still waits for it.
#[derive(Clone, Debug)]
pub(super) struct Running {
    observer: Observer,
    /// How many run, and whether more may begin.
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    acts: usize,
    stopping: bool,
}

/// One act; it counts until this is dropped, also if it panics.
struct Place(Arc<watch::Sender<State>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.acts -= 1);
    }
}

/// A caller that waits; one that goes away without an answer has given up too.
#[derive(Default)]
struct Waiting(Caller);

impl Drop for Waiting {
    fn drop(&mut self) {
        // If it is decided or has ended, nobody asks any more.
        let _ = self.0.gives_up();
    }
}

impl Running {
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }

    /// Runs an act to its end; waits for it until the limit passes, or longer if it is decided by then.
    ///
    /// # Errors
    /// The act's own; [`Error::Late`] if it did not end in time, in which case it ends, or is undone, by itself.
    pub(super) async fn run<T, E>(
        &self,
        snapshotter: &Arc<str>,
        call: Call,
        act: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        let method = call.method;
        let place = self.place().ok_or(Error::Stopping { method })?;
        let report = Report {
            snapshotter: Arc::clone(snapshotter),
            method,
            begun: Instant::now(),
            told: Arc::new(AtomicBool::new(false)),
            observer: self.observer.clone(),
        };
        let span = tracing::info_span!(
            "call",
            snapshotter = &**snapshotter,
            %method,
            key = call.key,
            namespace = namespace_of(&call.key)
        );
        let inner = report.clone();
        let waiting = Waiting::default();
        let caller = waiting.0.clone();
        let task = async move {
            let _place = place;
            let answer = caller.asks(act).await.map_err(Into::into);
            inner.ended(answer.as_ref().err());
            answer
        };
        let mut task = tokio::spawn(task.instrument(span.clone()));
        let ended = match tokio::time::timeout(call.limit, &mut task).await {
            Ok(ended) => Some(ended),
            Err(_) if waiting.0.gives_up() => None,
            // All that is left of it is one transaction of the store.
            Err(_) => Some(task.await),
        };
        let error = match ended {
            Some(Ok(answer)) => return answer,
            Some(Err(_)) => Error::Broken {
                method,
                key: call.key,
            },
            None => Error::Late {
                method,
                key: call.key,
                limit: call.limit,
            },
        };
        report.gave_up(&span, &error);
        Err(error)
    }

    fn place(&self) -> Option<Place> {
        let admitted = self.state.send_if_modified(|state| {
            if !state.stopping {
                state.acts += 1;
            }
            !state.stopping
        });
        admitted.then(|| Place(Arc::clone(&self.state)))
    }

    /// Lets no further act begin.
    pub(super) fn stop(&self) {
        self.state.send_modify(|state| state.stopping = true);
    }

    /// Waits until every act has ended, at most for `limit`; answers how many have not.
    pub(super) async fn ended(&self, limit: Duration) -> usize {
        let mut state = self.state.subscribe();
        let quiet = state.wait_for(|state| state.acts == 0);
        match tokio::time::timeout(limit, quiet).await {
            Ok(_) => 0,
            Err(_) => self.state.borrow().acts,
        }
    }
}

/// What is said about one act when it ends, or when its caller gives up.
#[derive(Clone)]
struct Report {
    snapshotter: Arc<str>,
    method: Method,
    begun: Instant,
    /// Was the call counted? A late act ends twice: for its caller, and in truth.
    told: Arc<AtomicBool>,
    observer: Observer,
}

impl Report {
    /// Called in the act's task, so also when the caller is gone.
    fn ended(&self, error: Option<&Error>) {
        let took = self.begun.elapsed();
        let late = !self.count(error.map_or(Code::Ok, code));
        match error {
            None if late => tracing::warn!(?took, "ended after its caller had given up"),
            None if self.method.changes() => tracing::info!(?took, "done"),
            None => tracing::debug!(?took, "done"),
            Some(error) => {
                let (code, error) = (code(error), in_full(error));
                match code {
                    Code::Internal | Code::DataLoss => {
                        tracing::error!(?took, late, code = name_of(code), %error, "failed");
                    }
                    Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                        tracing::warn!(?took, late, code = name_of(code), %error, "failed");
                    }
                    _ => tracing::info!(?took, late, code = name_of(code), %error, "refused"),
                }
            }
        }
    }

    /// Called in the caller's task.
    fn gave_up(&self, span: &Span, error: &Error) {
        self.count(code(error));
        let _inside = span.enter();
        tracing::error!(took = ?self.begun.elapsed(), %error, "gave up");
    }

    /// Tells the observer, once; answers whether this was the time.
    fn count(&self, code: Code) -> bool {
        let first = !self.told.swap(true, Ordering::Relaxed);
        if first {
            self.observer.tell(&Ended {
                snapshotter: &self.snapshotter,
                method: self.method,
                code: name_of(code),
                took: self.begun.elapsed(),
            });
        }
        first
    }
}
